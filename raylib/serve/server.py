"""`raylib serve`: models and corpora are opened, and uvicorn answers until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from raylib.errors import RaylibError, UserError
from raylib.models.protocol import Encoder
from raylib.serve.app import create_app
from raylib.serve.auth import LOOPBACK_NAMES, read_tokens
from raylib.serve.carry import Gate, carry_over
from raylib.serve.config import ServeConfig
from raylib.serve.limits import Limits
from raylib.serve.local import servable_encoders
from raylib.serve.protocol import Corpus, Served

logger = logging.getLogger(__name__)

Opener = Callable[[ServeConfig, Encoder, str, AsyncExitStack], Awaitable[dict[str, Served]]]
"""(settings, encoder, its name for clients, stack) → what is served of it, ready; what must be closed is on the stack.
Raises RaylibError."""

_KEEP_ALIVE_SECONDS = 75
"""Longer than clients and proxies keep a connection that nobody uses: the server should not be the one that closes it
just as a request comes."""

_DRAIN_SECONDS = 5
"""Beyond --timeout, which every request under way has, until a stopping server gives up on the last ones."""


_Pair = tuple[Corpus, Served]


@dataclass
class _Opened:
    served: dict[str, Served]
    stack: AsyncExitStack


_ByKey = Mapping[tuple[str, str], _Opened]
"""(name, fingerprint) of a model → what is opened of it."""


class Current(Mapping[str, Served]):
    """What is served now. `renew` opens a model whose files are others than before, and only then lets go of the old:
    no request finds nothing, and none meets vectors of two states of a model."""

    def __init__(self, config: ServeConfig, opener: Opener, gate: Gate) -> None:
        """gate: closed for changes of corpora while their models change."""
        self._config, self._opener, self._gate = config, opener, gate
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._now: dict[str, Served] = {}  # of what is opened: every request looks here
        self._turn = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    def __getitem__(self, name: str) -> Served:
        return self._now[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now)

    def __len__(self) -> int:
        return len(self._now)

    async def renew(self) -> bool:
        """False where no model has changed. Corpora are opened in the vectors of the new one, with what clients did to
        them. Raises RaylibError; what was served before is served on then."""
        async with self._turn:
            named = await asyncio.to_thread(servable_encoders, self._config)
            wanted = {(name, encoder.fingerprint): encoder for name, encoder in named.items()}
            new = {key: encoder for key, encoder in wanted.items() if key not in self._opened}
            opened = await self._open(new)
            old = {key: one for key, one in self._opened.items() if key not in wanted}
            try:
                pairs = _replaced(old, opened)
                carried = [await carry_over(before, after, {}) for before, after in pairs]
                async with self._gate.closed():
                    for (before, after), known in zip(pairs, carried, strict=True):
                        await carry_over(before, after, known)
                    self._opened = {key: opened.get(key) or self._opened[key] for key in wanted}
                    self._now = {name: one for every in self._opened.values() for name, one in every.served.items()}
            except BaseException:
                await _close(opened)
                raise
        for one in old.values():
            task = asyncio.ensure_future(self._close_later(one))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return bool(new)

    async def _open(self, new: Mapping[tuple[str, str], Encoder]) -> dict[tuple[str, str], _Opened]:
        """All of them, or none."""
        opened: dict[tuple[str, str], _Opened] = {}
        try:
            for key, encoder in new.items():
                async with AsyncExitStack() as stack:
                    served = await self._opener(self._config, encoder, key[0], stack)
                    opened[key] = _Opened(served, stack.pop_all())
        except BaseException:
            await _close(opened)
            raise
        return opened

    async def _close_later(self, old: _Opened) -> None:
        """Once the requests that found the old are answered."""
        await asyncio.sleep(self._config.timeout)
        await old.stack.aclose()

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await _close(self._opened)


async def _close(opened: _ByKey) -> None:
    for one in opened.values():
        await one.stack.aclose()


def _replaced(old: _ByKey, new: _ByKey) -> list[_Pair]:
    """Every corpus of a model that takes the place of another one, once: (as it was, the model that has it now)."""
    before = {name: one.corpus for opened in old.values() for name, one in opened.served.items()}
    found: dict[int, _Pair] = {}
    for opened in new.values():
        for name, one in opened.served.items():
            corpus = before.get(name)
            if corpus is not None and one.corpus is not None:
                found.setdefault(id(one.corpus), (corpus, one))
    return list(found.values())


@dataclass
class _Listening:
    socket: socket.socket
    address: str


def listen(config: ServeConfig) -> _Listening:
    """Raises UserError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((config.host, config.port))
        found.listen(2048)
    except OSError as error:
        found.close()
        why = error.strerror or error
        raise UserError(f"cannot listen on {config.host} port {config.port}: {why}. Choose another --port") from error
    host = f"[{config.host}]" if ":" in config.host else config.host
    return _Listening(found, f"http://{host}:{found.getsockname()[1]}")


def serve(config: ServeConfig, opener: Opener) -> None:
    """Until SIGTERM or SIGINT; then what was begun is finished. Raises RaylibError for what cannot be served."""
    import uvicorn

    tokens = read_tokens(config.token_file) if config.token_file else []
    listening = listen(config)
    _allow_many_connections()
    failed: list[Exception] = []
    current: list[Current] = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        del app
        try:
            await current[0].renew()
        except Exception as error:
            failed.append(error)
            raise
        _on_hangup(current[0], config)
        _tell(config, f"serving {', '.join(current[0])} on {listening.address}")
        try:
            yield
        finally:
            await current[0].close()

    async def run() -> None:
        gate = Gate()
        current.append(Current(config, opener, gate))
        app = create_app(
            current[0],
            limits=Limits.of(config),
            tokens=tokens,
            hosts=None if tokens else LOOPBACK_NAMES | {_bracketed(config.host)},
            runs=config.runs,
            gate=gate,
            lifespan=lifespan,
        )
        settings = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(config.timeout) + _DRAIN_SECONDS,
            backlog=2048,
        )
        await uvicorn.Server(settings).serve([listening.socket])

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the one it stopped for again, at the end
    with contextlib.closing(listening.socket), contextlib.suppress(SystemExit):
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL if not logger.isEnabledFor(logging.DEBUG) else 0)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    if failed:
        raise failed[0]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it is there: it is with uvicorn, but for Windows."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


def _on_hangup(current: Current, config: ServeConfig) -> None:
    """SIGHUP: the model's files as they are now."""

    async def renew() -> None:
        try:
            renewed = await current.renew()
            _tell(config, f"renewed: {', '.join(current)}" if renewed else "no model's files have changed")
        except RaylibError as error:
            print(f"raylib: not renewed, what was served is served on: {error}", file=sys.stderr, flush=True)
        except Exception:
            logger.exception("not renewed, what was served is served on")

    tasks: set[asyncio.Task[None]] = set()

    def hung_up() -> None:
        task = asyncio.ensure_future(renew())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with contextlib.suppress(NotImplementedError, AttributeError, ValueError):
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _tell(config: ServeConfig, what: str) -> None:
    if not config.quiet:
        print(what, flush=True)


def _allow_many_connections() -> None:
    """As many files as this user may have open: each connection is one."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2**20), hard))
