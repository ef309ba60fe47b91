"""What clients may send, as pydantic models: the OpenAPI document is made of these.

Inputs are taken as they are and read by `raylib.serve.contents`, which says what is wrong in one sentence; pydantic
would say it once for each form that an input can have.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from raylib.serve.limits import MAX_ID_CHARACTERS, MAX_METADATA_FIELDS, MAX_TOP_K

_PARTS = {
    "type": "array",
    "description": 'As in chats: {"type": "text", "text": …}, {"type": "image_url", "image_url": {"url": …}}',
    "items": {"type": "object"},
}
_OBJECT = {
    "type": "object",
    "description": "A text, an image as a data URL (PNG, JPEG or WebP), or both where the model fuses them.",
    "properties": {"text": {"type": "string"}, "image": {"type": "string"}, "content": _PARTS},
    "additionalProperties": False,
}
_INPUT = {"anyOf": [{"type": "string", "minLength": 1}, _OBJECT]}
_INPUTS = {"anyOf": [*_INPUT["anyOf"], {"type": "array", "minItems": 1, "items": _INPUT}]}

Inputs = Annotated[Any, WithJsonSchema(_INPUTS)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARACTERS)]
Role = Literal["query", "document"]
MetadataValue = str | int | float | bool


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class EmbeddingsRequest(_Asked):
    """As OpenAI's. `prompt_type` says on which side of a search the inputs are: many models put a prompt of their own
    before each. Without it they are embedded as they are."""

    input: Inputs
    model: Name | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, le=2**20)] | None = None
    prompt_type: Role | None = None
    user: str | None = None


class SearchRequest(_Asked):
    """A text, an image (a data URL), or both where the model fuses them; the `top_k` best documents for it."""

    query: str | None = None
    image: str | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K)] = 10
    filters: dict[str, Any] | None = None
    model: Name | None = None


class NewDocument(_Asked):
    """A document with a text, an image (a data URL), or both where the model fuses them; or a PDF (a data URL), each
    page of which becomes a document, "ID#page=3". One with an `id` that is there replaces the other; without an `id` it
    is given one."""

    id: Name | None = None
    text: str | None = None
    image: str | None = None
    pdf: str | None = None
    metadata: Annotated[dict[Name, MetadataValue], Field(max_length=MAX_METADATA_FIELDS)] = Field(default_factory=dict)


class AddRequest(_Asked):
    """Documents for the corpus of `model`; of every model that has a corpus, where none is named."""

    documents: Annotated[list[NewDocument], Field(min_length=1)]
    model: Name | None = None


class DeleteRequest(_Asked):
    """ids: any texts, also such as no path of an address can hold."""

    ids: Annotated[list[Name], Field(min_length=1)]
    model: Name | None = None


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(BaseModel):
    """Every answer that is no success."""

    error: ErrorDetail


class Embedding(BaseModel):
    """Of a dense model `embedding`; of a late-interaction model `multi_vector` with its `shape` [tokens, dim]. A string
    is base64 of little-endian float32."""

    object: Literal["embedding", "multi_vector"]
    index: int
    embedding: list[float] | str | None = None
    multi_vector: list[list[float]] | str | None = None
    shape: list[int] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsReply(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class Found(BaseModel):
    id: str
    score: float
    metadata: dict[str, MetadataValue]


class SearchReply(BaseModel):
    object: Literal["list"]
    model: str
    data: list[Found]


class AddReply(BaseModel):
    """ids: of the documents, in their order. They are on disk, and can be found."""

    object: Literal["list"]
    ids: list[str]


class DeleteReply(BaseModel):
    """deleted: those that were there."""

    object: Literal["list"]
    deleted: list[str]
