"""POST /v1/embeddings: OpenAI's request and answer (https://platform.openai.com/docs/api-reference/embeddings).

Beyond OpenAI's: images, `prompt_type`, and the vectors of late-interaction models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from fastapi import APIRouter
from starlette.responses import Response

from raylib.serve.api_models import EmbeddingsReply, EmbeddingsRequest
from raylib.serve.contents import ContentReader
from raylib.serve.limits import Limits
from raylib.serve.protocol import Corpus, Served
from raylib.serve.replies import RequestError, embeddings_response
from raylib.types import Embeddings

if TYPE_CHECKING:
    from raylib.models.protocol import Encoder

_UNIT = 1e-2
"""How far from 1 a vector's length may be that counts as normalised, half precision included."""


def chosen(served: Mapping[str, Served], model: str | None) -> Served:
    """The model that a client names, or the first. Raises RequestError with status 404."""
    if model is None:
        return next(iter(served.values()))
    found = served.get(model)
    if found is None:
        told = f"no model {model[:200]!r} is served; model is one of {', '.join(served)}"
        raise RequestError(404, told, "model", "model_not_found")
    return found


def searched(served: Mapping[str, Served], model: str | None) -> tuple[Served, Corpus]:
    """The model that a client names with its corpus, or the first that has one. Raises RequestError with status 404."""
    for one in served.values() if model is None else [chosen(served, model)]:
        if one.corpus is not None:
            return one, one.corpus
    told = f"no corpus of {'any model' if model is None else model} is served here"
    raise RequestError(404, told, "model", "corpus_not_found")


def embeddings_router(served: Mapping[str, Served], limits: Limits) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/embeddings", summary="Vectors of texts and images", responses={200: {"model": EmbeddingsReply}})
    async def embeddings(asked: EmbeddingsRequest) -> Response:
        one = chosen(served, asked.model)
        encoder = one.embedder.encoder
        if asked.dimensions is not None:
            _check_dimensions(encoder)
        contents = ContentReader(limits).inputs(asked.input)
        found, tokens = await one.embedder.embed(contents, asked.prompt_type, limits.seconds)
        if asked.dimensions is not None:
            found = shortened(found, asked.dimensions)
        return embeddings_response(
            asked.model or one.name,
            found,
            sum(tokens),
            late=encoder.similarity == "maxsim",
            as_base64=asked.encoding_format == "base64",
        )

    return router


def _check_dimensions(encoder: Encoder) -> None:
    """Before anything is embedded: whether this model's vectors can be cut."""
    if encoder.similarity == "maxsim" or "embedding_dim" not in encoder.supported_options:
        raise RequestError(
            400, "dimensions: the vectors of this model cannot be cut; leave it out", "dimensions", "unsupported"
        )


def shortened(found: Embeddings, dimensions: int) -> Embeddings:
    """The first `dimensions` of each vector, unit length again where it was (Matryoshka,
    https://arxiv.org/abs/2205.13147). Raises RequestError for more than there are."""
    vectors = found.dense()
    if dimensions > vectors.shape[1]:
        most = vectors.shape[1]
        raise RequestError(400, f"dimensions is {dimensions}; the vectors of this model have {most}", "dimensions")
    if dimensions == vectors.shape[1]:
        return found
    vectors = vectors.astype(np.float32)
    cut = vectors[:, :dimensions].copy()
    unit = np.abs(np.linalg.norm(vectors, axis=1) - 1) < _UNIT
    lengths = np.linalg.norm(cut[unit], axis=1, keepdims=True)
    cut[unit] /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return Embeddings.from_dense(cut)
