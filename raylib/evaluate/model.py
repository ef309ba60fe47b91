"""The MTEB model over the store: MTEB's own tasks and metrics run unchanged, and every vector comes from the store.

`StoreModel` has MTEB's `encode` and its `index`/`search`. Whatever is asked and not stored yet is handed to an
`EncodeStage`, which runs here or on a cluster: this module does not know which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.search_wrappers import SearchEncoderWrapper
from mteb.types import PromptType

from raylib.errors import BadContent, BadContentsError, UserError
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport
from raylib.evaluate.meta import model_meta
from raylib.evaluate.plan import MicroBatch, Plan
from raylib.evaluate.sources import loader_source, retrieval_source
from raylib.models.protocol import Encoder
from raylib.search.exact import search
from raylib.search.topk import tie_ranks
from raylib.store.embeddings import Shelf
from raylib.types import Embeddings, Role

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.models_protocols import EncoderProtocol
    from torch.utils.data import DataLoader

EncodeStage = Callable[[Encoder, Sequence[MicroBatch], Sequence[Source], Shelf], EncodeReport]
"""Encodes batches and stores them: `encode_locally`, or the cluster's."""

SubsetKeys = dict[tuple[str, str, str, Role], tuple[list[str], list[bytes]]]
"""(task, split, subset, role) → (ids, keys), for what was planned ahead."""


class StoreModel(AbsEncoder):
    """An MTEB model whose vectors live in the embedding store.

    planned: keys that a plan already computed, so that data sets are not read and hashed again.
    allow_bad: score without the contents that cannot be encoded, instead of raising BadContentsError: a document
    without vector is never retrieved, a query without one retrieves nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        shelf: Shelf,
        stage: EncodeStage,
        *,
        batch_size: int = 32,
        planned: SubsetKeys | None = None,
        allow_bad: bool = False,
        experiment: Mapping[str, Any] | None = None,
    ) -> None:
        self.encoder, self.shelf, self.stage = encoder, shelf, stage
        self.batch_size, self.allow_bad = batch_size, allow_bad
        self.mteb_model_meta = model_meta(encoder, experiment)
        self.model = None  # AbsEncoder would ask it for similarities; the metadata's similarity function answers first
        self.report = EncodeReport()
        self.bad: dict[bytes, BadContent] = {}
        self._planned = planned or {}
        self._corpus: tuple[Any, dict[str, Any]] | None = None
        self._last_corpus: tuple[list[bytes], Embeddings] | None = None

    def encode(
        self,
        inputs: DataLoader,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **kwargs: Any,
    ) -> Any:
        """[n, dim] float32 array, or for late interaction a list of [tokens, dim] tensors, in the order of `inputs`.

        Raises BadContentsError for contents that cannot be encoded: there is no vector to stand in for them.
        """
        role: Role | None = prompt_type.value if prompt_type is not None else None
        source = loader_source(inputs, name=f"{task_metadata.name}/{hf_split}/{hf_subset} {role or 'inputs'}")
        plan = Plan(self.encoder)
        keys = plan.add(source, self.encoder.context(task_metadata, role, split=hf_split, subset=hf_subset))
        self.encode_missing(plan)
        bad = [self.bad[key] for key in keys if key in self.bad]
        if bad:
            raise BadContentsError(bad)
        embeddings = self.shelf.get(keys).astype(np.float32)
        if self.encoder.similarity != "maxsim":
            return np.array(embeddings.dense())
        import torch

        return [torch.from_numpy(np.array(tokens)) for tokens in embeddings]

    def index(self, corpus: Dataset, **kwargs: Any) -> None:
        """Remember the corpus; it is encoded, where it is not stored yet, together with the queries in `search`."""
        self._corpus = (corpus, kwargs)

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any = None,
        top_ranked: Any = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """The `top_k` best documents of each query, best first; ties by document id, descending.

        Given candidates (`top_ranked`), MTEB's own reranking runs over vectors from the store.
        """
        if self._corpus is None:
            raise UserError("search was called before index; MTEB calls index first")
        corpus, index_kwargs = self._corpus
        encode_kwargs = encode_kwargs or {}
        if top_ranked is not None:
            wrapper = SearchEncoderWrapper(cast("EncoderProtocol", self))
            wrapper.index(corpus, **index_kwargs)
            return wrapper.search(
                queries,
                task_metadata=task_metadata,
                hf_split=hf_split,
                hf_subset=hf_subset,
                top_k=top_k,
                encode_kwargs=encode_kwargs,
                top_ranked=top_ranked,
                num_proc=num_proc,
            )
        plan = Plan(self.encoder)
        where = (task_metadata, hf_split, hf_subset)
        query_side = self._side(plan, queries, "query", *where)
        document_side = self._side(plan, corpus, "document", *where)
        self.encode_missing(plan)
        found = self._rank(*self._usable(query_side), *self._usable(document_side), top_k)
        # A query without vector stays in the results: MTEB takes the mean over those that are there.
        return {query_id: found.get(query_id, {}) for query_id in query_side[0]}

    def encode_missing(self, plan: Plan) -> None:
        """Encode what of `plan` is neither stored nor known to be bad, and remember what turned out bad."""
        self.shelf.refresh()
        keys = plan.keys()
        stored = {key for key, there in zip(keys, self.shelf.contains(keys), strict=True) if there} if keys else set()
        batches = plan.batches(self.batch_size, stored | self.bad.keys())
        if batches:
            self.shelf.describe(self.encoder.identity)
            report = self.stage(self.encoder, batches, plan.sources, self.shelf)
            self.report.add(report)
            self.bad.update({bytes.fromhex(content.key): content for content in report.bad})
            self.shelf.refresh()

    def _usable(self, side: tuple[list[str], list[bytes]]) -> tuple[list[str], list[bytes]]:
        """Ids and keys of what has a vector. Raises BadContentsError where one is missing and that is not allowed."""
        ids, keys = side
        bad = [self.bad[key] for key in keys if key in self.bad]
        if bad and not self.allow_bad:
            raise BadContentsError(bad)
        kept = [i for i, key in enumerate(keys) if key not in self.bad]
        return [ids[i] for i in kept], [keys[i] for i in kept]

    def _rank(
        self,
        query_ids: list[str],
        query_keys: list[bytes],
        document_ids: list[str],
        document_keys: list[bytes],
        top_k: int,
    ) -> dict[str, dict[str, float]]:
        if not query_ids or not document_ids:
            return {}
        # Distinct contents in the order of their keys: the same blocks, hence the same bits, in every run.
        distinct_q, distinct_d = sorted(set(query_keys)), sorted(set(document_keys))
        at = {key: i for i, key in enumerate(distinct_d)}
        best, scores = search(
            self.shelf.get(distinct_q),
            self._corpus_vectors(distinct_d),
            self.encoder.similarity,
            min(top_k, len(document_ids)),
            tie_ranks(document_ids),
            np.array([at[key] for key in document_keys]),
        )
        row = {key: i for i, key in enumerate(distinct_q)}
        results = {}
        for query_id, key in zip(query_ids, query_keys, strict=True):
            i = row[key]
            results[query_id] = {document_ids[d]: float(s) for d, s in zip(best[i], scores[i], strict=True)}
        return results

    def _corpus_vectors(self, keys: list[bytes]) -> Embeddings:
        """The vectors of `keys`; the last corpus stays in memory, because the languages of a task share one."""
        if self._last_corpus is None or self._last_corpus[0] != keys:
            self._last_corpus = None  # let go of the old one before the new one is read
            self._last_corpus = (keys, self.shelf.get(keys))
        return self._last_corpus[1]

    def _side(
        self, plan: Plan, data: Dataset, role: Role, metadata: TaskMetadata, split: str, subset: str
    ) -> tuple[list[str], list[bytes]]:
        """Ids and keys of one side of a subset: as planned ahead, or added to `plan` now."""
        planned = self._planned.get((metadata.name, split, subset, role))
        if planned is not None and planned[0] == [str(i) for i in data["id"]]:
            return planned
        source = retrieval_source(data, metadata, role, name=f"{metadata.name}/{split}/{subset} {role}")
        return source.ids, plan.add(source, self.encoder.context(metadata, role, split=split, subset=subset))
