"""`raylib inspect`: what it prints of files of hidden states, and when it says that something is wrong."""

import h5py
import numpy as np
import pytest

from raylib.cli import main
from raylib.store.hidden_states import StateTable, part_name, write_part
from raylib.store.representations import Representation

VISION, QUERY = Representation("vision_only"), Representation("query_token", 12)
FORMS = pytest.mark.parametrize("form", ["hdf5", "parquet"])


def table(n=7, **states):
    """Row i: vision_only is (i + 1, 0, 0), query_token/layer_12 is (3, 4)."""
    vision = np.zeros((n, 3), np.float32)
    vision[:, 0] = np.arange(n) + 1
    query = np.tile(np.array([3, 4], np.float32), (n, 1))
    for at, value in states.get("spoil", {}).items():
        query[at] = value
    return StateTable(
        [f"q{i}" for i in range(n)],
        {
            "image_id": [f"[red]{i}.png" for i in range(n)],
            "question": [f"What\nis {i}?" + " and why" * 20 for i in range(n)],
            "answer": [f"answer {i}" for i in range(n)],
        },
        {VISION: vision, QUERY: query},
        np.array([[5, 261]] * n),
        np.full(n, 260),
        np.arange(n) + 300,
        np.full(n, 256),
        {"model_name": "org/tiny", "layers": [12], "versions": {"torch": "2.9"}},
        [("bad", "the image is broken")],
    )


def lines(capsys, *arguments):
    """Exit status and the lines that are printed, with single spaces."""
    status = main(["inspect", *map(str, arguments)])
    return status, [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def part(request, tmp_path):
    path = tmp_path / part_name("tiny", 1, request.param)
    write_part(table(), path, request.param)
    return path


BOTH = pytest.mark.parametrize("part", ["hdf5", "parquet"], indirect=True)


@BOTH
def test_a_sound_file_is_described(part, capsys):
    status, said = lines(capsys, part)
    form = "HDF5" if part.suffix == ".h5" else "Parquet"
    assert status == 0 and said[-1] == "no problems"
    assert f"{part} {form}, 7 rows, 1 failed" in said
    assert {"model_name org/tiny", "layers [12]", 'versions {"torch": "2.9"}', "bad the image is broken"} <= set(said)
    # By hand: norms of (i + 1, 0, 0) are 1 … 7, mean 4; all 21 values sum to 28, their squares to 140:
    # mean 4/3, variance 140 / 21 - 16 / 9. (3, 4) has norm 5, mean 3.5 and spread 0.5.
    assert f"vision_only 7 3 float32 4 1.333 {np.sqrt(140 / 21 - 16 / 9):.4g} 0 7 0 0" in said
    assert "query_token/layer_12 7 2 float32 5 3.5 0.5 3 4 0 0" in said
    assert "the first 5 rows; --all shows every one" in said
    rows = [line for line in said if line.startswith("q") and ".png" in line]
    assert [row.split()[0] for row in rows] == ["q0", "q1", "q2", "q3", "q4"]
    assert rows[2].startswith("q2 [red]2.png What is 2? and why and") and rows[2].endswith("… answer 2")
    assert not any("5:261" in line for line in said)


@BOTH
@pytest.mark.parametrize("flags", [["--all", "--detailed"], ["-a", "-d"]], ids="".join)
def test_every_row_in_detail(part, flags, capsys):
    status, said = lines(capsys, part, *flags)
    assert status == 0 and not any("--all" in line for line in said)
    (row,) = [line for line in said if line.startswith("q6 [red]6.png")]
    assert row.endswith("answer 6 5:261 260 306 256")
    assert "q6 vision_only 3 7 2.333 3.3 0 7 0 0" in said, "mean 7/3, spread 7 √2 / 3"
    assert "q6 query_token/layer_12 2 5 3.5 0.5 3 4 0 0" in said
    assert sum(line.split()[1:2] == ["vision_only"] for line in said) == 7


@BOTH
def test_one_row_is_shown_whole(part, capsys):
    status, said = lines(capsys, part, "--sample", "q6")
    assert status == 0 and said[-1] == "no problems"
    assert {"question_id q6", "image_id [red]6.png", "answer answer 6", "image_span 5:261"} <= set(said)
    assert {"vision_position 260", "query_position 306", "image_tokens 256"} <= set(said)
    assert f"is 6?{' and why' * 20}" in said, "texts are not cut here"
    assert "vision_only 3 7 2.333 3.3 0 7 0 0 float32 7 0 0" in said


@FORMS
def test_flawed_vectors_are_listed_and_give_status_1(form, tmp_path, capsys):
    path = tmp_path / part_name("tiny", 1, form)
    spoil = {0: np.nan, 2: (1, np.nan), 3: (np.inf, np.nan), 4: 0}
    write_part(table(spoil=spoil), path, form)
    status, said = lines(capsys, tmp_path)
    assert status == 1
    assert said[said.index("3 problems:") + 1 :] == [
        "query_token/layer_12: 3 rows have NaN: q0, q2, q3",
        "query_token/layer_12: 1 row has infinity: q3",
        "query_token/layer_12: 1 row has only zeros: q4",
    ]
    # Sound rows: three of (3, 4), one of (0, 0). mean 21/8, variance 75/8 - (21/8)². Four NaN, one infinity.
    spread = np.sqrt(75 / 8 - (21 / 8) ** 2)
    assert f"query_token/layer_12 7 2 float32 3.75 2.625 {spread:.4g} 0 4 4 1" in said
    assert lines(capsys, path, "--sample", "q3")[0] == 1
    assert lines(capsys, path, "--sample", "q1")[0] == 0


def test_five_ids_are_named_and_the_others_counted(tmp_path, capsys):
    write_part(table(300, spoil=dict.fromkeys(range(290, 300), 0)), tmp_path / "x.h5", "hdf5")
    _, said = lines(capsys, tmp_path)
    assert said[-1] == "query_token/layer_12: 10 rows have only zeros: q290, q291, q292, q293, q294 and 5 more"


def test_a_file_without_rows_is_a_problem(tmp_path, capsys):
    write_part(table(0), tmp_path / "x.h5", "hdf5")
    status, said = lines(capsys, tmp_path)
    assert status == 1 and said[-2:] == ["1 problem:", "there are no rows"]


def old_file(path, *, flawed):
    """By hand, as the old scripts did: bytes or text, gzip, no attributes and no columns."""
    with h5py.File(path, "w") as file:
        for at in range(3):
            group = file.create_group(f"amber_{at}")
            group.create_dataset("image_id", data=f"{at}.jpg", dtype=h5py.string_dtype())
            group.create_dataset("question", data=f"Is it {at}?".encode())
            group.create_dataset("ground_truth_answer", data="yes", dtype=h5py.string_dtype())
            group.create_dataset("answer", data="no", dtype=h5py.string_dtype())
            width = 2 if flawed and at == 2 else 3
            group.create_dataset("vision_only_representation", data=np.ones(width, np.float32), compression="gzip")
            tokens = group.create_group("query_token_representation")
            tokens.create_dataset("layer_0", data=np.array([3, 4], np.float32), chunks=True, compression="gzip")
            if not (flawed and at == 1):
                tokens.create_dataset("layer_12", data=np.array([6, 8], np.float32), compression="gzip")


def test_a_file_of_the_old_scripts_is_described(tmp_path, capsys):
    old_file(tmp_path / "gemma3_12b_embeddings_part_001.h5", flawed=False)
    status, said = lines(capsys, tmp_path, "-a", "-d")
    assert status == 0 and said[-1] == "no problems"
    assert said[0].endswith("HDF5 of the old scripts, 3 rows, 0 failed")
    assert "query_token/layer_12 3 2 float32 10 7 1 6 8 0 0" in said
    assert "amber_2 2.jpg Is it 2? yes no" in said
    assert "amber_2 query_token/layer_0 2 5 3.5 0.5 3 4 0 0" in said
    status, said = lines(capsys, tmp_path, "--sample", "amber_1")
    assert status == 0 and "question Is it 1?" in said and "vision_only 3 1.732 1 0 1 1 0 0 float32 1 1 1" in said


def test_what_an_old_file_lacks_is_listed(tmp_path, capsys):
    old_file(tmp_path / "old.h5", flawed=True)
    status, said = lines(capsys, tmp_path / "old.h5", "-d")
    assert status == 1
    assert said[said.index("2 problems:") + 1 :] == [
        "query_token/layer_12: 1 row has no such vector: amber_1",
        "vision_only: 1 row has another shape than 3: amber_2",
    ]
    assert "query_token/layer_12 2 of 3 2 float32 10 7 1 6 8 0 0" in said
    assert "amber_1 query_token/layer_12 none" in said
    status, said = lines(capsys, tmp_path / "old.h5", "--sample", "amber_1")
    assert status == 1 and said[-1] == "query_token/layer_12: 1 row has no such vector: amber_1"


def test_vectors_that_are_matrices_are_a_problem(tmp_path, capsys):
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_dataset("q1/vision_only_representation", data=np.ones((4, 2), np.float32))
    status, said = lines(capsys, tmp_path)
    assert status == 1 and said[-1] == "vision_only: 1 row has no single dimension: q1"
    assert any(line.startswith("vision_only 1 4 x 2 float32") for line in said)


def test_what_cannot_be_read_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / "x_part_001.h5").write_bytes(b"not HDF5")
    assert main(["inspect", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("raylib: ") and "x_part_001.h5 cannot be read as HDF5" in err and err.count("\n") == 1
    write_part(table(), tmp_path / "x_part_001.h5", "hdf5")
    assert main(["inspect", str(tmp_path), "--sample", "q66"]) == 2
    assert "unknown row 'q66'. Did you mean q6" in capsys.readouterr().err
