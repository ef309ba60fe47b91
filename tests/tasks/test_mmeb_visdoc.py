"""MMEB-V2's visual documents: MTEB's tasks with both gains, and those that MTEB does not have."""

import math
import pickle

import mteb
import pytest

from raylib.tasks import mmeb_visdoc
from raylib.tasks.hub_layout import HubFolder, retrieval_columns
from raylib.tasks.mmeb_table import VISDOC, VISDOC_SUBSETS
from raylib.tasks.selection import list_tasks, select_tasks
from tests.tasks.made_mmeb import png
from tests.tasks.test_mmeb import Letters

SECOND, THIRD = 1 / math.log2(3), 1 / 2


def write_pages(root, hub_path, language=None):
    """To "aa" the red page is nearest, then the green one and the blue one tie; to "ab" blue comes last."""
    out = HubFolder(str(root / hub_path))
    texts, relevant = retrieval_columns([("0", "aa"), ("1", "abb")], [("0", "1", 2), ("0", "0", 1), ("1", "2", 1)])
    columns = {**texts, "query-id": [int(i) for i in texts["query-id"]]}
    out.add("queries", {**columns, "language": [language] * 2} if language else columns)
    out.add("corpus", {"corpus-id": [0, 1, 2], "image": [png(colour) for colour in ("red", "green", "blue")]})
    out.add("qrels", {name: [int(value) for value in values] for name, values in relevant.items()})
    out.finish("# Pages of one colour")


def evaluate(root, subset, languages=None):
    (task,) = select_tasks(tasks=[f"MMEB2_{subset}"], languages=languages, data_root=str(root))
    model = Letters()
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False)
    return result.task_results[0].scores["test"], model


def expected(gain):
    """Query 0: red (grade 1), then blue and green (grade 2), whose tie goes to the greater id. Query 1: green, red,
    blue (grade 1)."""
    first = (gain(1) + gain(2) * THIRD) / (gain(2) + gain(1) * SECOND)
    return (first + THIRD) / 2


CASES = [("ViDoSeek-page", "VLM2Vec/ViDoSeek-page-fixed"), ("ViDoRe_arxivqa", "mteb/arxivqa_test_subsampled_beir")]


@pytest.mark.parametrize(("subset", "hub_path"), CASES)
def test_both_gains_by_hand(tmp_path, subset, hub_path):
    write_pages(tmp_path, hub_path)
    ((scores,), _) = evaluate(tmp_path, subset)
    linear, exponential = expected(lambda grade: grade), expected(lambda grade: 2**grade - 1)
    assert scores["ndcg_linear_at_5"] == scores["main_score"] == pytest.approx(linear, abs=1e-9)
    assert scores["ndcg_exponential_at_5"] == pytest.approx(exponential, abs=1e-9)
    assert scores["ndcg_at_5"] == pytest.approx(linear, abs=1e-4), "MTEB's own gain is linear"
    assert exponential < linear - 0.03


def test_a_multilingual_subset_is_its_languages(tmp_path):
    write_pages(tmp_path, "vidore/esg_reports_v2", "french")
    (scores, _) = evaluate(tmp_path, "ViDoRe_esg_reports_v2_multilingual", ["fra"])
    assert [entry["hf_subset"] for entry in scores] == ["french"] and "ndcg_exponential_at_5" in scores[0]


def test_24_subsets_with_names_and_prompts_of_their_own():
    rows = list_tasks("MMEB-V2(visdoc)")
    assert [row.name for row in rows] == [f"MMEB2_{subset}" for subset in VISDOC_SUBSETS] and len(rows) == 24
    assert {row.main_score for row in rows} == {"ndcg_linear_at_5"}
    for cls in mmeb_visdoc.TASKS:
        assert cls.metadata.prompt["query"] == "Find a document image that matches the given query:"
        assert pickle.loads(pickle.dumps(cls)) is cls
    (mtebs,) = select_tasks(tasks=["VidoreArxivQARetrieval"])
    assert mtebs.metadata.main_score == "ndcg_at_5", "MTEB's own task is as it was"
    assert sum("/" in source for group in VISDOC.values() for source in group.values()) == 3
