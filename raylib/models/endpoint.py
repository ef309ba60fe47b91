"""A model behind an OpenAI-compatible server: its vectors come over HTTP, its prompts are those of the local model.

Texts go as one request a batch. What a family puts into a chat turn (page images, BiGemma3's texts) goes as the
"messages" of vLLM's embeddings API, one request each, with images as lossless PNG
(https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from raylib.errors import ModelError, RefusedContentsError, UnsupportedOptionError, UserError
from raylib.models.bridge import BridgeEncoder
from raylib.models.endpoint_client import REQUESTS_AT_ONCE, EndpointClient, RefusedError, checked_url
from raylib.models.family import Family
from raylib.models.protocol import Encoder, ModelSpec
from raylib.models.sentence import SentenceEncoder
from raylib.types import Batch, Embeddings, EncodeContext, Role, Similarity, Tensors

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta
    from PIL import Image

UNKNOWN = Family(name="endpoint", encoder="raylib.models.endpoint:EndpointEncoder", kind="dense", modalities=("text",))
"""Of a served name that nothing here knows: text, with the user's prompts or none, compared by cosine."""

MOST_TEXTS = 2048
"""Of one request, by OpenAI's documentation. A server that takes fewer shows it by refusing."""


class EndpointEncoder(Encoder):
    """local: the encoder that this model would have here, whose weights are never loaded; None for a served name that
    nothing here knows."""

    supported_options: ClassVar[frozenset[str]] = frozenset({"embedding_dim", "query_prompt", "document_prompt"})
    fields: ClassVar[tuple[str, ...] | None] = ("text", "image")
    needs_device = False
    ENCODING_VERSION: ClassVar[int] = 1

    def __init__(self, spec: ModelSpec, local: Encoder | None) -> None:
        assert spec.endpoint is not None
        self.endpoint = checked_url(spec.endpoint)
        spec = replace(spec, endpoint=self.endpoint)
        others = spec.flags(besides=self.supported_options)
        if others:
            raise UnsupportedOptionError(
                f"{spec.name}: {others} is the server's affair. Leave it out, and start the server so."
            )
        super().__init__(spec, local.family if local is not None else UNKNOWN)
        self._known = local
        self._local = None if isinstance(local, BridgeEncoder) else local
        self._check_prompts()
        _ = self._served("a", None)  # a family that cannot be served is refused here
        self.similarity: Similarity = local.similarity if local is not None else "cosine"
        pixel = _pixel()
        sees = self._can_serve(None, pixel)
        self.modalities = frozenset({"text", "image"} if sees else {"text"})
        self.fuses = self._can_serve("a", pixel)
        self.side_by_side = 2 if sees else 8  # a batch of pages is some hundred megabytes, and fills the connections

    def _check_prompts(self) -> None:
        """Raises UserError where the local model's prompts cannot be known: without them vectors would be others."""
        if self.spec.query_prompt is not None and self.spec.document_prompt is not None:
            return
        advice = 'Give --query-prompt and --document-prompt, "" for none.'
        if isinstance(self._known, BridgeEncoder):
            raise UserError(f"{self.spec.name} runs in code of MTEB's, which does not tell its prompts. {advice}")
        if isinstance(self._known, SentenceEncoder) and not self._known.tells_prompts:
            raise UserError(
                f"the prompts of {self.spec.name} are in its config_sentence_transformers.json, which is neither in "
                f"the local hub cache nor to be had from the hub. Download the model's JSON files. Or: {advice}"
            )

    def _served(self, text: str | None, image: Image.Image | None, prompt: str = "") -> list[Any]:
        if self._local is not None:
            return self._local.served(text, image, prompt)
        if text is None or image is not None:
            raise UnsupportedOptionError(f"{self.spec.name} is asked for texts alone")
        return [text]

    def _can_serve(self, text: str | None, image: Image.Image | None) -> bool:
        try:
            return bool(self._served(text, image))
        except UnsupportedOptionError:
            return False

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "family": "endpoint",
            "version": self.ENCODING_VERSION,
            "served": self.family.name,
            "endpoint": self.endpoint,
            "model": self.spec.name,
            "revision": self.spec.revision,
            "dim": self.spec.embedding_dim,
        }

    def default_prompt(self, task: TaskMetadata | None, role: Role | None) -> str | None:
        return self._local.context(task, role).prompt if self._local is not None else None

    def preprocess(self, batch: Batch, context: EncodeContext) -> Tensors:
        """Gives "asked" [n] of objects: per content a list of what is sent for it, each a text or the parts of a chat
        turn, images as data URIs."""
        texts, images = batch.get("text"), batch.get("image")
        n = len(texts if texts is not None else images or ())
        if n == 0:
            raise UserError(f"{self.spec.name} encodes {' and '.join(sorted(self.modalities))}; got {sorted(batch)}")
        asked = np.empty(n, dtype=object)
        for row in range(n):
            text = context.prompt + texts[row] if texts is not None else None
            image = images[row] if images is not None else None
            asked[row] = [_sendable(part) for part in self._served(text, image, context.prompt)]
        return {"asked": asked}

    def forward(self, tensors: Tensors) -> Embeddings:
        """Raises RefusedContentsError where the server refuses some of the contents, each asked for by itself, and
        ModelError where it fails."""
        asked = [list(parts) for parts in tensors["asked"]]
        answers = iter(self._server.answers([part for parts in asked for part in parts]))
        rows = [[next(answers) for _ in parts] for parts in asked]
        reasons = {i: next(a for a in row if isinstance(a, str)) for i, row in enumerate(rows) if _refused(row)}
        good = [row for row in rows if not _refused(row)]
        rest = None
        if good:
            parts = [Embeddings.from_dense(np.stack(column)) for column in zip(*good, strict=True)]
            rest = parts[0] if len(parts) == 1 else self._fused(*parts)
        if reasons:
            raise RefusedContentsError(self.spec.name, reasons, rest)
        assert rest is not None, "a batch has contents"
        return rest

    def _fused(self, text: Embeddings, image: Embeddings) -> Embeddings:
        assert self._local is not None, "only families have two parts"
        return self._local.fuse(text, image)

    @cached_property
    def _server(self) -> _Server:
        expected = self.spec.embedding_dim or self._published_dim()
        server = _Server(EndpointClient(self.endpoint, self.spec.name), self.spec.embedding_dim)
        server.start(_sendable(self._served("a", None)[0]), expected)
        return server

    def _published_dim(self) -> int | None:
        member = self.family.members.get(self.spec.name)
        return member.dim if member is not None and member.dim else None

    def load(self) -> None:
        """Ask for one small text, so that a wrong address, key, name or dimension shows before anything is encoded."""
        _ = self._server

    def model_meta(self) -> ModelMeta | None:
        """MTEB's, without its revision: which one the server runs is not known."""
        known = self._known.model_meta() if self._known is not None else None
        return None if known is None else known.model_copy(update={"revision": None})

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_server"}


@dataclass
class _Server:
    """What a running encoder knows of its server: the width of vectors, and how many texts it takes at a time."""

    client: EndpointClient
    wanted_dim: int | None
    dim: int = 0
    most: int = MOST_TEXTS
    threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="endpoint")
    )

    def start(self, probe: str | list[dict[str, Any]], expected: int | None) -> None:
        """Find out whether it answers, in which encoding, and how wide its vectors are. Raises ModelError."""
        try:
            found = self._embed(probe, starting=True)
        except RefusedError as first:
            self.client.encoding = "float"  # older servers know no other
            try:
                found = self._embed(probe, starting=True)
            except RefusedError:
                advice = f" Does it cut vectors? {_CUTTING}" if self.wanted_dim is not None else ""
                raise ModelError(
                    f"{self.client.model}: {self.client.endpoint} takes no request for it: {first}.{advice}"
                ) from None
        self.dim = found.shape[1]
        if expected is not None and self.dim != expected:
            asked = self.wanted_dim is not None
            what = f"--embedding-dim {expected} was asked for" if asked else f"the model's have {expected}"
            raise ModelError(
                f"{self.client.model}: vectors of {self.client.endpoint} have {self.dim} dimensions; {what}. "
                f"{_CUTTING if asked else 'Another model is served under this name.'}"
            )

    def answers(self, parts: Sequence[str | list[dict[str, Any]]]) -> list[np.ndarray | str]:
        """Per part its vector [dim], or why the server refuses it. Up to REQUESTS_AT_ONCE requests at a time."""
        texts = [i for i, part in enumerate(parts) if isinstance(part, str)]
        groups = [texts[at : at + self.most] for at in range(0, len(texts), self.most)]
        groups += [[i] for i, part in enumerate(parts) if not isinstance(part, str)]
        found: list[np.ndarray | str] = [""] * len(parts)
        futures = [self.threads.submit(self._halving, [parts[i] for i in group]) for group in groups]
        try:
            for group, future in zip(groups, futures, strict=True):
                for i, answer in zip(group, future.result(), strict=True):
                    found[i] = answer
        finally:
            for future in futures:  # where one has failed, those that still wait are not sent
                future.cancel()
        return found

    def _halving(self, parts: list[Any]) -> list[np.ndarray | str]:
        """The answers to texts that go together, or to one turn. What is refused goes again in halves: a server refuses
        all for one that is too long."""
        try:
            return list(self._checked(parts))
        except RefusedError as error:
            if len(parts) == 1:
                return [str(error)]
        half = len(parts) // 2
        found = self._halving(parts[:half]) + self._halving(parts[half:])
        if not _refused(found):  # they were only too many
            self.most = min(self.most, len(parts) - half)
        return found

    def _checked(self, parts: list[Any]) -> np.ndarray:
        vectors = self._embed(parts[0] if len(parts) == 1 else parts)
        if vectors.shape[1] != self.dim:
            raise ModelError(
                f"{self.client.model}: {self.client.endpoint} sends vectors of {vectors.shape[1]} dimensions, after "
                f"{self.dim} before. Nothing of that request was stored; was the server restarted with another model?"
            )
        return vectors

    def _embed(self, asked: Any, *, starting: bool = False) -> np.ndarray:
        """[n, dim]. asked: a text, several, or the parts of one turn."""
        texts = [asked] if isinstance(asked, str) else asked
        plain = isinstance(texts[0], str)
        body: dict[str, Any] = {"input": texts} if plain else {"messages": [{"role": "user", "content": asked}]}
        if self.wanted_dim is not None:
            body["dimensions"] = self.wanted_dim
        return self.client.embed(body, len(texts) if plain else 1, starting=starting)


_CUTTING = (
    "Leave --embedding-dim out, or let the server cut: vLLM does with --hf-overrides '{\"is_matryoshka\": true}'."
)


def _refused(answers: Sequence[np.ndarray | str]) -> bool:
    return any(isinstance(answer, str) for answer in answers)


def _sendable(part: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """A part as JSON can hold it."""
    if isinstance(part, str):
        return part
    return [{"type": "image_url", "image_url": {"url": _data_uri(p["image"])}} if "image" in p else p for p in part]


def _data_uri(image: Image.Image) -> str:
    """PNG, which loses nothing; at its fastest, for the network is quicker than deflate."""
    stream = io.BytesIO()
    image.save(stream, format="PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _pixel() -> Image.Image:
    from PIL import Image

    return Image.new("RGB", (1, 1))


def served(spec: ModelSpec, find: Callable[[ModelSpec], Any]) -> EndpointEncoder:
    """The encoder of a spec with an endpoint. find: the local model of a spec, None for a name that is known nowhere.

    Raises UserError for an address that cannot be, UnsupportedOptionError for options that the server decides and for
    families that no server can stand for.
    """
    others = spec.flags(besides=EndpointEncoder.supported_options)
    bare = replace(spec, endpoint=None, embedding_dim=None, query_prompt=None, document_prompt=None)
    local = None if others else find(bare)  # options are refused in the words of the endpoint
    if local is not None and not isinstance(local, Encoder):
        raise UnsupportedOptionError(f"{spec.name} searches by itself and has no vectors; leave --endpoint out")
    return EndpointEncoder(spec, local)
