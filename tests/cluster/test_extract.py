"""`raylib extract` on Ray: the same files whatever the number of workers, and after a kill."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import raylib
from raylib.cluster.extract import RayPlace
from raylib.errors import ModelError
from raylib.store.hidden_states import open_states
from tests.cluster.test_driver_killed import processes_of, wait_until
from tests.extract.checkpoints import BUILDERS
from tests.extract.made import columns, images_folder, rows

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, and four times the eight rows, of which one image is broken."""
    folder = tmp_path_factory.mktemp("extract")
    BUILDERS["qwen2_5_vl"](folder / "model")
    table, images = images_folder(folder)
    lines = list(csv.reader(table.open(encoding="utf-8")))
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(lines[0])
        writer.writerows([f"{name}-{n}", *rest] for n in range(4) for name, *rest in lines[1:])
    (images / "grey.png").write_bytes((images / "grey.png").read_bytes()[:50])
    return folder


@pytest.fixture(scope="module")
def settings(folder):
    return {
        "model": str(folder / "model"),
        "vqa_dataset": str(folder / "vqa.csv"),
        "images_dir": str(folder / "images"),
        "checkpoint_interval": 10,
        "batch_size": 3,
        "quiet": True,
        "allow_errors": 4,
    }


@pytest.fixture(scope="module")
def alone(cluster, settings, folder) -> Path:
    """What one worker writes."""
    assert raylib.extract(**settings, output_dir=str(folder / "one"), workers=1).ok
    return folder / "one"


def test_three_workers_write_what_one_writes(cluster, settings, folder, alone):
    outcome = raylib.extract(**settings, output_dir=str(folder / "three"), workers=3)
    assert outcome.ok and [bad.item_id for bad in outcome.bad] == [f"q5-{n}" for n in range(4)]
    assert columns(folder / "three") == columns(alone)
    order = [f"{row.question_id}-{n}" for n in range(4) for row in rows() if row.question_id != "q5"]
    assert open_states(str(folder / "three")).question_ids == order and len(outcome.files) == 4


@pytest.mark.parametrize("shipping", ["path", "value"], indirect=True)
def test_halves_apart_and_images_by_value_write_the_same(
    shipping, cluster, settings, folder, alone, monkeypatch, tmp_path
):
    """As with GPUs: rows are processed in tasks of their own. By value: as for machines that see no files of this."""
    original = RayPlace.of
    monkeypatch.setattr(RayPlace, "of", lambda config: RayPlace(original(config).workers, split=True))
    images = tmp_path / "images"
    shutil.copytree(folder / "images", images)
    if shipping == "value":  # workers are given bytes: the files may go as soon as they were read
        monkeypatch.setattr(RayPlace, "extract", _without_files(RayPlace.extract, images))
    given = settings | {"images_dir": str(images)}
    assert raylib.extract(**given, output_dir=str(tmp_path / "out"), workers=2).ok
    assert columns(tmp_path / "out") == columns(alone)


def _without_files(original, images: Path):
    def extract(self, extractor, batches):
        found = original(self, extractor, batches)
        first = next(found)  # everything is on its way
        shutil.rmtree(images)
        yield first
        yield from found

    return extract


def rows_done(output: Path) -> int:
    """Rows of finished parts, and batches of unfinished ones."""
    return len(list(output.glob(".unfinished/*/*.npz"))) + 10 * len(list(output.glob("*.h5")))


def start(settings: dict, output: Path, ray_folder: str) -> subprocess.Popen[str]:
    flags = {**settings, "output_dir": output, "workers": 2, "batch_size": 1, "max_new_tokens": 150, "quiet": None}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_TMPDIR": ray_folder}
    command = [sys.executable, "-m", "raylib.cli", "extract", *given, "--generate"]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.fixture
def ray_folder():
    folder = tempfile.mkdtemp(prefix="rt", dir="/tmp")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_killed_driver_is_continued_by_the_same_command(cluster, settings, folder, ray_folder):
    output = folder / "killed"
    first = start(settings, output, ray_folder)
    wait_until(
        lambda: len(list(output.glob(".unfinished/*/*.npz"))) + 10 * len(list(output.glob("*.h5"))) >= 13,
        240,
        "13 rows",
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_until(lambda: not processes_of(ray_folder), 120, "Ray ends with its driver")
    assert not (output / "manifest.json").exists()
    parts = {path.name: path.stat().st_mtime_ns for path in output.glob("*.h5")}
    # A part that was written as the driver died may not have taken its batches with it; they are not continued.
    kept = [path for path in output.glob(".unfinished/*/*.npz") if not list(output.glob(f"*_{path.parent.name}.h5"))]
    assert parts or kept

    second = start(settings, output, ray_folder)
    told, _ = second.communicate(timeout=280)
    assert second.returncode == 0, told
    assert (f"{len(kept)} were done before" in told) == bool(kept), told
    assert {name: (output / name).stat().st_mtime_ns for name in parts} == parts, "finished parts stay as they are"
    assert not (output / ".unfinished").exists()

    outcome = raylib.extract(
        **(settings | {"batch_size": 1}), output_dir=str(folder / "whole"), generate=True, max_new_tokens=150, workers=2
    )
    assert outcome.ok and columns(output) == columns(folder / "whole")


def test_a_batch_size_is_tried_on_a_worker(cluster, settings, folder, capsys):
    given = settings | {"batch_size": "auto", "quiet": False, "layers": "-1"}
    outcome = raylib.extract(**given, output_dir=str(folder / "auto"), workers=1)
    assert outcome.ok and outcome.counts["extracted"] == 28
    assert "batches of" in capsys.readouterr().out


def test_what_a_worker_cannot_load_is_told_in_its_own_words(cluster, settings, folder, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(folder / "model", broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="its weights cannot be loaded"):
        raylib.extract(**(settings | {"model": str(broken)}), output_dir=str(tmp_path / "out"), workers=1)
