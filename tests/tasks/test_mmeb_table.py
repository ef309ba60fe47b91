"""MMEB's names, counts, prefixes and group means."""

import pytest

from raylib.errors import UserError
from raylib.tasks import mmeb_table
from raylib.tasks.mmeb_table import META_TASKS, SUBSETS, MmebOptions, category, group_means, target_prefix


def test_counts_are_the_papers():
    assert [len(subsets) for subsets in META_TASKS.values()] == [10, 10, 12, 4]
    assert len(set(SUBSETS)) == 36 and len(mmeb_table.VISDOC_SUBSETS) == 24 and len(mmeb_table.VIDEO_SUBSETS) == 18


def test_prefixes_go_to_22_subsets():
    """B3's table 13."""
    prefixes = {subset: target_prefix(subset) for subset in SUBSETS}
    assert {s for s, p in prefixes.items() if p == "Represent the class label: "} == set(META_TASKS["classification"])
    assert {s for s, p in prefixes.items() if p == "Represent the answer: "} == set(META_TASKS["VQA"])
    assert {s for s, p in prefixes.items() if p == "Represent the image caption: "} == {"MSCOCO_i2t", "VisualNews_i2t"}
    assert sum(p == "" for p in prefixes.values()) == 14


def test_categories():
    assert category("ImageNet-1K") == category("MSCOCO_i2t") == "it2t"
    assert category("MSCOCO_t2i") == category("Wiki-SS-NQ") == "t2it"
    assert category("CIRR") == category("RefCOCO-Matching") == category("MSCOCO") == "it2it"


def test_the_overall_score_is_the_mean_over_subsets_not_over_groups():
    scores = {"MMEB_VOC2007": 0.5, "MMEB_SUN397": 0.7, "MMEB_RefCOCO": 0.0, "Other": 1.0}
    found = {(mean.benchmark, mean.group): mean for mean in group_means(scores)}
    assert {group: (round(m.value, 12), m.scored, m.total) for (_, group), m in found.items()} == {
        "classification": (0.6, 2, 10),
        "grounding": (0.0, 1, 4),
        "overall": (0.4, 3, 36),
    }
    assert not found["MMEB(eval)", "overall"].complete
    complete = dict.fromkeys((f"MMEB_{s}" for s in META_TASKS["grounding"]), 0.25)
    assert group_means(complete)[0].complete and group_means({}) == []


def test_published_scores_give_the_published_overall_score():
    """B3++ with Qwen2-VL-7B (arXiv 2505.11293): 70.0, 66.5, 74.1 and 84.6 make 72.0."""
    published = {"classification": 70.0, "VQA": 66.5, "retrieval": 74.1, "grounding": 84.6}
    scores = {f"MMEB_{subset}": published[group] for group, subsets in META_TASKS.items() for subset in subsets}
    assert round(group_means(scores)[-1].value, 1) == 72.0


def test_options():
    assert MmebOptions().changed() == {} and MmebOptions(image_dir="x").changed() == {}
    both = MmebOptions(True, "subset", "x")
    assert both.changed() == {"target_prefix": True, "candidate_pool": "subset"}
    assert both.flags() == ["--target-prefix", "--candidate-pool", "--image-dir"]
    with pytest.raises(UserError, match="--candidate-pool is 'global'; expected row or subset"):
        MmebOptions(candidate_pool="global")
