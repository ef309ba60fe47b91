"""What the benchmark of `raylib evaluate` makes of its measurements, by hand-made numbers."""

import pytest

from benchmarks.evaluate_inputs import TINY_CLIP, Case
from benchmarks.evaluate_report import rows, summary, write_into_readme


def measured(work, total, main=0.5, other=0.25):
    scores = {"test/english/main_score": main, "test/english/ndcg_at_5": other}
    return {"work": work, "total": total, "cpu": 2 * work, "startup": total - work, "scores": scores}


PAIRS = [
    {"plain": measured(12.0, 20.0), "raylib": measured(3.0, 20.0)},
    {"plain": measured(10.0, 18.0), "raylib": measured(5.0, 24.0)},
    {"plain": measured(9.0, 30.0), "raylib": measured(3.0, 20.0, main=0.5 + 2**-12, other=0.5)},
]


def case_of(target=3.0, pairs=PAIRS):
    return summary(Case(TINY_CLIP, "v2", 200, target), pairs)


def test_ratios_are_taken_pair_by_pair():
    case = case_of()
    # 12/3, 10/5, 9/3; the ratio of the medians, 10/3, is another number.
    assert case["work ratio"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert case["work seconds"] == {"plain": 10.0, "raylib": 3.0}
    assert case["total ratio"]["median"] == 1.0
    assert case["startup seconds"] == {"plain": 8.0, "raylib": 17.0}


def test_differences_are_the_largest_of_any_pair():
    case = case_of()
    assert case["main_score_difference"] == 2**-12
    assert case["largest_metric_difference"] == 0.25
    assert case["pairs"][2]["raylib"]["scores"] == {"test/english/main_score": 0.5 + 2**-12}


def test_a_score_that_one_side_lacks_is_an_infinite_difference():
    lacking = {**PAIRS[0]["raylib"], "scores": {"test/english/ndcg_at_5": 0.25}}
    assert case_of(pairs=[{"plain": PAIRS[0]["plain"], "raylib": lacking}])["main_score_difference"] == float("inf")


@pytest.mark.parametrize(("target", "verdict"), [(3.0, "3× met"), (3.1, "3.1× missed"), (None, "")])
def test_the_median_decides_about_the_target(target, verdict):
    (row,) = rows({"cases": [case_of(target)]})
    assert row[:7] == ["tiny CLIP", "4", "200", "10.0", "3.0", "3.00× (2.00 to 4.00)", verdict]


def test_one_pair_has_no_spread():
    (row,) = rows({"cases": [case_of(pairs=PAIRS[:1])]})
    assert row[5] == "4.00× (one pair)"


RECORD = {
    "date": "2026-01-02",
    "machine": {
        "processor": "a processor",
        "cores used": 2,
        "cores of the machine": 8,
        "load average at the start": [0.1, 0, 0],
        "load average at the end": [2.0, 0, 0],
    },
    "versions": {"python": "3.11.7", "mteb": "2", "ray": "2", "torch": "2", "transformers": "5"},
    "settings": {"rounds": 3, "num_proc of the plain side": {"used": None}},
    "minutes": 12.5,
}


def test_the_readme_keeps_all_but_the_old_table(tmp_path):
    path = tmp_path / "README.md"
    begin, end = "<!-- results of evaluate.py: rewritten by every full run -->", "<!-- end of results -->"
    path.write_text(f"before\n{begin}\nold numbers\n{end}\nafter\n")
    for _ in range(2):  # twice is as once
        write_into_readme({**RECORD, "cases": [case_of()]}, path)
    text = path.read_text()
    assert text.startswith(f"before\n{begin}\n") and text.endswith(f"{end}\nafter\n") and "old numbers" not in text
    assert text.count("| tiny CLIP | 4 | 200 | 10.0 | 3.0 | 3.00× (2.00 to 4.00) | 3× met |") == 1
    assert "2 of 8 cores, a processor" in text


def test_a_readme_without_a_place_for_numbers_is_an_error(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no place for the results"):
        write_into_readme({**RECORD, "cases": [case_of()]}, path)
    assert path.read_text() == "nothing here\n"
