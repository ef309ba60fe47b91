"""How batches are cut: the encode stage against what upstream's own loops do with the same model, on skewed lengths.

    python benchmarks/encode.py [--quick] [--rounds 2] [--output benchmarks/results/encode.json]

One process and one thread; the ways take turns, round by round. README.md says what is compared with what.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from benchmarks.common import markdown_table, processor, publish, say  # noqa: E402
from benchmarks.encode_inputs import build_qwen, build_text_model, pages, texts  # noqa: E402

BEGIN, END = "<!-- results of encode.py: rewritten by every full run -->", "<!-- end of results of encode.py -->"


@dataclass
class Way:
    """One way to the vectors of the same contents. run: gives them, [n, dim] or a list of [tokens, dim], in order, and
    the padded tokens of each forward."""

    name: str
    run: Callable[[], tuple[Any, list[int]]]
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    padded: list[int] = field(default_factory=list)
    least_cosine: float = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few contents, one round: does everything run?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--pages", type=int, default=80)
    parser.add_argument("--output", help="JSON; by default benchmarks/results, or nowhere with --quick")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.texts, options.pages = 1, 40, 12
    output = options.output or (None if options.quick else str(REPOSITORY / "benchmarks" / "results" / "encode.json"))
    record = run(options)
    publish(record, table(record), output, (BEGIN, END), recorded=options.output is None)
    return 0 if all(way["least cosine"] >= 0.9999 for case in record["cases"] for way in case["ways"]) else 1


def run(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    started, load = time.time(), [round(x, 2) for x in os.getloadavg()]
    cases = []
    with tempfile.TemporaryDirectory(prefix="raylib-benchmark-") as root:
        for name, ways, real in (text_case(root, options.texts), page_case(root, options.pages)):
            say(name)
            measure(ways, options.rounds)
            cases.append({"case": name, "real tokens": real, "ways": [summary(way, ways[0], real) for way in ways]})
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "torch": torch.__version__,
        "rounds": options.rounds,
        "minutes": round((time.time() - started) / 60, 1),
        "load average": {"start": load, "end": [round(x, 2) for x in os.getloadavg()]},
        "cases": cases,
    }


def measure(ways: list[Way], rounds: int) -> None:
    """Every way once unmeasured, then by turns; vectors are compared with those of the first way."""
    reference = ways[0].run()[0]
    for way in ways[1:]:
        way.least_cosine = least_cosine(reference, way.run()[0])
    for number in range(rounds):
        for way in ways if number % 2 == 0 else ways[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            way.padded = way.run()[1]
            way.wall.append(time.perf_counter() - wall)
            way.cpu.append(time.process_time() - cpu)
            say(f"  {way.name}: {way.cpu[-1]:.1f} CPU s")


def least_cosine(one: Any, other: Any) -> float:
    def unit(vectors: Any) -> np.ndarray:
        flat = np.concatenate([np.atleast_2d(np.asarray(v, dtype=np.float64)) for v in vectors])
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    return float((unit(one) * unit(other)).sum(axis=1).min())


def summary(way: Way, first: Way, real: int) -> dict[str, Any]:
    ratios = [theirs / ours for theirs, ours in zip(first.cpu, way.cpu, strict=True)]
    return {
        "way": way.name,
        "cpu s": round(statistics.median(way.cpu), 2),
        "wall s": round(statistics.median(way.wall), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratio min to max": [round(min(ratios), 2), round(max(ratios), 2)],
        "padded to real tokens": round(sum(way.padded) / real, 2),
        "largest forward, tokens": max(way.padded),
        "forwards": len(way.padded),
        "least cosine": round(way.least_cosine, 7),
    }


def table(record: dict[str, Any]) -> list[str]:
    columns = ["contents", "way", "CPU s", "ratio (min to max)", "padded / real", "forwards", "largest, tokens"]
    rows = []
    for case in record["cases"]:
        for way in case["ways"]:
            low, high = way["ratio min to max"]
            ratio = f"{way['ratio']:.2f}× ({low:.2f} to {high:.2f})"
            cells = [case["case"], way["way"], f"{way['cpu s']:.1f}", ratio, f"{way['padded to real tokens']:.2f}"]
            rows.append([*cells, str(way["forwards"]), f"{way['largest forward, tokens']:,}"])
    load = record["load average"]
    note = (
        f"{record['date']}; one thread, {record['processor']}, torch {record['torch']}; {record['rounds']} rounds, "
        f"{record['minutes']} minutes; load average {load['start'][0]} at the start, {load['end'][0]} at the end."
    )
    return [*markdown_table(columns, rows), "", note]


# The ways.


def raylib_way(name: str, encoder: Any, source: Any, role: Any, limits: Any, root: str) -> Way:
    """The whole stage: plan, hash, cut, preprocess, forward, store."""
    from raylib.evaluate.encode import encode_locally
    from raylib.evaluate.plan import Plan
    from raylib.store.embeddings import Shelf

    padded: list[int] = []
    forward = type(encoder).forward

    def counted(tensors: Any) -> Any:
        counts = encoder.token_counts(tensors)
        padded.append(len(counts) * int(counts.max()))
        return forward(encoder, tensors)

    def once() -> tuple[Any, list[int]]:
        padded.clear()
        encoder.forward = counted
        plan = Plan(encoder)
        keys = plan.add(source(), encoder.context(None, role))
        with tempfile.TemporaryDirectory(dir=root) as folder:
            shelf = Shelf(folder, encoder.fingerprint)
            encode_locally(encoder, plan.batches(limits), plan.sources, shelf)
            shelf.refresh()
            return list(shelf.get(keys)), list(padded)

    return Way(name, once)


def text_case(root: str, n: int) -> tuple[str, list[Way], int]:
    """Against sentence-transformers' `encode`, and the loop in the order of the data that other wrappers have."""
    import datasets
    from sentence_transformers import SentenceTransformer

    from raylib.evaluate.batching import BatchLimits
    from raylib.evaluate.contents import Source
    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve

    build_text_model(Path(root) / "text")
    contents = texts(n)
    model = SentenceTransformer(str(Path(root) / "text"), device="cpu")
    encoder: Any = resolve(ModelSpec(str(Path(root) / "text"), device="cpu"))
    encoder.load()
    lengths = encoder.token_counts(encoder.preprocess({"text": contents}, encoder.context(None, "document")))

    def padded_of(order: np.ndarray) -> list[int]:
        batches = [lengths[order[i : i + 32]] for i in range(0, n, 32)]
        return [len(batch) * int(batch.max()) for batch in batches]

    def in_order() -> tuple[Any, list[int]]:
        parts = [model.encode(contents[i : i + 32], batch_size=32) for i in range(0, n, 32)]
        return np.concatenate(parts), padded_of(np.arange(n))

    def sorted_globally() -> tuple[Any, list[int]]:
        characters = np.array([-len(text) for text in contents])
        return model.encode(contents, batch_size=32), padded_of(np.argsort(characters, kind="stable"))

    def source() -> Source:
        return Source("benchmark", [str(i) for i in range(n)], datasets.Dataset.from_dict({"text": contents}))

    ways = [
        Way("batches of 32 in the data's order", in_order),
        Way("sentence-transformers `encode`", sorted_globally),
        raylib_way("raylib, 32 contents", encoder, source, "document", BatchLimits(32), root),
        raylib_way("raylib, 4,096 tokens", encoder, source, "document", BatchLimits.of(None, 4096), root),
    ]
    return f"{n} texts", ways, int(lengths.sum())


def page_case(root: str, n: int) -> tuple[str, list[Way], int]:
    """Against the loop of MTEB's ColQwen wrapper: colpali-engine's processor and model on batches in order."""
    import datasets
    import torch
    from colpali_engine.models import ColQwen2_5, ColQwen2_5_Processor

    from raylib.evaluate.batching import BatchLimits
    from raylib.evaluate.contents import Source, decode_image
    from raylib.models.protocol import ModelSpec
    from raylib.models.registry import resolve

    place = str(Path(root) / "pages")
    build_qwen(Path(place))
    encoded = pages(n)
    model: Any = ColQwen2_5.from_pretrained(place).eval()
    processor: Any = ColQwen2_5_Processor.from_pretrained(place)
    encoder: Any = resolve(ModelSpec(place, device="cpu"))
    encoder.load()
    real = 0

    def in_order() -> tuple[Any, list[int]]:
        nonlocal real
        vectors, padded, real = [], [], 0
        for first in range(0, n, 8):
            inputs = processor.process_images([decode_image(page) for page in encoded[first : first + 8]])
            with torch.inference_mode():
                model.rope_deltas = None
                found = model(**inputs)
            mask = inputs["attention_mask"].bool()
            padded.append(mask.numel())
            real += int(mask.sum())
            vectors += [tokens[keep].numpy() for tokens, keep in zip(found, mask, strict=True)]
        return vectors, padded

    def source() -> Source:
        cells = [{"bytes": page, "path": None} for page in encoded]
        return Source("benchmark", [str(i) for i in range(n)], images=datasets.Dataset.from_dict({"image": cells}))

    ways = [
        Way("colpali-engine, batches of 8 in the data's order", in_order),
        raylib_way("raylib, 8 contents", encoder, source, "document", BatchLimits(8), root),
        raylib_way("raylib, 2,048 tokens", encoder, source, "document", BatchLimits.of(None, 2048), root),
    ]
    in_order()
    return f"{n} pages", ways, real


if __name__ == "__main__":
    sys.exit(main())
