"""The settings of `raylib serve`: its flags and its YAML keys."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field

from raylib.errors import UserError
from raylib.models.options import ModelOptions
from raylib.models.protocol import ModelSpec
from raylib.placement import at_least_one, name_list

_COUNTS = (
    *("max_batch_tokens", "max_queue", "max_inputs", "max_body_bytes", "max_text_characters", "max_image_pixels"),
    *("max_request_pixels", "cpus_per_replica"),
)


@dataclass
class ServeConfig(ModelOptions):
    """Put models and encoded corpora behind HTTP: OpenAI's embeddings API, search, and a page to look at it.

    Texts and images are embedded by the encoders of the jobs, what many clients ask in one forward. SIGTERM finishes
    what was begun; SIGHUP takes the model's files as they are then, without a pause.
    """

    store: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Where the vectors of corpora are; what clients add is kept there."""

    corpus: list[str] = field(default_factory=list)
    """Corpora that can be searched: benchmarks or tasks that the store holds vectors of, output folders of raylib
    encode, or empty:NAME for documents that clients add. Comma-separated or repeated."""

    languages: list[str] = field(default_factory=list)
    """Of a corpus that is a task: only these languages."""

    splits: list[str] = field(default_factory=list)
    """Of a corpus that is a task: only these splits."""

    data_root: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Of a corpus that is a task: read it from DIR/<org>/<repo> instead of the hub."""

    allow_errors: int = 0
    """Documents of a corpus that may be without vectors."""

    host: str = field(default="127.0.0.1", metadata={"metavar": "ADDRESS"})
    """Where to listen. Anything but this machine itself needs --token-file."""

    port: int = 8000
    """0 takes one that is free and says which."""

    token_file: str | None = field(default=None, metadata={"metavar": "FILE"})
    """Tokens, one a line, one of which clients must send: Authorization: Bearer TOKEN."""

    replicas: str = field(default="1", metadata={"metavar": "N|MIN..MAX"})
    """Processes that hold a model: a number, or a range within which they follow the load."""

    gpus_per_replica: float | None = None
    """GPUs of one replica; a fraction shares one. 1 by default where the cluster has GPUs, else 0."""

    cpus_per_replica: int | None = None
    """CPUs, and torch threads, of one replica. 1 by default; with --local as many threads as torch takes."""

    max_batch_tokens: int = 16384
    """Tokens per forward, padding included."""

    max_queue: int = 4096
    """Inputs that may wait for a model; beyond, the answer is 429."""

    timeout: float = field(default=30.0, metadata={"metavar": "SECONDS"})
    """What a request may take; beyond, the answer is 504."""

    max_inputs: int = 2048
    """Inputs, or documents, of one request."""

    max_body_bytes: int = 32 * 2**20
    """Bytes of one request."""

    max_text_characters: int = 200_000
    """Characters of one text."""

    max_image_pixels: int = 40_000_000
    """Pixels of one image; A4 at 600 dpi has 35 million."""

    max_request_pixels: int = 400_000_000
    """Pixels of all images of one request."""

    runs: str | None = field(default=None, metadata={"metavar": "DIR"})
    """Results of `raylib evaluate`, whose queries the page can be looked through."""

    address: str | None = field(default=None, metadata={"metavar": "ADDRESS"})
    """A Ray cluster to join. By default RAY_ADDRESS, or Ray is started on this machine."""

    local: bool = False
    """All in this process, without Ray."""

    quiet: bool = False
    """Only problems are told."""

    def __post_init__(self) -> None:
        """Split comma lists and check what can be checked without loading anything. Raises UserError."""
        for name in ("model", "corpus", "languages", "splits"):
            setattr(self, name, name_list(getattr(self, name)))
        at_least_one(self, _COUNTS)
        self.replica_range()
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; expected 0 to 65535")
        if not self.timeout > 0:
            raise UserError(f"--timeout is {self.timeout:g}; expected seconds above 0")
        if self.max_queue < self.max_inputs:
            raise UserError(
                f"--max-queue is {self.max_queue}, below --max-inputs {self.max_inputs}: a full request would never "
                "find room. Raise the one or lower the other"
            )
        if self.gpus_per_replica is not None and self.gpus_per_replica < 0:
            raise UserError(f"--gpus-per-replica is {self.gpus_per_replica:g}; expected 0 or more")
        if self.local and self.address:
            raise UserError("--local runs without Ray and --address names a cluster; leave one of them out")
        if self.local and self.replicas != "1":
            raise UserError(f"--local is one process and --replicas is {self.replicas}; leave one of them out")

    def check_complete(self) -> None:
        """Raises UserError unless a model is named, a corpus has a store, and the place to listen is guarded."""
        if not self.model:
            raise UserError("no model was given; add --model NAME (see: raylib list models)")
        if self.corpus and not self.store:
            raise UserError(f"--corpus {self.corpus[0]} needs --store DIR, where its vectors are")
        if not _is_loopback(self.host) and self.token_file is None:
            raise UserError(
                f"--host {self.host} is reached from other machines, and anyone there could use the models and change "
                "the corpora. Add --token-file FILE with a secret, or leave --host out to serve this machine alone"
            )

    def replica_range(self) -> tuple[int, int]:
        """Fewest and most replicas. Raises UserError."""
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", self.replicas.strip())
        low, high = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
        if not 1 <= low <= high:
            raise UserError(f"--replicas is {self.replicas!r}; expected a number such as 2, or a range such as 1..8")
        return low, high

    def specs(self) -> list[ModelSpec]:
        """One spec per model, without repeats, all with the same options."""
        return [spec.on_gpus(self.gpus_per_replica) for spec in super().specs()]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
