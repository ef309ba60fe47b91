"""The files beside a result: what they hold by hand, and what becomes of them when a task is scored again."""

from __future__ import annotations

import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.metrics.details import (
    CONTENTS,
    RANKINGS,
    Details,
    contents_of,
    details_folder,
    details_of,
    join_details,
    kept_rankings,
    places,
    read_details,
    without,
    write_details,
)

RUN = {"q1": {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.1}, "q2": {"a": 1.0}, "unjudged": {"a": 1.0}}
QRELS = {"q1": {"c": 2, "b": 0, "z": 1}, "q2": {"a": 0}, "nowhere": {"a": 1}}
K1, K2 = bytes(range(32)), bytes(range(32, 64))


def details(subset: str = "default", keep: int = 3) -> Details:
    return details_of("test", subset, RUN, QRELS, keep, ["ndcg_at_5", "recall_at_5", "mrr_at_10"])


def test_rankings_are_the_best_documents_with_their_grades():
    table = details().rankings
    assert table.schema.equals(RANKINGS)
    rows = [tuple(row.values()) for row in table.to_pylist() if row["query_id"] == "q1"]
    assert rows == [
        ("test", "default", "q1", 1, "b", pytest.approx(0.9), 0),
        ("test", "default", "q1", 2, "c", 0.5, 2),  # of equal scores the greater id comes first
        ("test", "default", "q1", 3, "a", 0.5, None),
    ]


def test_measures_per_query():
    table = details(keep=1).queries
    first, second = table.to_pylist()
    # The grade 2 in the second place; ideally it is first and the grade 1, which was not found, second.
    ndcg = (2 / math.log2(3)) / (2 + 1 / math.log2(3))
    assert first == {
        "split": "test",
        "subset": "default",
        "query_id": "q1",
        "n_relevant": 2,
        "ndcg_at_5": pytest.approx(ndcg),
        "recall_at_5": 0.5,
        "mrr_at_10": 0.5,
    }
    assert second["query_id"] == "q2" and second["n_relevant"] == 0 and second["ndcg_at_5"] == 0
    assert table.schema.field("n_relevant").type == pa.int32() and table.schema.field("ndcg_at_5").type == pa.float64()


def test_contents_name_the_store():
    sides = {("test", "en", "query"): (["q1"], [K1]), ("test", "en", "document"): (["a", "b"], [K2, K2])}
    table = contents_of(sides, {"store": "s3://x/store", "fingerprint": "f" * 64})
    assert table.schema.equals(CONTENTS) and table.schema.metadata[b"store"] == b"s3://x/store"
    assert [tuple(row.values())[2:] for row in table.to_pylist()] == [
        ("query", "q1", K1),
        ("document", "a", K2),
        ("document", "b", K2),
    ]


def test_files_are_written_read_and_replaced(tmp_path):
    folder = details_folder(str(tmp_path), "Task")
    contents = contents_of({("test", "default", "query"): (["q1"], [K1])}, {"store": "s"})
    write_details(folder, Details(details().rankings, details().queries, contents), keep=3)

    found = read_details(folder)
    assert kept_rankings(folder) == 3 and found.contents is not None
    assert found.rankings.equals(details().rankings) and found.queries.equals(details().queries)
    assert found.contents.schema.metadata[b"store"] == b"s"
    assert sorted(path.name for path in (tmp_path / "details" / "Task").iterdir()) == [
        "contents.parquet",
        "queries.parquet",
        "rankings.parquet",
    ]

    write_details(folder, details(keep=2), keep=2)
    assert kept_rankings(folder) == 2 and read_details(folder).contents is None, "nothing of the old result stays"


def test_nothing_or_something_broken(tmp_path):
    folder = details_folder(str(tmp_path), "Task")
    assert kept_rankings(folder) == 0
    with pytest.raises(UserError, match=r"holds no rankings.parquet.*--keep-rankings"):
        read_details(folder)
    write_details(folder, details(), keep=3)
    (tmp_path / "details" / "Task" / "queries.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UserError, match=r"queries.parquet cannot be read"):
        read_details(folder)
    (tmp_path / "details" / "Task" / "rankings.parquet").write_bytes(b"")
    assert kept_rankings(folder) == 0, "the task is scored again"


def test_subsets_are_joined_and_taken_out():
    more = details_of("test", "fr", RUN, QRELS, 3, ["ndcg_at_5", "map_at_10"])
    joined = join_details([details("en"), more])
    assert places(joined) == {("test", "en"), ("test", "fr")}
    assert joined.queries.column_names[4:] == ["ndcg_at_5", "recall_at_5", "mrr_at_10", "map_at_10"]
    assert joined.queries["map_at_10"].null_count == 2
    left = without(joined, {("test", "en")})
    assert left.rankings.equals(more.rankings) and places(left) == {("test", "fr")}


def test_contents_of_another_store_are_not_mixed_in():
    def part(subset: str, store: str) -> Details:
        contents = contents_of({("test", subset, "query"): (["q1"], [K1])}, {"store": store})
        return Details(details(subset).rankings, details(subset).queries, contents)

    joined = join_details([part("en", "one"), part("fr", "one"), part("de", "two")])
    assert joined.contents is not None
    assert joined.contents["subset"].to_pylist() == ["en", "fr"] and joined.contents.schema.metadata[b"store"] == b"one"


def test_any_reader_opens_them(tmp_path):
    write_details(str(tmp_path), details(), keep=3)
    assert pq.read_table(tmp_path / "rankings.parquet").num_rows == 5
