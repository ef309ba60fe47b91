"""StdlibCards as MTEB tasks: a question against the images of cards, or their texts.

This module imports mteb at its top, because its classes derive from mteb's: import it inside functions only.
"""

from __future__ import annotations

from mteb.abstasks.task_metadata import TaskMetadata
from mteb.benchmarks.benchmark import Benchmark

from raylib.tasks import stdlib_cards
from raylib.tasks.stdlib_tasks import BuiltInTask, built_in_metadata

_ABOUT = (
    "Find the card that answers a question. A card shows the name of a function or class of the Python standard "
    "library and a few words of its summary, in large type: small enough a world for a small model to learn."
)
_PROMPT = "Find the card that answers the question."


def _metadata(name: str, category: str, what: str) -> TaskMetadata:
    return built_in_metadata(name, category, f"{_ABOUT} {what}", _PROMPT, stdlib_cards.revision(), "StdlibCards")


class _StdlibCards(BuiltInTask):
    abstask_prompt = _PROMPT

    def folder(self, split: str) -> str:
        return stdlib_cards.ensure_built("train" if split == "train" else "test")


class StdlibCardsT2I(_StdlibCards):
    """Question → image of a card."""

    corpus_columns = ("image",)
    metadata = _metadata("StdlibCardsT2I", "t2i", "The cards are images.")


class StdlibCardsT2T(_StdlibCards):
    """Question → text of a card."""

    corpus_columns = ("text",)
    metadata = _metadata("StdlibCardsT2T", "t2t", "The cards are plain text.")


TASKS: tuple[type[BuiltInTask], ...] = (StdlibCardsT2I, StdlibCardsT2T)


def benchmark() -> Benchmark:
    """The benchmark `StdlibCards`, with fresh tasks."""
    return Benchmark(
        name="StdlibCards",
        tasks=[task() for task in TASKS],
        description=f"{_ABOUT} Built on first use from the Python that runs it.",
    )
