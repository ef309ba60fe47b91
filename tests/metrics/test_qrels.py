"""Judgements in the three forms that people have them in."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import UserError
from raylib.metrics.qrels import read_qrels

EXPECTED = {"q1": {"d1": 2, "d 2": 0}, "q2": {"d1": -1}}
TREC = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}


def text_file(tmp_path, text, name="qrels"):
    (tmp_path / name).write_bytes(text.encode())
    return str(tmp_path / name)


def parquet_file(tmp_path, **columns):
    path = str(tmp_path / "qrels.parquet")
    pq.write_table(pa.table({name.replace("_id", "-id"): values for name, values in columns.items()}), path)
    return path


@pytest.mark.parametrize(
    "text", ["q1 0 d1 2\nq1 0 d2 0\nq2 Q0 d1 -1\n", "q1\t0\td1\t2\r\n\r\nq1\t0\td2\t0\nq2\t0\td1\t-1"]
)
def test_trec(text, tmp_path):
    assert read_qrels(text_file(tmp_path, text)) == TREC


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td 2\t0\nq2\td1\t-1\n",
        "\ufeffScore\tQuery_ID\tdoc_id\tnote\n2\tq1\td1\ta b\n0.0\tq1\td 2\t\n-1\tq2\td1\t\n",
    ],
    ids=["as BEIR writes it", "other names, other order, a mark at the start"],
)
def test_beir(text, tmp_path):
    assert read_qrels(text_file(tmp_path, text, "test.tsv")) == EXPECTED


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64()], ids=str)
def test_parquet(kind, tmp_path):
    columns = {"query_id": ["q1", "q1", "q2"], "corpus_id": ["d1", "d 2", "d1"], "score": pa.array([2, 0, -1], kind)}
    assert read_qrels(parquet_file(tmp_path, **columns)) == EXPECTED


def test_ids_that_are_numbers_become_text(tmp_path):
    path = parquet_file(tmp_path, query_id=[1, 2], corpus_id=[10, 20], score=[1, 1])
    assert read_qrels(path) == {"1": {"10": 1}, "2": {"20": 1}}


def test_a_judgement_may_be_repeated(tmp_path):
    assert read_qrels(text_file(tmp_path, "q 0 d 1\nq 1 d 1\n")) == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "qrels .* is empty"),
        ("q 0 d\n", r"line 1: 3 columns; expected TREC's 4 .*, or BEIR's header query-id, corpus-id, score"),
        ("q 0 d 1\nq 0 d2 1 more\n", "line 2: 5 columns"),
        ("q 0 d yes\n", "line 1: the grade is 'yes'; expected a whole number"),
        ("q 0 d 0.5\n", "line 1: the grade is '0.5'"),
        ("q 0 d nan\n", "line 1: the grade is 'nan'"),
        ("q 0 d 1\nq 0 d 2\n", "line 2: query q and document d are judged 2 here and 1 before"),
        (
            "query-id\tcorpus-id\tscore\nq\td\n",
            r"line 2: 2 columns; expected 3, with tabs .*query-id, corpus-id, score",
        ),
        ("query-id\tcorpus-id\tscore\nq\td\t\n", "line 2: the grade is ''"),
        ("query-id\tcorpus-id\tscore\n", "hold no judgement"),
        ("query-id\tpage\tscore\nq\td\t1\n", r"no column for document \(one of corpus-id, "),
    ],
)
def test_a_wrong_line_is_named(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_qrels(text_file(tmp_path, text))


def test_wrong_parquet(tmp_path):
    with pytest.raises(UserError, match=r"columns query-id, corpus-id; no column for grade \(one of score, relevance"):
        read_qrels(parquet_file(tmp_path, query_id=["q"], corpus_id=["d"]))
    with pytest.raises(UserError, match="row 1: query q, document None, grade 1: a null"):
        read_qrels(parquet_file(tmp_path, query_id=["q", "q"], corpus_id=["d", None], score=[1, 1]))
    with pytest.raises(UserError, match=r"row 0: the grade is 0\.5"):
        read_qrels(parquet_file(tmp_path, query_id=["q"], corpus_id=["d"], score=[0.5]))
    with pytest.raises(UserError, match="hold no judgement"):
        read_qrels(parquet_file(tmp_path, query_id=[], corpus_id=[], score=[]))
    with pytest.raises(UserError, match="are no Parquet file"):
        read_qrels(text_file(tmp_path, "q 0 d 1\n", "bad.parquet"))
    with pytest.raises(UserError, match=r"gone\.parquet cannot be read"):
        read_qrels(str(tmp_path / "gone.parquet"))
