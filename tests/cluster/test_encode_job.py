"""`raylib encode` on Ray: the vectors of --local to the last bit, and every distinct content encoded once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raylib
from tests.cluster import watched_toys
from tests.encode.made import png, write_pdf

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    """Nine contents, eight of them distinct and one of those broken, of every way in which contents travel."""
    folder = tmp_path_factory.mktemp("in")
    (folder / "notes.txt").write_text("one\ntwo\none\n")
    (folder / "lime.png").write_bytes(png("lime"))
    write_pdf(folder / "doc.pdf", ["red", "blue"])
    table = {"id": ["p", "q"], "image": pa.array([png("navy"), png("red")[:30]], pa.binary())}
    pq.write_table(pa.table(table), folder / "rows.parquet")
    (folder / "both.jsonl").write_text('{"id": "b", "text": "three", "image": "lime.png"}')
    return folder


@pytest.mark.parametrize("shipping", ["path", "value"], indirect=True)
def test_vectors_on_ray_are_those_of_local(shipping, cluster, watched, inputs, tmp_path):
    settings = {"input": str(inputs), "batch_size": 2, "allow_errors": 1, "quiet": True}
    model = "tests.cluster.watched_toys:watched"
    local = raylib.encode(model, output=str(tmp_path / "local"), local=True, **settings)
    watched_toys.forget("watched")

    found = raylib.encode(model, output=str(tmp_path / "ray"), workers=2, **settings)

    assert found.ok and [content.item_id for content in found.bad] == ["q"]
    assert pq.read_table(found.files["embeddings"]).equals(pq.read_table(local.files["embeddings"]))
    encoded = [digest for _, digest in watched_toys.forwards("watched")]
    assert len(encoded) == len(set(encoded)) == found.counts["encoded"] == 7

    again = raylib.encode(model, output=str(tmp_path / "ray"), workers=2, overwrite=True, **settings)
    assert again.counts["encoded"] == 0 and len(watched_toys.forwards("watched")) == 7
