"""The MTEB model over the store: MTEB's own tasks and metrics run unchanged, and every vector comes from the store.

`StoreModel` has MTEB's `encode` and its `index`/`search`. Whatever is asked and not stored yet is handed to an
`EncodeStage`, which runs here or on a cluster: this module does not know which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.types import PromptType

from raylib.errors import BadContent, BadContentsError, UserError
from raylib.evaluate.batching import DEFAULT_CONTENTS, Limits, MicroBatch
from raylib.evaluate.contents import Source
from raylib.evaluate.encode import EncodeReport
from raylib.evaluate.meta import model_meta
from raylib.evaluate.plan import Plan
from raylib.evaluate.rerank import rerank, rerank_exactly
from raylib.evaluate.search import CorpusCache, SearchRequest, SearchStage, search_locally
from raylib.evaluate.sources import loader_source, retrieval_source
from raylib.models.protocol import Encoder
from raylib.search.options import SearchOptions
from raylib.search.topk import tie_ranks
from raylib.store.embeddings import Shelf
from raylib.types import Role, compares_vectors

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from torch.utils.data import DataLoader

EncodeStage = Callable[[Encoder, Sequence[MicroBatch], Sequence[Source], Shelf], EncodeReport]
"""Encodes batches and stores them: `encode_locally`, or the cluster's."""

SubsetKeys = dict[tuple[str, str, str, Role], tuple[list[str], list[bytes]]]
"""(task, split, subset, role) → (ids, keys), for what was planned ahead."""

Keys = tuple[list[str], list[bytes]]
"""The ids of one side of a subset, and the store's key of each."""

Results = dict[str, dict[str, float]]
"""Query id → document id → score, as MTEB has it."""

RankingHook = Callable[["TaskMetadata", str, str, Results, Keys, Keys], None]
"""Told of every ranking: task, split, subset, results, the queries' side, the documents' side."""


class StoreModel(AbsEncoder):
    """An MTEB model whose vectors live in the embedding store.

    limits: of one forward, or how many contents it holds at most.
    planned: keys that a plan already computed, so that data sets are not read and hashed again.
    allow_bad: score without the contents that cannot be encoded, instead of raising BadContentsError: a document
    without vector is never retrieved, a query without one retrieves nothing.
    search_stage, search_options: where and how vectors are searched. on_ranking: called after every search.
    quality: (task, split, subset) → what options that are not exact cost, see `Found`.

    Raises UserError for search options that the encoder's similarity does not have.
    """

    def __init__(
        self,
        encoder: Encoder,
        shelf: Shelf,
        stage: EncodeStage,
        *,
        limits: Limits | int = DEFAULT_CONTENTS,
        planned: SubsetKeys | None = None,
        allow_bad: bool = False,
        experiment: Mapping[str, Any] | None = None,
        search_stage: SearchStage = search_locally,
        search_options: SearchOptions = SearchOptions(),  # noqa: B008, frozen
        on_ranking: RankingHook | None = None,
    ) -> None:
        search_options.check(encoder.similarity)
        self.encoder, self.shelf, self.stage = encoder, shelf, stage
        self.limits, self.allow_bad = limits, allow_bad
        self.mteb_model_meta = model_meta(encoder, experiment)
        self.model = None  # AbsEncoder would ask it for similarities; the metadata's similarity function answers first
        self.report = EncodeReport()
        self.bad: dict[bytes, BadContent] = {}
        self.search_stage, self.search_options, self.on_ranking = search_stage, search_options, on_ranking
        self.quality: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._planned = planned or {}
        self._corpus: Dataset | None = None
        self._cache = CorpusCache()

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

        Raises BadContentsError for contents that cannot be encoded: there is no vector to stand in for them; UserError
        for an encoder of token weights, which MTEB cannot compare.
        """
        if not compares_vectors(self.encoder.similarity):
            raise UserError(
                f"{self.encoder.spec.name} gives token weights (--mode {self.encoder.spec.mode}), which only rank "
                f"documents; {task_metadata.name} needs vectors. Use --mode dense."
            )
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
        del kwargs
        self._corpus = corpus

    def search(
        self,
        queries: Dataset,
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        top_ranked: Any = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """The `top_k` best documents of each query, best first; ties by document id, descending.

        Given candidates (`top_ranked`), these are scored as MTEB's reranking does it, over vectors from the store;
        token weights as in a search.
        """
        if self._corpus is None:
            raise UserError("search was called before index; MTEB calls index first")
        corpus = self._corpus
        where = (task_metadata, hf_split, hf_subset)
        _check_ids(corpus, f"corpus of {task_metadata.name}/{hf_split}/{hf_subset}")
        _check_ids(queries, f"queries of {task_metadata.name}/{hf_split}/{hf_subset}")
        plan = Plan(self.encoder)
        query_side = self._side(plan, queries, "query", *where)
        document_side = self._side(plan, corpus, "document", *where)
        self.encode_missing(plan)
        if top_ranked is not None:
            found = self._rerank(query_side, document_side, top_ranked, top_k)
        else:
            found = self._rank((task_metadata.name, hf_split, hf_subset), query_side, document_side, top_k)
        # A query without vector stays in the results: MTEB takes the mean over those that are there.
        results = {query_id: found.get(query_id, {}) for query_id in query_side[0]}
        if self.on_ranking is not None:
            self.on_ranking(task_metadata, hf_split, hf_subset, results, query_side, document_side)
        return results

    def encode_missing(self, plan: Plan) -> None:
        """Encode what of `plan` is neither stored nor known to be bad, and remember what turned out bad."""
        self.shelf.refresh()
        keys = plan.keys()
        batches = plan.batches(self.limits, self.shelf.stored(keys) | self.bad.keys())
        if batches:
            self.shelf.describe(self.encoder.identity)
            report = self.stage(self.encoder, batches, plan.sources, self.shelf)
            self.report.add(report)
            self.bad.update({bytes.fromhex(content.key): content for content in report.bad})
            self.shelf.refresh()

    def _usable(self, side: Keys) -> Keys:
        """Ids and keys of what has a vector. Raises BadContentsError where one is missing and that is not allowed."""
        ids, keys = side
        bad = [self.bad[key] for key in keys if key in self.bad]
        if bad and not self.allow_bad:
            raise BadContentsError(bad)
        kept = [i for i, key in enumerate(keys) if key not in self.bad]
        return [ids[i] for i in kept], [keys[i] for i in kept]

    def _rank(self, where: tuple[str, str, str], query_side: Keys, document_side: Keys, top_k: int) -> Results:
        query_ids, query_keys = self._usable(query_side)
        document_ids, document_keys = self._usable(document_side)
        if not query_ids or not document_ids:
            return {}
        query_at = {key: i for i, key in enumerate(dict.fromkeys(query_keys))}
        document_at = {key: i for i, key in enumerate(dict.fromkeys(document_keys))}
        first_id = dict(zip(reversed(query_keys), reversed(query_ids), strict=True))
        request = SearchRequest(
            shelf=self.shelf,
            query_keys=list(query_at),
            document_keys=list(document_at),
            owners=np.array([document_at[key] for key in document_keys]),
            ranks=tie_ranks(document_ids),
            similarity=self.encoder.similarity,
            k=min(top_k, len(document_ids)),
            options=self.search_options,
            query_ids=[first_id[key] for key in query_at],
            document_ids=document_ids,
            cache=self._cache,
        )
        found = self.search_stage(request)
        if found.quality:
            self.quality[where] = found.quality
        rankings = [
            {document_ids[d]: s for d, s in zip(documents, scores, strict=True) if d >= 0}
            for documents, scores in zip(found.documents_QK.tolist(), found.scores_QK.tolist(), strict=True)
        ]
        return {query_id: dict(rankings[query_at[key]]) for query_id, key in zip(query_ids, query_keys, strict=True)}

    def _rerank(self, query_side: Keys, document_side: Keys, candidates: Any, top_k: int) -> Results:
        sides = self._usable(query_side), self._usable(document_side)
        queries, documents = ((ids, self.shelf.get(keys).astype(np.float32)) for ids, keys in sides)
        if not compares_vectors(self.encoder.similarity):
            return rerank_exactly(queries, documents, candidates, top_k, self.encoder.similarity)
        late = self.encoder.similarity == "maxsim"
        return rerank(queries, documents, candidates, top_k, self.similarity, late=late)

    def _side(self, plan: Plan, data: Dataset, role: Role, metadata: TaskMetadata, split: str, subset: str) -> Keys:
        """Ids and keys of one side of a subset: as planned ahead, or added to `plan` now."""
        planned = self._planned.get((metadata.name, split, subset, role))
        if planned is not None and planned[0] == [str(i) for i in data["id"]]:
            return planned
        source = retrieval_source(data, metadata, role, name=f"{metadata.name}/{split}/{subset} {role}")
        return source.ids, plan.add(source, self.encoder.context(metadata, role, split=split, subset=subset))


def _check_ids(data: Dataset, what: str) -> None:
    """Raises UserError for a side without rows, and for ids that name two rows: MTEB would keep one score of them."""
    ids = [str(i) for i in data["id"]]
    if not ids:
        raise UserError(f"no rows in the {what}; expected at least one")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = sorted({i for i in ids if i in seen or seen.add(i)})
        shown = ", ".join(twice[:5]) + (f" and {len(twice) - 5} more" if len(twice) > 5 else "")
        raise UserError(f"{len(ids)} rows but only {len(set(ids))} ids in the {what}: {shown} given twice or more")
