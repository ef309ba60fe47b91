"""Object stores that do not answer for a while, that refuse, or whose client is not installed.

A request that a bucket answers with 503 (SlowDown), or that times out, is sent again after a wait that doubles and is
drawn by chance, until the bucket has been silent for `patience()` seconds; requests to gs:// are repeated by gcsfs.
What then fails is a BucketError, which no code takes for a missing or damaged file.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from raylib.errors import BucketError, RaylibError, UserError

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.1, 20.0
"""Seconds before a request is sent for the second time, and the most that there is before a later one."""

_BUSY_STATUS = {429, 500, 502, 503, 504}
_BUSY_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "RequestTimeout", "InternalError"),
    *("ServiceUnavailable", "RequestLimitExceeded", "BandwidthLimitExceeded", *map(str, _BUSY_STATUS)),
}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_MOST_TRIES = 60

_lock = threading.Lock()
_repeated = 0


def patience() -> float:
    """Seconds for which a bucket that answers nothing is asked again: $RAYLIB_BUCKET_PATIENCE, or 180."""
    return float(os.environ.get("RAYLIB_BUCKET_PATIENCE", "180"))


def repeated_requests() -> int:
    """How many requests of this process were sent again, because a bucket was busy or did not answer."""
    return _repeated


@dataclass
class Repeats:
    """Requests that were sent again since this was made, by this process. others: by other processes, as they tell."""

    others: int = 0
    _before: int = field(default_factory=repeated_requests)

    @property
    def count(self) -> int:
        return repeated_requests() - self._before + self.others

    def told(self) -> list[str]:
        """What a person should hear; nothing where the buckets were calm."""
        many = "a request" if self.count == 1 else f"{self.count} requests"
        was = "was" if self.count == 1 else "were"
        return [f"{many} to a bucket that was busy {was} sent again"] if self.count else []


def check_url(path: str) -> None:
    """Raises UserError, which does not repeat it, for the URL of a bucket with credentials in it: URLs are written into
    logs and results."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme not in ("http", "https") and "@" in rest.partition("/")[0]:
        raise UserError(
            f"a path of {scheme}:// holds credentials (what stands before its @). Paths are stored with results: leave "
            "them out, change the key if it was shown, and give credentials by the environment (AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS) or by the role of the machine"
        )


def filesystem(path: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path as that file system names it. Raises UserError where the client of
    this kind of store is not installed."""
    import fsspec

    check_url(path)
    scheme = path.partition("://")[0]
    once: dict[str, Any] = {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 1}}}
    try:
        found, name = fsspec.core.url_to_fs(path, **(once if _EXTRAS.get(scheme) == "s3" else {}))
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        how = f"pip install 'raylib-cluster[{extra}]'" if extra else f"install it ({error})"
        raise UserError(f"{bucket_of(path)}: the client for {scheme}:// is not installed; {how}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}; expected a local path, s3:// or gs://") from error
    if _EXTRAS.get(scheme) == "s3":
        # The event that botocore asks whether a request is to be sent again; registered once however often.
        found.s3.meta.events.register("needs-retry.s3", _Patient(), unique_id="raylib")
    return found, name


def bucket_of(path: str) -> str:
    """s3://bucket of a path in it."""
    scheme, _, rest = path.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


class _Patient:
    """A handler of botocore's `needs-retry`: seconds until a request is sent again, or None. One for a client, whose
    requests it all sees. An answer from the store ends the silence."""

    def __init__(self) -> None:
        self._silent_since: float | None = None

    def __call__(
        self, attempts: int, request_dict: Any, response: Any = None, caught_exception: Any = None, **_: Any
    ) -> float | None:
        global _repeated
        if attempts > 1:
            with _lock:
                _repeated += 1
        if not _is_busy(response, caught_exception):
            self._silent_since = None
            return None
        now = time.monotonic()
        since = self._silent_since = self._silent_since or now
        if now - since > patience() or attempts >= _MOST_TRIES:
            return None
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempts - 1)) * random.uniform(0.5, 1)
        if attempts == 7:
            where = str(request_dict.get("url")).partition("?")[0]
            logger.warning("%s is busy or does not answer; it is asked again for %g s", where, patience())
        return wait


def _is_busy(response: Any, error: BaseException | None) -> bool:
    if error is not None:
        return _is_silence(error)
    if response is None:
        return False
    http, parsed = response
    return http.status_code in _BUSY_STATUS or (parsed.get("Error") or {}).get("Code") in _BUSY_CODES


def _is_silence(error: BaseException) -> bool:
    """A connection that cannot be made, breaks, or hears nothing."""
    names = {kind.__name__ for kind in type(error).__mro__}
    botocore = {"HTTPClientError", "ConnectionError", "EndpointConnectionError", "ReadTimeoutError"}
    return isinstance(error, TimeoutError | ConnectionError) or bool(names & (botocore | {"FSTimeoutError"}))


@contextmanager
def speaking_of(path: str) -> Iterator[None]:
    """What a store raises inside because it does not answer, or lets nobody in, becomes a BucketError that names the
    bucket. What it says of a single file stays an OSError."""
    try:
        yield
    except RaylibError:
        raise
    except Exception as error:
        found = _as_bucket_error(error, path)
        if found is None:
            raise
        raise found from error


def _as_bucket_error(error: BaseException, path: str) -> BucketError | None:
    chain, one = [], error
    while one is not None and one not in chain:
        chain.append(one)
        one = one.__cause__
    bucket = bucket_of(path)
    names = {type(one).__name__ for one in chain}
    codes = {str((getattr(one, "response", None) or {}).get("Error", {}).get("Code")) for one in chain}
    codes |= {str(getattr(one, "code", None)) for one in chain}  # of gcsfs
    if names & {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "DefaultCredentialsError"}:
        return BucketError(
            f"{bucket}: no credentials were found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or "
            "GOOGLE_APPLICATION_CREDENTIALS on every node, or give the nodes a role"
        )
    if codes & {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}:
        return BucketError(f"{bucket}: its credentials are refused ({', '.join(sorted(codes - {'None'}))}); renew them")
    if "NoSuchBucket" in codes:
        return BucketError(f"{bucket} does not exist; make it, or give another path")
    if codes & {"AccessDenied", "403"}:
        return BucketError(f"{path}: access is denied; give the credentials or the role the right to read and write it")
    if codes & _BUSY_CODES or any(map(_is_silence, chain)):
        return BucketError(
            f"{bucket} did not answer for {patience():g} s ({_said(error)}). What was stored before is intact: run the "
            "same command again when it does, which goes on from there. RAYLIB_BUCKET_PATIENCE is how long to wait"
        )
    return None


def _said(error: BaseException) -> str:
    """What an error says, in a line, without what looks like a key of AWS."""
    said = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return re.sub(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", "…", said)[:200]
