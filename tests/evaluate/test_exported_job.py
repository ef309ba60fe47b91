"""`raylib evaluate --runtime`: the same task on torch and on an exported graph, through the command line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raylib.cli import main
from tests.evaluate.colours import V1, write_v1
from tests.models.graphs import shared_folder

pytest.importorskip("openvino")
pytest.importorskip("onnxscript")

pytestmark = pytest.mark.usefixtures("private_caches")

MODEL = "raylib/untrained-clip"


def picture(number: int) -> bytes:
    random = np.random.default_rng(number)
    small = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    stream = io.BytesIO()
    small.resize((64, 48)).save(stream, "PNG")
    return stream.getvalue()


def scores(folder: Path) -> dict[str, float]:
    """nDCG@5 by the name of the experiment; "" for the plain run."""
    found = {}
    for path in folder.glob("raylib__untrained-clip/**/*.json"):
        content = json.loads(path.read_text())
        if "scores" in content:
            experiment = path.parent.name if path.parent.parent.name == "experiments" else ""
            found[experiment] = content["scores"]["test"][0]["ndcg_at_5"]
    return found


def test_the_same_ndcg_as_torch(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "exports").symlink_to(shared_folder(tmp_path_factory))
    monkeypatch.setenv("RAYLIB_CACHE", str(cache))
    words = ("red", "a table", "open a file", "energy", "sort by key", "what", "sockets", "dates", "x y", "text", "ray")
    write_v1(tmp_path / "data", [picture(i) for i in range(11)], list(words), {i: (i * 7) % 11 for i in range(11)})
    fixed = ["evaluate", "--model", MODEL, "--tasks", V1, "--local", "--data-root", str(tmp_path / "data")]
    fixed += ["--output-folder", str(tmp_path / "out")]
    for runtime in ([], ["--runtime", "openvino"]):
        assert main([*fixed, *runtime]) == 0
    found = scores(tmp_path / "out")
    assert found.keys() == {"", "runtime_openvino"}
    assert 0.05 < found[""] < 0.95 and found["runtime_openvino"] == pytest.approx(found[""], abs=1e-3)
    assert len([path for path in (tmp_path / "out" / "store").iterdir() if path.is_dir()]) == 2, "a key for each"
    assert main([*fixed, "--runtime", "openvino", "--dtype", "bfloat16"]) == 2
