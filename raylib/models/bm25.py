"""raylib/bm25: the text baseline. MTEB's own BM25 (bm25s, with stop words and stemmer by the task's language) with
an exact search.

MTEB's search takes the best k documents first and only then looks which of them may be ranked, so that reranking
tasks lose candidates, and leaves ties as bm25s finds them. Here every document that may be ranked is scored, and ties
go to the greater document id, as MTEB's metrics do.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stderr
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from raylib.errors import UserError
from raylib.models.bridge import SearchModel
from raylib.models.family import Family
from raylib.models.mteb_source import ModelSource
from raylib.models.protocol import ModelSpec

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

REVISION = "1"
"""Of this search; raised when its scores change."""


class Bm25(SearchModel):
    """Runs on the CPU of one process; there is nothing to load."""

    def __init__(self, spec: ModelSpec, family: Family) -> None:
        super().__init__(spec, Bm25Source(spec))
        self.family = family


class Bm25Source(ModelSource):
    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"name": self.spec.name, "revision": REVISION, "mteb": version("mteb"), "bm25s": version("bm25s")}

    @property
    def meta(self) -> ModelMeta:
        from mteb.models.model_meta import ModelMeta

        reference = "https://github.com/xhluca/bm25s"
        known = {"name": self.spec.name, "revision": REVISION, "model_type": ["sparse"], "modalities": ["text"]}
        return ModelMeta.create_empty({**known, "reference": reference, "open_weights": True, "n_parameters": 0})

    @property
    def candidates(self) -> list[Any]:
        return []

    def load(self) -> Any:
        model = _search_class()()
        model.mteb_model_meta = self.meta
        return model


def best(values: np.ndarray, top_k: int) -> np.ndarray:
    """Places of the top_k greatest of values [n], greatest first; of equal ones the earlier place first."""
    places = np.arange(len(values))
    if len(values) > top_k:  # sorting a whole large corpus for each query would be most of the time
        places = np.flatnonzero(values >= np.partition(values, -top_k)[-top_k])
    return places[np.argsort(-values[places], kind="stable")][:top_k]


def _without_bars() -> AbstractContextManager[Any]:
    """bm25s draws progress bars on stderr that MTEB gives no way to turn off."""
    return redirect_stderr(io.StringIO())


def _search_class() -> type:
    """MTEB's BM25Search with another `search`; a class inside a function because mteb is heavy to import."""
    from mteb.models.model_implementations.bm25 import BM25Search

    class ExactBm25(BM25Search):
        def index(self, corpus: Any, **kwargs: Any) -> None:
            if "text" not in corpus.column_names:
                raise UserError(f"raylib/bm25 reads text; this corpus has only {', '.join(corpus.column_names)}")
            text_only = corpus.remove_columns([c for c in ("image", "audio", "video") if c in corpus.column_names])
            with _without_bars():
                super().index(text_only, **kwargs)
            self.places = {document_id: place for place, document_id in self.corpus_idx_to_id.items()}
            self.greatest_first = sorted(self.places, reverse=True)

        def search(self, queries: Any, *, top_k: int, top_ranked: Any = None, **kwargs: Any) -> Any:
            """{query id: {document id: score}}, at most top_k documents a query, among top_ranked's where given."""
            from mteb._create_dataloaders import _combine_queries_with_instruction_text

            del kwargs
            assert self._tokenizer is not None and self.retriever is not None, "index comes before search"
            rows = _combine_queries_with_instruction_text(queries)
            with _without_bars():
                tokens = self._tokenizer.transform(list(rows["text"]))
            words = {index: word for word, index in tokens.vocab.items()}
            found = {}
            for query_id, indices in zip(rows["id"], tokens.ids, strict=True):
                scores = self._scores([words[index] for index in indices])
                ids = self.greatest_first if top_ranked is None else sorted(top_ranked.get(query_id, []), reverse=True)
                values = scores[[self.places[document_id] for document_id in ids]]
                found[query_id] = {ids[i]: float(values[i]) for i in best(values, top_k)}
            return found

        def _scores(self, words: list[str]) -> np.ndarray:
            """[documents] of one query; zeros when no document has any of its words."""
            assert self.retriever is not None
            known = [word for word in words if word in self.retriever.vocab_dict]
            return self.retriever.get_scores(known) if known else np.zeros(len(self.places), dtype=np.float32)

    return ExactBm25
