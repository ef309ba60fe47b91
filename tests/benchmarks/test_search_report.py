"""The benchmark of search: that it runs at a small size, and what it makes of hand-made numbers."""

import argparse

import pytest

from benchmarks import search
from benchmarks.search_report import dense_rows, late_rows, write_into_readme

SIZES = {"documents": 900, "dim": 16, "queries": 12, "pages": 20, "cores": 1, "index": "IVF4,Flat"}


def test_a_small_run_measures_every_side(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "LATE", search.LATE[:1] + search.LATE[5:6])
    monkeypatch.setattr(search, "DENSE", search.DENSE[:2])
    record = search.run(str(tmp_path), argparse.Namespace(**SIZES))
    streamed, faiss = record["dense"]
    assert streamed["same_as_reference"] and faiss["queries_with_other_documents"] == 0
    assert 0 < faiss["largest_score_difference"] < 1e-6 or faiss["places_that_differ"] == 0
    assert streamed["peak_mb"] >= streamed["peak_mb_of_imports"] > 50
    assert record["index"]["quality"]["sampled_queries"] == 12
    exact, pooled = record["late"]
    assert exact["quality"] == {} and pooled["quality"]["bytes_per_document"] < 100 * 128 * 4 * 3


def row(name, seconds, **more):
    base = {"name": name, "seconds": seconds, "cpu": 2 * seconds, "peak_mb": 1234.5, "quality": {}}
    return {**base, "places_that_differ": 7, "largest_score_difference": 2e-7, **more}


QUALITY = {"recall_at_10": 0.9876, "recall_at_100": 0.75, "bytes_per_document": 250, "bytes_per_document_float32": 1000}
RECORD = {
    "date": "2026-01-02",
    "sizes": {"documents": 1000, "dim": 8, "queries": 20, "pages": 5, "cores": 2},
    "dense": [row("ours", 3.0), row("theirs", 2.0)],
    "index": row("index X", 9.0, seconds_again=0.5, cpu_again=1.0, quality=QUALITY),
    "late": [row("exact", 4.0), row("small", 5.0, seconds_again=1.5, cpu_again=2.5, quality=QUALITY)],
    "load average": {"start": [0.1], "end": [2.0]},
    "minutes": 3.5,
}


def test_rows_say_what_was_measured():
    assert dense_rows(RECORD) == [
        ["ours", "3.0", "6.0", "1,234", "–", "–"],
        ["theirs", "2.0", "4.0", "1,234", "2e-07", "7"],
        ["index X, built and searched", "9.0", "18.0", "1,234", "recall@100 0.750", "–"],
        ["index X, searched again", "0.5", "1.0", "1,234", "recall@100 0.750", "–"],
    ]
    assert late_rows(RECORD) == [
        ["exact", "4.0", "8.0", "1.000", "1,000", "100.0%"],
        ["small", "1.5", "2.5", "0.988", "250", "25.0%"],
    ]


def test_the_readme_keeps_all_but_the_old_tables(tmp_path):
    path = tmp_path / "README.md"
    begin, end = "<!-- results of search.py: rewritten by every full run -->", "<!-- end of results of search.py -->"
    path.write_text(f"before\n{begin}\nold numbers\n{end}\nafter\n")
    for _ in range(2):
        write_into_readme(RECORD, path)
    text = path.read_text()
    assert text.startswith(f"before\n{begin}\n") and text.endswith(f"{end}\nafter\n") and "old numbers" not in text
    assert text.count("| theirs | 2.0 | 4.0 | 1,234 | 2e-07 | 7 |") == 1 and "2 cores" in text


def test_a_readme_without_a_place_for_numbers_is_an_error(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("nothing here\n")
    with pytest.raises(ValueError, match="no place for the results"):
        write_into_readme(RECORD, path)
