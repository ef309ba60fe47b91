"""MTEB's own mock tasks, grown to 200 rows: two rows, as they come, cannot show that two shards were swapped.

Every content is four or more "marks" (whole numbers): a text shows them as words, an image as its noisy quarters.
Contents that belong together (one label, a query and its page, a sentence and its translation) share marks, the more
the closer they are, so an encoder that looks at words and quarters scores between chance and perfect everywhere.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.abstask import AbsTask

ROWS = 200
LABELS = 5

TEXT_MOCKS = (
    "LegacyMockClusteringFastTask",
    "MockBitextMiningTask",
    "MockClassificationTask",
    "MockClusteringTask",
    "MockInstructionReranking",
    "MockInstructionRetrieval",
    "MockMultilabelClassification",
    "MockMultilingualBitextMiningTask",
    "MockMultilingualClassificationTask",
    "MockMultilingualClusteringFastTask",
    "MockMultilingualClusteringTask",
    "MockMultilingualInstructionReranking",
    "MockMultilingualInstructionRetrieval",
    "MockMultilingualMultilabelClassification",
    "MockMultilingualPairClassificationTask",
    "MockMultilingualParallelBitextMiningTask",
    "MockMultilingualRerankingTask",
    "MockMultilingualRetrievalTask",
    "MockMultilingualSTSTask",
    "MockMultilingualSummarizationTask",
    "MockPairClassificationTask",
    "MockRegressionTask",
    "MockRerankingTask",
    "MockRetrievalDialogTask",
    "MockRetrievalTask",
    "MockSTSTask",
    "MockSummarizationTask",
    "MockTextZeroShotClassificationTask",
)
IMAGE_MOCKS = (
    "MockAny2AnyRetrievalI2TTask",
    "MockAny2AnyRetrievalT2ITask",
    "MockImageClassificationTask",
    "MockImageClusteringFastTask",
    "MockImageClusteringTask",
    "MockImageMultilabelClassificationTask",
    "MockImageRegressionTask",
    "MockImageTextPairClassificationTask",
    "MockMultiChoiceTask",
    "MockMultilingualImageClassificationTask",
    "MockMultilingualImageTextPairClassificationTask",
    "MockMultilingualMultiChoiceTask",
    "MockPairImageClassificationTask",
    "MockVisualSTSTask",
    "MockZeroShotClassificationTask",
)

Marks = list[int]
Show = Callable[[Marks], Any]

LATE_MOCKS = (
    "MockAny2AnyRetrievalI2TTask",
    "MockAny2AnyRetrievalT2ITask",
    "MockInstructionReranking",
    "MockInstructionRetrieval",
    "MockMultiChoiceTask",
    "MockMultilingualInstructionReranking",
    "MockMultilingualInstructionRetrieval",
    "MockMultilingualMultiChoiceTask",
    "MockMultilingualRerankingTask",
    "MockMultilingualRetrievalTask",
    "MockRerankingTask",
    "MockRetrievalDialogTask",
    "MockRetrievalTask",
    "MockTextZeroShotClassificationTask",
)
"""What MTEB itself can do with a list of token matrices: retrieval, reranking, zero-shot classification of texts."""


def grown_task(name: str) -> AbsTask:
    """A fresh task of `mteb.mocks` with its data in place, `ROWS` rows a subset and split.

    Fresh, because some task types draw from a random state that moves on from run to run.
    """
    import mteb.mocks

    task: Any = getattr(mteb.mocks, name)()
    task.load_data()
    kind = next(grow for base, grow in _growers().items() if isinstance(task, base))
    for where, splits, split in _places(task):
        splits[split] = kind(task, splits[split], np.random.default_rng(zlib.crc32(where.encode())))
    return task


def _growers() -> dict[type, Callable[[Any, Any, np.random.Generator], Any]]:
    """Task class → how its data of one subset and split grows; the first class that fits counts."""
    from mteb import abstasks
    from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
    from mteb.abstasks.image.image_text_pair_classification import AbsTaskImageTextPairClassification
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.zeroshot_classification import AbsTaskZeroShotClassification

    return {
        AbsTaskRetrieval: _retrieval,
        abstasks.AbsTaskMultilabelClassification: _multilabel,
        abstasks.AbsTaskRegression: _regression,
        abstasks.AbsTaskClassification: _classification,
        AbsTaskClusteringLegacy: _clustering,
        abstasks.AbsTaskClustering: _clustering,
        abstasks.AbsTaskPairClassification: _pairs,
        abstasks.AbsTaskSTS: _graded_pairs,
        abstasks.AbsTaskBitextMining: _translations,
        abstasks.AbsTaskSummarization: _summaries,
        AbsTaskZeroShotClassification: _zero_shot,
        AbsTaskImageTextPairClassification: _captions,
    }


def _places(task: Any) -> Iterator[tuple[str, Any, str]]:
    """(name of the place, the dict that holds its data, the key there) of every subset and split."""
    from datasets import Dataset

    for outer, inner in task.dataset.items():
        if isinstance(inner, Dataset):
            yield f"{task.metadata.name}/{outer}", task.dataset, outer
        else:
            for split in inner:
                yield f"{task.metadata.name}/{outer}/{split}", inner, split


def text_of(marks: Marks) -> str:
    return " ".join(f"word{mark}" for mark in marks)


def image_of(marks: Marks) -> Any:
    """24×24 RGBA, as MTEB's mock images are; quarter k is noise that follows from mark k, the rest are not shown."""
    from PIL import Image

    pixels = np.full((24, 24, 4), 255, dtype=np.uint8)
    for k, mark in enumerate(marks[:4]):
        y, x = 12 * (k // 2), 12 * (k % 2)
        pixels[y : y + 12, x : x + 12, :3] = np.random.default_rng(mark).integers(0, 255, (12, 12, 3))
    return Image.fromarray(pixels, "RGBA")


def _marks(rng: np.random.Generator, unique: int, shared: Iterable[int] = ()) -> Marks:
    """`shared`, one mark of this content's own, and common ones: 4 to 9 in all, so that texts differ in length."""
    marks = [*shared, 100_000 + unique]
    n = max(4 - len(marks), int(rng.integers(0, 6)))
    return marks + [int(mark) for mark in rng.integers(1_000, 1_020, n)]


def _topic(rng: np.random.Generator, topic: int) -> list[int]:
    """Two of the marks of a topic, one of which is now and then another topic's."""
    second = topic if rng.random() < 0.7 else int(rng.integers(0, LABELS))
    return [10 * topic + int(rng.integers(0, 6)), 10 * second + int(rng.integers(0, 6))]


def _show(task: Any) -> Show:
    """How contents of a task with one input column look."""
    return image_of if task.metadata.modalities[0] == "image" else text_of


def _labels(rng: np.random.Generator, n: int) -> list[int]:
    """As many of each label, in no order."""
    return [int(label) for label in rng.permutation(np.arange(n) % LABELS)]


def _dataset(columns: dict[str, list]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict(columns)


def _classification(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    del data
    labels = _labels(rng, ROWS)
    contents = [_show(task)(_marks(rng, i, _topic(rng, label))) for i, label in enumerate(labels)]
    return _dataset({task.input_column_name: contents, task.label_column_name: labels})


def _multilabel(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """Two of five labels each, every pair equally often."""
    kind = type(data[0][task.label_column_name][0])
    pairs = [(a, b) for a in range(LABELS) for b in range(a)]
    chosen = [pairs[i] for i in rng.permutation(np.arange(ROWS) % len(pairs))]
    contents = [_show(task)(_marks(rng, i, [*_topic(rng, a), _topic(rng, b)[0]])) for i, (a, b) in enumerate(chosen)]
    labels = [[kind(a), kind(b)] for a, b in chosen]
    return _dataset({task.input_column_name: contents, task.label_column_name: labels})


def _regression(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    del data
    topics = _labels(rng, ROWS)
    contents = [_show(task)(_marks(rng, i, _topic(rng, topic))) for i, topic in enumerate(topics)]
    values = [topic + float(rng.normal(0, 0.5)) for topic in topics]
    return _dataset({task.input_column_name: contents, task.label_column_name: values})


def _clustering(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """One row per content, or one row that lists them all, as the legacy text tasks have it."""
    if getattr(task, "max_document_to_embed", None) is not None:
        task.max_document_to_embed = ROWS
        task.max_documents_per_cluster = ROWS // 2
    grown = _classification(task, data, rng)
    if not isinstance(data[0][task.label_column_name], list):
        return grown
    half = ROWS // 2
    return _dataset({name: [grown[name][:half], grown[name][half:]] for name in grown.column_names})


def _pair_columns(task: Any, data: Dataset) -> tuple[str, str]:
    scored = {"labels", "label", "score"}
    first, second = (name for name in data.column_names if name not in scored)
    return first, second


def _pairs(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """Every other pair shares a topic, and then more often a mark."""
    first, second = _pair_columns(task, data)
    labels = [label % 2 for label in _labels(rng, ROWS)]
    columns: dict[str, list] = {first: [], second: [], task.label_column_name: labels}
    for i, label in enumerate(labels):
        topic = int(rng.integers(0, LABELS))
        other = topic if label else (topic + int(rng.integers(1, LABELS))) % LABELS
        columns[first].append(_show(task)(_marks(rng, i, _topic(rng, topic))))
        columns[second].append(_show(task)(_marks(rng, ROWS + i, _topic(rng, other))))
    return _dataset(columns)


def _graded_pairs(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """The grade is the share of common marks, with a little noise."""
    first, second = _pair_columns(task, data)
    columns: dict[str, list] = {first: [], second: [], "score": []}
    for i, grade in enumerate(rng.permutation(np.arange(ROWS) % 4)):
        shared = [int(mark) for mark in rng.integers(0, 500, grade)]
        columns[first].append(_show(task)(_marks(rng, i, shared)))
        columns[second].append(_show(task)(_marks(rng, ROWS + i, shared)))
        columns["score"].append(float(np.clip(grade / 3 + rng.normal(0, 0.1), 0, 1)))
    return _dataset(columns)


def _translations(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """A sentence and its translation share one mark, which a few other sentences have too."""
    first, second = data.column_names
    columns: dict[str, list] = {first: [], second: []}
    for i in range(ROWS):
        shared = [int(rng.integers(0, 150))]
        columns[first].append(text_of(_marks(rng, i, shared)))
        columns[second].append(text_of(_marks(rng, ROWS + i, shared)))
    return _dataset(columns)


def _summaries(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """Two summaries by people and four by machines, which keep the fewer marks of the text the worse they are."""
    columns: dict[str, list] = {name: [] for name in data.column_names}
    for i in range(ROWS):
        text = _marks(rng, 10 * i, [int(mark) for mark in rng.integers(0, 500, 3)])
        grades = [int(grade) for grade in rng.permutation(4)]
        columns["text"].append(text_of(text))
        columns["human_summaries"].append([text_of(_marks(rng, 10 * i + 1 + k, text[k : k + 3])) for k in range(2)])
        columns["machine_summaries"].append([text_of(_marks(rng, 10 * i + 4 + g, text[:g])) for g in grades])
        columns["relevance"].append(grades)
    return _dataset(columns)


def _zero_shot(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """Five candidate labels instead of two: the topics' own words."""
    candidates = [" ".join(f"word{mark}" for mark in range(10 * topic, 10 * topic + 6)) for topic in range(LABELS)]
    task.get_candidate_labels = lambda: candidates
    by_name = isinstance(data[0][task.label_column_name], str)
    grown = _classification(task, data, rng)
    labels = [candidates[label] if by_name else label for label in grown[task.label_column_name]]
    return _dataset({task.input_column_name: grown[task.input_column_name], task.label_column_name: labels})


def _captions(task: Any, data: Dataset, rng: np.random.Generator) -> Dataset:
    """Two images and two captions a row: of one each, as the mock has them, every encoder finds the right one."""
    del data
    task.images_column_names, task.texts_column_names = ["image_0", "image_1"], ["caption_0", "caption_1"]
    marks = [_marks(rng, i) for i in range(2 * ROWS)]
    images, captions = [image_of(m) for m in marks], [text_of(m) for m in marks]
    return _dataset(
        {
            "image_0": images[:ROWS],
            "image_1": images[ROWS:],
            "caption_0": captions[:ROWS],
            "caption_1": captions[ROWS:],
        }
    )


def _retrieval(task: Any, data: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Queries and documents in no order; each query has a document that answers it, and one that half does."""
    documents = [_marks(rng, i, [int(mark) for mark in rng.integers(0, 60, 2)]) for i in range(ROWS)]
    homes = [int(home) for home in rng.permutation(ROWS)]
    queries = [_marks(rng, ROWS + i, [documents[home][0]]) for i, home in enumerate(homes)]
    query_ids = [f"q{i}" for i in rng.permutation(ROWS)]
    document_ids = [f"d{i}" for i in rng.permutation(ROWS)]
    grown: dict[str, Any] = {
        "queries": _rows(data["queries"], query_ids, queries, rng),
        "corpus": _rows(data["corpus"], document_ids, documents, rng),
        "relevant_docs": {
            query: {document_ids[home]: 2, document_ids[(home + 1) % ROWS]: 1, document_ids[(home + 2) % ROWS]: 0}
            for query, home in zip(query_ids, homes, strict=True)
        },
        "top_ranked": None,
    }
    if data["top_ranked"] is not None:
        grown["top_ranked"] = {
            query: [document_ids[d] for d in rng.permutation([(home + step) % ROWS for step in range(0, 60, 4)])]
            for query, home in zip(query_ids, homes, strict=True)
        }
    return grown


def _rows(like: Dataset, ids: list[str], marks: list[Marks], rng: np.random.Generator) -> Dataset:
    """Rows with the columns that the mock has."""
    columns: dict[str, list] = {"id": ids}
    for name in like.column_names:
        if name == "image":
            columns[name] = [image_of(m) for m in marks]
        elif name == "text" and not isinstance(like[0]["text"], str):
            columns[name] = [_dialog(m) for m in marks]
        elif name == "text":
            columns[name] = [text_of(m) for m in marks]
        elif name == "title":
            columns[name] = [text_of([int(rng.integers(0, 60))]) for _ in marks]
        elif name == "instruction":
            columns[name] = [text_of([2_000 + int(rng.integers(0, 3))]) for _ in marks]
    return _dataset(columns)


def _dialog(marks: Marks) -> list[dict[str, str]]:
    """One or three turns."""
    if len(marks) % 2:
        return [{"role": "user", "content": text_of(marks)}]
    turns = [("user", marks[:1]), ("assistant", marks[1:2]), ("user", marks[2:])]
    return [{"role": role, "content": text_of(part)} for role, part in turns]
