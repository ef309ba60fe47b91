"""What a model is told of contents that belong to no task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raylib.models.protocol import Encoder
from raylib.types import EncodeContext, Role

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

_INSTRUCTION = "Given a query, retrieve relevant documents."


def context_of(encoder: Encoder, role: Role | None) -> EncodeContext:
    """The model's own prompt for this role, or the user's; without a role what it puts before any content. A model that
    MTEB runs must be given a task: a retrieval task of no particular data."""
    from raylib.models.bridge import BridgeEncoder

    if not isinstance(encoder, BridgeEncoder):
        return encoder.context(None, role)
    return encoder.context(_any_retrieval(), role, split="test", subset="default")


def _any_retrieval() -> TaskMetadata:
    from mteb.abstasks.task_metadata import TaskMetadata

    return TaskMetadata(
        name="RaylibEncode",
        description="Contents of one's own, encoded by `raylib encode`.",
        reference=None,
        dataset={"path": "raylib/encode", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
        prompt={"query": _INSTRUCTION},  # pyright: ignore[reportArgumentType]
    )
