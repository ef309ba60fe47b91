"""`raylib mine negatives`: training pairs → triples, each with the hard negatives that a teacher finds."""

from __future__ import annotations

from typing import Any

import numpy as np

from raylib.examples.examples import Examples
from raylib.examples.writers import Mined, write_mined
from raylib.mine.config import NegativesConfig
from raylib.mine.job import MineJob, facts_for_summary
from raylib.mine.negatives import HardNegatives, mine_negatives
from raylib.mine.report import print_negatives
from raylib.mine.teacher import Teacher
from raylib.terminal import console


class NegativesJob(MineJob[NegativesConfig]):
    kind = "raylib mine negatives"

    def check(self, examples: Examples) -> None:
        """Nothing but the settings themselves decides: see `NegativesConfig`."""

    def needed(self, examples: Examples) -> Examples:
        """All: given negatives are candidates as well."""
        return examples

    def deciding(self, examples: Examples) -> dict[str, Any]:
        return self.config.deciding()

    def mine(self, examples: Examples, teacher: Teacher | None) -> tuple[dict[str, str], dict[str, Any]]:
        assert teacher is not None, "negatives are never mined without one"
        queries, documents = content_labels(examples)
        self.reporter.say(f"mining {len(examples)} queries among {len(examples.documents)} documents")
        with self._timed("mine") as stage, teacher.compared() as comparison:
            stage.held = self.place.held()
            found = mine_negatives(
                comparison,
                examples.positive,
                query_contents=queries[examples.query],
                document_contents=documents,
                **self.config.thresholds(),
            )
        with self._timed("write"):
            write_mined(self.config.output_file, examples, as_triples(found))
        if not self.config.quiet and self.config.log_format == "text":
            print_negatives(found, console())
        self.reporter.say(f"wrote {self.config.output_file}: {len(examples)} triples")
        told = {
            "negatives": int((found.indices >= 0).sum()),
            "removed": found.removed,
            "short": found.short,
            "same_documents": found.duplicates,
            "search": facts_for_summary(found.search),
        }
        return {"triples": self.config.output_file}, told


def content_labels(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """(of each distinct query, of each distinct document): int64, equal where two contents look the same to a model,
    whichever side they are on."""
    queries, documents = examples.queries.digests(), examples.documents.digests()
    numbers: dict[bytes, int] = {}
    labels = [numbers.setdefault(digest, len(numbers)) for digest in (*queries, *documents)]
    return np.array(labels[: len(queries)], dtype=np.int64), np.array(labels[len(queries) :], dtype=np.int64)


def as_triples(found: HardNegatives) -> Mined:
    """What was mined, example after example, without the empty places."""
    kept = found.indices >= 0
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return Mined(offsets, found.indices[kept], found.scores[kept], found.ranks[kept])
