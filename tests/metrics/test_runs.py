"""TREC run files: what is read, what is written, what is refused."""

import pytest

from raylib.errors import UserError
from raylib.metrics.runs import read_run, unfit_id, write_run

GOOD = "q1 Q0 d1 1 0.5 x\nq1\tQ0\td2\t2\t-1e-3\tx\n\n  q2 Q0 d1 1 7 x\r\n"


def write(path, text):
    path.write_bytes(text.encode())
    return str(path)


def test_a_run_is_read_by_columns(tmp_path):
    assert read_run(write(tmp_path / "run", GOOD)) == {"q1": {"d1": 0.5, "d2": -0.001}, "q2": {"d1": 7.0}}


def test_a_run_is_written_best_first_and_reads_back_as_it_was(tmp_path):
    run = {"b": {"x": 0.1, "y": 1 / 3, "z": 0.1}, "a": {"x": -2.5e-17}, "none": {}}
    path = str(tmp_path / "deep" / "run.trec")
    write_run(run, path, "mine")
    with open(path, encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    assert [(q, d, rank) for q, _, d, rank, _, _ in lines] == [
        *[("b", "y", "1"), ("b", "z", "2"), ("b", "x", "3")],
        ("a", "x", "1"),
    ]
    assert {line[1] for line in lines} == {"Q0"} and {line[5] for line in lines} == {"mine"}
    assert read_run(path) == {"b": run["b"], "a": run["a"]}


def test_trec_evals_own_reader_reads_it(tmp_path):
    import pytrec_eval

    run = {"q": {"a": 0.25, "b": 1.5}}
    write_run(run, str(tmp_path / "run"), "x")
    with open(tmp_path / "run", encoding="utf-8") as stream:
        assert pytrec_eval.parse_run(stream) == run


@pytest.mark.parametrize("run", [{"q 1": {}}, {"q": {"a\tb": 1.0}}, {"q": {"": 1.0}}, {"q": {"a\u00a0b": 1.0}}])
def test_an_id_that_would_move_the_columns_is_refused(run, tmp_path):
    assert unfit_id(run) is not None
    with pytest.raises(UserError, match="is empty or holds white space"):
        write_run(run, str(tmp_path / "run"), "x")
    assert not (tmp_path / "run").exists()
    assert unfit_id({"q1": {"d-1": 1.0}}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run file .*run is empty"),
        ("\n  \n", "run file .*run is empty"),
        ("q Q0 d 1 0.5 x\n\nq Q0 d2 2 0.5\n", "run, line 3: 5 columns; expected 6: query id, Q0, document id"),
        ("q Q0 d 1 high x", "run, line 1: the score is 'high'; expected a finite number"),
        ("q Q0 d 1 nan x", "line 1: the score is 'nan'"),
        ("q Q0 d 1 -inf x", "line 1: the score is '-inf'"),
        ("q Q0 d 1 2 x\nq Q0 d 2 1 x", "line 2: query q has document d twice"),
    ],
)
def test_a_wrong_line_is_named(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        read_run(write(tmp_path / "run", text))


def test_a_file_that_is_not_there_or_no_text(tmp_path):
    with pytest.raises(UserError, match=r"run file .*gone cannot be read: No such file"):
        read_run(str(tmp_path / "gone"))
    (tmp_path / "binary").write_bytes(b"q Q0 \xff\xfe 1 1 x")
    with pytest.raises(UserError, match=r"is no UTF-8 text \(byte 5 is 255\)"):
        read_run(str(tmp_path / "binary"))
