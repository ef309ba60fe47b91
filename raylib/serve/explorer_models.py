"""What the explorer's routes take and give, as pydantic models: the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=1024)]


class ExplainRequest(BaseModel):
    """Why a document was found for a question. beside: further documents that share the scale of the colours."""

    model_config = ConfigDict(extra="forbid")

    query: Annotated[str, Field(min_length=1, max_length=20_000)]
    document_id: Name
    model: Name | None = None
    beside: Annotated[list[Name], Field(max_length=50)] = Field(default_factory=list)


class ExplainedWord(BaseModel):
    """special: of the prompt, or added by the model. tokens: how many of the question's vectors are this word's. score:
    what it added to the total. cells: [row, column] of the patches that counted, without those of tokens that matched
    a vector outside the page."""

    text: str
    special: bool
    tokens: int
    score: float
    cells: list[tuple[int, int]]


class ExplainReply(BaseModel):
    """total: the score. note: where `kind` is "whole", why there are no maps; then everything after it is empty.

    similarities [words][rows][columns]: of each patch to each word, to four decimals. film: base64 of a PNG: the sum of
    the words that are not special, then each word, one below the other, in the colours of a heat map.
    """

    object: Literal["explanation"] = "explanation"
    model: str
    document_id: str
    kind: Literal["patches", "whole"]
    total: float
    note: str | None = None
    words: list[ExplainedWord] = Field(default_factory=list)
    rows: int = 0
    columns: int = 0
    similarities: list[list[list[float]]] = Field(default_factory=list)
    film: str = ""


class ShownDocument(BaseModel):
    """text: its start. width, height: of its image in pixels, null for a document without one."""

    id: str
    text: str | None
    width: int | None
    height: int | None
    metadata: dict[str, str | int | float | bool]


class DocumentsReply(BaseModel):
    """count: documents of the whole corpus."""

    object: Literal["list"] = "list"
    model: str
    start: int
    count: int
    data: list[ShownDocument]


class Run(BaseModel):
    run: str
    title: str
    tasks: list[str]


class RunsReply(BaseModel):
    """available: false where the server was given no folder of runs, or the folder holds none."""

    object: Literal["list"] = "list"
    available: bool
    note: str | None = None
    data: list[Run]


class RunDocument(BaseModel):
    """rank, score: null for a document that is not among the kept ones. relevance: its grade, null where nobody judged
    it. page: a key of `pages`."""

    id: str
    rank: int | None
    score: float | None
    relevance: int | None
    text: str | None
    page: str | None


class RunQuery(BaseModel):
    """found: the first documents of the ranking. expected: relevant ones further down. n_relevant: of all."""

    id: str
    split: str
    subset: str
    text: str | None
    value: float
    n_relevant: int
    found: list[RunDocument]
    expected: list[RunDocument]


class WorstReply(BaseModel):
    """mean, median, bins [10]: of the measure over all `count` queries. pages: data URLs of thumbnails."""

    object: Literal["list"] = "list"
    run: str
    task: str
    measure: str
    measures: list[str]
    parts: list[tuple[str, str]]
    start: int
    count: int
    mean: float
    median: float
    bins: list[int]
    data: list[RunQuery]
    pages: dict[str, str]
    notes: list[str]
