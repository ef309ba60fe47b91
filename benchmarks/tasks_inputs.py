"""What `benchmarks/tasks.py` measures on: real MTEB task classes over pages and texts that are made up here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib.tasks.synthetic import VOCABULARY, Layout, draw_pages, write

TOPICS = 20
PAGE_PIXELS = (827, 1170)
"""A4 at 100 dpi, stored as PNG."""

ONE_LANGUAGE = (
    "VidoreArxivQARetrieval",
    "VidoreDocVQARetrieval",
    "VidoreInfoVQARetrieval",
    "VidoreTatdqaRetrieval",
    "VidoreShiftProjectRetrieval",
)
SHARED: dict[str, Layout] = {"Vidore2ESGReportsRetrieval": "v2", "Vidore3FinanceEnRetrieval": "v3"}
"""Four and six languages over the same pages."""

OTHERS = (
    "CIFAR10",
    "SprintDuplicateQuestions",
    "MalteseNewsClassification",
    "TwentyNewsgroupsClustering.v2",
    "STSBenchmark",
)
"""Classification of images, pairs, classification with several labels, clustering, similarity."""


@dataclass(frozen=True)
class Case:
    """Ten tasks. pages: of each retrieval task. rows: of each other task."""

    name: str
    retrieval: dict[str, Layout]
    pages: int
    rows: int

    @property
    def tasks(self) -> list[str]:
        return [*self.retrieval, *OTHERS]


def cases(pages: int, rows: int) -> list[Case]:
    alone: dict[str, Layout] = dict.fromkeys(ONE_LANGUAGE, "v1")
    mixed: dict[str, Layout] = {**dict.fromkeys(ONE_LANGUAGE[:3], "v1"), **SHARED}
    return [
        Case("5 retrieval tasks, nothing shared", alone, pages, rows),
        Case("5 retrieval tasks, two of them in 4 and 6 languages", mixed, pages, rows),
    ]


def write_case(case: Case, root: str, size: tuple[int, int] = PAGE_PIXELS) -> None:
    """The data of a case under root/pages and root/rows; what is there already stays."""
    for number, (name, layout) in enumerate(case.retrieval.items()):
        folder = os.path.join(root, "pages", _task(name).metadata.dataset["path"])
        if not os.path.isdir(folder):
            write(layout, folder, pages=case.pages, queries=case.pages // 3, size=size, seed=number)
    for number, name in enumerate(OTHERS):
        folder = os.path.join(root, "rows", name)
        if not os.path.isdir(folder):
            _rows(name, case.rows, np.random.default_rng(number)).save_to_disk(folder)


def load_tasks(case: Case, root: str) -> list[Any]:
    """The tasks, with their data redirected (retrieval) or in place (others): on disk, read as it is needed."""
    import datasets

    from raylib.tasks.local_data import redirect

    tasks = [redirect(_task(name), os.path.join(root, "pages")) for name in case.retrieval]
    for name in OTHERS:
        task = _task(name)
        task.dataset = datasets.load_from_disk(os.path.join(root, "rows", name))
        task.data_loaded = True
        tasks.append(task)
    return tasks


def _task(name: str) -> Any:
    import mteb

    return mteb.get_task(name)


def _rows(name: str, n: int, rng: np.random.Generator) -> Any:
    """The columns and splits that the task reads: texts of words of a topic, pages with a label."""
    import datasets

    topics = [int(topic) for topic in rng.permutation(np.arange(n) % TOPICS)]
    texts = [_text(rng, topic) for topic in topics]
    if name == "CIFAR10":
        labels = [topic % 5 for topic in topics]
        pages = [page.png for page in draw_pages(n, (96, 128), seed=7)]
        images = datasets.Dataset.from_dict({"img": pages, "label": labels}).cast_column("img", datasets.Image())
        return images.train_test_split(0.5, seed=1)
    if name == "MalteseNewsClassification":
        several = [[topic % 5, 5 + topic % 3] for topic in topics]
        return datasets.Dataset.from_dict({"text": texts, "label": several}).train_test_split(0.5, seed=1)
    grades = [float(grade) for grade in rng.uniform(0, 5, n)]
    others = [_text(rng, topic if grade > 2.5 else topic + 1) for topic, grade in zip(topics, grades, strict=True)]
    columns: dict[str, dict[str, list[Any]]] = {
        "TwentyNewsgroupsClustering.v2": {"sentences": texts, "labels": topics},
        "STSBenchmark": {"sentence1": texts, "sentence2": others, "score": grades},
        "SprintDuplicateQuestions": {
            "sentence1": texts,
            "sentence2": others,
            "labels": [int(grade > 2.5) for grade in grades],
        },
    }
    made: Any = {"test": datasets.Dataset.from_dict(columns[name])}
    return datasets.DatasetDict(made)


def _text(rng: np.random.Generator, topic: int) -> str:
    """Eight to forty words, half of them of the topic's own fifty."""
    n = int(rng.integers(8, 40))
    own = rng.integers(0, 50, n) + 50 * (topic % TOPICS)
    anywhere = rng.integers(0, len(VOCABULARY), n)
    return " ".join(VOCABULARY[a if mine else b] for a, b, mine in zip(own, anywhere, rng.random(n) < 0.5, strict=True))
