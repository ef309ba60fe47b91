"""How many first ranks are left out: what is usual for a data set, and what is said for it."""

import pytest

from raylib.errors import UnknownNameError, UserError
from raylib.mine.kinds import skip_tops

TRAIN_VQA = ("A-OKVQA", "ChartQA", "DocVQA", "InfographicsVQA", "OK-VQA", "Visual7W")
TRAIN_CLASSES = ("HatefulMemes", "ImageNet_1K", "N24News", "SUN397", "VOC2007")
TRAIN_OTHERS = (
    *("CIRR", "MSCOCO", "MSCOCO_i2t", "MSCOCO_t2i", "NIGHTS"),
    *("VisDial", "VisualNews_i2t", "VisualNews_t2i", "WebQA"),
)
"""The subsets of TIGER-Lab/MMEB-train."""


def test_what_is_usual_for_mmebs_training_sets():
    found = skip_tops([*TRAIN_VQA, *TRAIN_CLASSES, *TRAIN_OTHERS, "my own"])
    assert {name for name, count in found.items() if count == 70} == set(TRAIN_VQA)
    assert {name for name, count in found.items() if count == 0} == set(TRAIN_CLASSES)
    assert {name for name, count in found.items() if count == 30} == {*TRAIN_OTHERS, "my own"}
    assert skip_tops(["docvqa", "imagenet-1k"]) == {"docvqa": 70, "imagenet-1k": 0}


def test_what_is_said():
    names = ["DocVQA", "SUN397", "pages"]
    assert skip_tops(names, ["12"]) == {"DocVQA": 12, "SUN397": 12, "pages": 12}
    assert skip_tops(names, ["docvqa=5"]) == {"DocVQA": 5, "SUN397": 0, "pages": 30}
    assert skip_tops(names, ["pages=0", "12"]) == {"DocVQA": 12, "SUN397": 12, "pages": 0}
    assert skip_tops(["a=b"], ["a=b=3"]) == {"a=b": 3}


def test_names_that_differ_in_case_only():
    assert skip_tops(["Pages", "pages"], ["pages=1"]) == {"Pages": 30, "pages": 1}
    assert skip_tops(["Pages", "pages"], ["PAGES=1"]) == {"Pages": 1, "pages": 1}


def test_names_that_are_not_there():
    with pytest.raises(UnknownNameError, match=r"unknown data set 'DocVAQ'. Did you mean DocVQA\?.*: DocVQA, pages"):
        skip_tops(["DocVQA", "pages"], ["DocVAQ=70"])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["many"], "--skip-top many: expected a whole number"),
        (["pages=-1"], "--skip-top pages=-1: expected"),
        (["pages="], "expected a whole number"),
        (["3.5"], "expected a whole number"),
        (["30", "40"], "says 30 and 40 for all data sets"),
        (["pages=1", "Pages=2"], "says 1 and 2 for pages"),
    ],
)
def test_what_cannot_be_said(given, why):
    with pytest.raises(UserError, match=why):
        skip_tops(["pages"], given)
