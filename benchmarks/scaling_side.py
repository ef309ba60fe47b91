"""What `scaling.py` measures: one encode stage over sleeping models, and the costs of a page."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling_toys import LOG

BATCH_SIZE = 16
PAGE_PIXELS = (1654, 2339)
"""A4 at 200 dots an inch."""


def run_stage(stage: str, workers: int, n: int, root: str, model: str = "sleeping") -> tuple[float, float]:
    """(seconds of one encode stage, contents a second once all its workers have begun).

    model: of `benchmarks.scaling_toys`.
    """
    import datasets

    from raylib.evaluate.batching import BatchLimits
    from raylib.evaluate.contents import Source
    from raylib.evaluate.plan import Plan
    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve
    from raylib.store.embeddings import Shelf

    encoder: Any = resolve(ModelSpec(f"benchmarks.scaling_toys:{model}", device="cpu"))
    plan = Plan(encoder)
    texts = [f"text number {number}" for number in range(n)]
    rows = datasets.Dataset.from_dict({"text": texts})
    plan.add(Source("benchmark", [str(i) for i in range(n)], rows), encoder.context(None, "document"))
    with tempfile.TemporaryDirectory(dir=root) as folder:
        shelf = Shelf(folder, encoder.fingerprint)
        run, close = _stage(stage, workers)
        start = time.perf_counter()
        try:
            report = run(encoder, plan.batches(BatchLimits(BATCH_SIZE)), plan.sources, shelf)
        finally:
            close()
        whole, end = time.perf_counter() - start, time.time()
        assert report.encoded == n, f"{report.encoded} of {n} were encoded"
    return whole, steady_rate(_taken_log(), workers, end) if model == "sleeping" else 0.0


def _taken_log() -> list[tuple[str, float, int]]:
    path = Path(os.environ[LOG])
    lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    path.unlink()
    return [(process, float(begin), int(contents)) for process, begin, contents in lines]


def steady_rate(forwards: Sequence[tuple[str, float, int]], workers: int, end: float) -> float:
    """Contents a second from the begin of the last worker's first forward to the end of the stage.

    forwards: (process, seconds of the epoch at its begin, contents). A forward that was under way when the last worker
    began is not counted, nor is the rest of it: it favours no number of workers. Raises ValueError where fewer
    processes than `workers` have run.
    """
    first: dict[str, float] = {}
    for process, begin, _ in forwards:
        first[process] = min(begin, first.get(process, begin))
    if len(first) < workers:
        raise ValueError(f"{len(first)} of {workers} workers had work; expected all of them, with more --contents")
    begin_of_all = max(first.values())
    return sum(contents for _, begin, contents in forwards if begin >= begin_of_all) / (end - begin_of_all)


def _stage(name: str, workers: int) -> tuple[Any, Any]:
    from raylib.cluster.encode import RayDataStage
    from raylib.cluster.halves import quiet_ray_data
    from raylib.cluster.pool import PoolStage
    from raylib.cluster.session import Workers

    quiet_ray_data()
    placing = Workers(workers, workers, 0.0, 1)
    if name == "Ray Data":
        return RayDataStage(placing), lambda: None
    pool = PoolStage(placing)
    return pool, pool.close


def measure_costs(root: str, *, quick: bool) -> dict[str, float]:
    """`benchmarks.scaling_paper.Costs`, by name: of the driver and the head per content in batches of `BATCH_SIZE` that
    take no time, and of a page of ColPali's shape."""
    import psutil

    n = 3200 if quick else 32000
    own = psutil.Process()
    head = _head_processes(own)
    before, head_before = _cpu(own), sum(map(_cpu, head))
    run_stage("Ray Data", 4, n, root, "instant")
    driver, of_head = _cpu(own) - before, sum(map(_cpu, head)) - head_before
    return {"driver_seconds": driver / n, "head_seconds": of_head / n, **_page_costs(root)}


def _head_processes(own: Any) -> list[Any]:
    """Ray's own, not the workers."""
    found = [p for p in own.children(recursive=True) if p.name().startswith(("gcs_server", "raylet"))]
    assert len(found) >= 2, f"Ray's processes are {[p.name() for p in own.children(recursive=True)]}"
    return found


def _cpu(process: Any) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _page_costs(root: str) -> dict[str, float]:
    """One page: decoded and prepared as for ColPali (448 x 448 pixels), its vectors written (1,030 of 128)."""
    import io
    import pickle

    from PIL import Image
    from transformers import SiglipImageProcessor

    from raylib.store.embeddings import Shelf
    from raylib.types import Embeddings

    page = _page()
    processor = SiglipImageProcessor(size={"height": 448, "width": 448})

    def prepared() -> Any:
        image = Image.open(io.BytesIO(page)).convert("RGB")
        return np.asarray(processor(images=[image], return_tensors="np")["pixel_values"], dtype=np.float32)

    passed = len(pickle.dumps(prepared(), protocol=5))
    start, rounds = time.process_time(), 10
    for _ in range(rounds):
        prepared()
    seconds = (time.process_time() - start) / rounds
    pages, tokens = 32, 1030
    vectors = np.random.default_rng(0).normal(size=(pages * tokens, 128)).astype(np.float16)
    shelf = Shelf(str(Path(root) / "cost"), "0" * 64)
    keys = [bytes([number]) * 32 for number in range(pages)]
    shelf.write_batches(keys, [Embeddings(vectors, np.arange(pages + 1, dtype=np.int64) * tokens)])
    written = sum(path.stat().st_size for path in Path(shelf.folder).rglob("*.parquet")) / pages
    return {
        "prepare_seconds": seconds,
        "prepared_bytes": float(passed),
        "read_bytes": float(len(page)),
        "written_bytes": written,
        "read_requests": 1.0,
        "written_requests": 1 / (8 * BATCH_SIZE),  # a part holds eight batches of images
    }


def _page() -> bytes:
    """A JPEG of lines of text: about as large as a scanned page."""
    import io

    from PIL import Image, ImageDraw

    noise = np.random.default_rng(0).integers(225, 256, size=(*PAGE_PIXELS[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    for line in range(70):
        draw.text((120, 120 + 30 * line), "the quick brown fox jumps over the lazy dog " * 4, fill=(20, 20, 20))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=85)
    return stream.getvalue()
