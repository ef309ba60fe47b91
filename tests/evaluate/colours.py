"""Pages of one colour in ViDoRe's layouts, and questions whose answers follow from `made.Letters` by hand.

To "aaa" the red page is nearest (cosine 0.89), the white one next (0.63), the green and blue ones tie (0.22).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from raylib import storage
from raylib.tasks.hub_layout import HubFolder
from raylib.tasks.synthetic import EXAMPLES

V1, V2 = EXAMPLES["v1"][0], EXAMPLES["v2"][0]
LANGUAGES = ("english", "french", "german", "spanish")


def page(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(stream, "PNG")
    return stream.getvalue()


PAGES = [page(colour) for colour in ("#ff0000", "#00ff00", "#0000ff", "#ffffff")]
QUERIES = ["aaa", "bbb", "ccc"]
RELEVANT = {0: 0, 1: 1, 2: 2}
"""Query → page."""


def write_v1(root: Any, pages: Sequence[Any] = PAGES, queries=QUERIES, relevant: Mapping[int, int] = RELEVANT) -> str:
    """One language → the name of the task that reads it."""
    out = HubFolder(storage.join(str(root), EXAMPLES["v1"][1]))
    _write(out, pages, {"query-id": list(range(len(queries))), "query": list(queries)}, relevant)
    return V1


def write_v2(root: Any, pages: Sequence[Any] = PAGES, queries=QUERIES, relevant: Mapping[int, int] = RELEVANT) -> str:
    """The same in four languages over one corpus: a query's text begins with its language, in capitals."""
    asked = [(language, i) for language in LANGUAGES for i in range(len(queries))]
    columns = {
        "query-id": list(range(len(asked))),
        "query": [f"{language.upper()} {queries[i]}" for language, i in asked],
        "language": [language for language, _ in asked],
    }
    judged = {n: relevant[i] for n, (_, i) in enumerate(asked) if i in relevant}
    _write(HubFolder(storage.join(str(root), EXAMPLES["v2"][1])), pages, columns, judged)
    return V2


def _write(out: HubFolder, pages: Sequence[Any], queries: Mapping[str, list], relevant: Mapping[int, int]) -> None:
    out.add("queries", queries)
    out.add("corpus", {"corpus-id": list(range(len(pages))), "image": list(pages)})
    qrels = {"query-id": list(relevant), "corpus-id": list(relevant.values()), "score": [1] * len(relevant)}
    out.add("qrels", qrels)
    out.finish("# Pages of one colour")
