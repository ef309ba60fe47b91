"""What a run leaves: bench.md and bench.html, of results made by hand."""

from __future__ import annotations

import base64
import random
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raylib.bench.markdown import render_markdown
from raylib.bench.page import render_html
from raylib.bench.records import Parity, Result
from raylib.bench.report import write_report
from raylib.bench.result_files import read_results
from raylib.bench.table import build_rows
from tests.bench.made_results import result, round_of

TEXT_ONLY = "images: embed_anything's ORT classes take text only"


def some() -> list[Result]:
    made = []
    for name, precision, ms, cosine in (("torch", "fp32", 20, 1.0), ("openvino", "int8", 5, 0.99955)):
        for batch in (1, 8):
            rounds = [round_of(ms * batch * f, 1000 / ms / f, ms * batch) for f in (1, 1.25, 0.8)]
            made.append(result(name, precision, rounds, batch=batch, ndcg_at_5=0.85, parity=Parity(cosine, 0.0, 9)))
    made.append(result("onnx", rounds=[round_of(40, 20)], load=0.5))
    made.append(result("ort-rust", status="hole", reason=TEXT_ONLY, tower="image", tokens=None, machine={}))
    made.append(result("candle", status="refused", reason="not PyTorch's", parity=Parity(0.923, 0.5, 24), batch=8))
    made.append(result("onnx", status="failed", reason="killed after 600 s", batch=8))
    return made


def table_under(text: str, title: str) -> dict[str, list[str]]:
    """First cell → the others, of the table below a title."""
    lines = text.split(f"### {title}\n")[1].split("\n###")[0].split("\n## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    assert len({len(line) for line in cells if not line[0].startswith(":")}) == 1
    return {line[0]: line[1:] for line in cells}


def test_tables_of_each_batch():
    text = render_markdown(build_rows(some(), {"c7i.xlarge": 0.36}))
    table = table_under(text, "128 tokens, batch 8")
    assert table["torch fp32"][:3] == ["50.0 [40.0, 62.5]", "1.00", "160 [128, 200]"]
    # four times torch's 50 per second; 0.36 USD an hour are 0.0001 a second, over 200 per second
    assert table["openvino int8"] == [
        *("**200** [160, 250]", "4.00", "**40.0** [32.0, 50.0]", "**80.0** [64.0, 100]", "–"),
        *("**40.0** [40.0, 40.0]", "4.00", "0.99955", "0.0000", "**0.500**"),
    ]
    assert table["candle fp32"][:2] == ["refused", "–"] and table["onnx fp32"][:2] == ["failed", "–"]
    overview = table_under(text, "Embeddings per second")
    assert overview["Runtime"] == ["128 tokens, batch 1", "128 tokens, batch 8"]
    assert overview["openvino int8"] == ["**200**", "**200**"] and overview["candle fp32"] == ["–", "refused"]
    assert "openvino int8 gives 200 embeddings per second" in text.split("### Embeddings per second")[0]


def test_holes_refusals_and_failures_are_named():
    text = render_markdown(build_rows(some(), None))
    assert f"- **Cannot run: ort-rust fp32**: {TEXT_ONLY}" in text
    assert (
        "- **Refused: candle fp32**: not PyTorch's (lowest cosine 0.92300, largest difference 0.5, 24 contents)" in text
    )
    assert "- **Failed: onnx fp32, 128 tokens, batch 8**: killed after 600 s" in text
    assert "| 0 |" not in text and "| 0.00 |" not in text


def test_load_has_a_table_of_its_own():
    table = table_under(render_markdown(build_rows(some(), None)), "Under load")
    told = "128 tokens, batch 1, Poisson arrivals at 0.5 of what one client had"
    assert table["onnx fp32"] == [told, "20.0", "40.0", "80.0", "–", "10.0"]


def test_quality_loading_and_memory_over_all_cells():
    made = [
        result(rounds=[round_of(1, 1, load_s=s, peak_rss_mb=m)], batch=b, parity=Parity(c, d, 1), ndcg_at_5=0.85)
        for b, s, m, c, d in ((1, 1.0, 900, 0.9999999, 1e-7), (8, 3.0, 700, 0.9999995, 3e-7), (32, 2.0, 800, 1, 0))
    ]
    table = table_under(render_markdown(build_rows(made, None)), "Quality, loading and memory")
    row = ["0.9999995", "3.0e-07", "0.8500", "0.0000", "2.00", "0.250", "900", "–", "143"]
    assert table["torch fp32"] == row


def test_names_cannot_break_the_tables():
    name = "a|b`<script>alert(1)</script>\n## x"
    made = [result(name, rounds=[round_of(1, 1)], model=name), result(name, status="failed", reason=name, batch=8)]
    text = render_markdown(build_rows(made, None))
    assert "<script>" not in text and "\n## x" not in text and "a\\|b\\`&lt;script&gt;" in text
    page = render_html(build_rows(made, None), {})
    assert "<script>alert" not in page and page.count("<script>") == 1


class Page(HTMLParser):
    """Rows of the table with their attributes and words; list items; sources of images; what else the page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str | None]] = []
        self.cells: list[list[dict[str, str | None]]] = []
        self.words: list[str] = []
        self.items: list[dict[str, str | None]] = []
        self.images: list[str] = []
        self.selects: dict[str, list[str]] = {}
        self.loads: list[str] = []
        self.open: list[str] = []
        self.heads = 0
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        if tag not in ("meta", "input", "img", "br", "wbr", "link"):
            self.open.append(tag)
        if tag == "tr" and "data-row" in known:
            self.rows.append(known)
            self.cells.append([])
            self.words.append("")
        elif tag == "td":
            self.cells[-1].append(known)
        elif tag == "li" and "data-row" in known:
            self.items.append(known)
        elif tag == "th" and "thead" in self.open:
            self.heads += 1
        elif tag == "select":
            self.selects[str(known["data-filter"])] = []
        elif tag == "option" and known["value"]:
            list(self.selects.values())[-1].append(known["value"])
        elif tag == "img":
            self.images.append(str(known["src"]))
        self.loads += [str(known[name]) for name in ("href", "src", "action") if name in known]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.words and "tbody" in self.open:
            self.words[-1] += data


def test_the_page_has_every_cell_with_what_the_filters_need():
    rows = build_rows(some(), {"c7i.xlarge": 0.36})
    page = Page(render_html(rows, {"a figure": b"png"}))
    assert page.open == [] and len(page.rows) == len(rows) == 8
    assert {len(cells) + 1 for cells in page.cells} == {page.heads}
    found = [(r["data-runtime"], r["data-tokens"], r["data-batch"], r["data-load"], r["data-tower"]) for r in page.rows]
    assert found == [
        *(("torch", "128", "1", "1 client", "text"), ("openvino", "128", "1", "1 client", "text")),
        *(("onnx", "128", "1", "arrivals at 0.5", "text"), ("torch", "128", "8", "1 client", "text")),
        *(("onnx", "128", "8", "1 client", "text"), ("openvino", "128", "8", "1 client", "text")),
        *(("candle", "128", "8", "1 client", "text"), ("ort-rust", "–", "1", "1 client", "image")),
    ]
    assert page.selects == {
        "tower": ["image", "text"],
        "tokens": ["128", "–"],
        "batch": ["1", "8"],
        "load": ["1 client", "arrivals at 0.5"],
        "runtime": ["torch", "onnx", "ort-rust", "openvino", "candle"],
        "precision": ["fp32", "int8"],
        "node": ["c7i.xlarge", "–"],
    }
    filters = {f"data-{name}" for name in page.selects}
    assert all(filters <= row.keys() for row in [*page.rows, *page.items])


def test_the_page_sorts_by_numbers_and_says_why_there_are_none():
    page = Page(render_html(build_rows(some(), {"c7i.xlarge": 0.36}), {}))
    values = [cells[0]["data-value"] for cells in page.cells]
    assert values == ["50.0", "200.0", "20.0", "50.0", "", "200.0", "", ""]
    prices = [cells[-1]["data-value"] for cells in page.cells]
    assert [float(p) for p in prices if p] == pytest.approx([2.0, 0.5, 5.0, 2.0, 0.5])
    assert "Cannot run" in page.words[7] and TEXT_ONLY in page.words[7]
    assert "Refused" in page.words[6] and "lowest cosine 0.92300" in page.words[6]
    assert "Failed" in page.words[4] and "killed after 600 s" in page.words[4]


def test_the_page_says_what_is_fastest_at_each_batch():
    page = Page(render_html(build_rows(some(), None), {}))
    assert [(i["data-batch"], i["data-runtime"]) for i in page.items] == [("1", "openvino"), ("8", "openvino")]
    assert "128 tokens, batch 8: openvino int8 gives 200 embeddings per second" in page.text


def test_the_page_loads_nothing():
    text = render_html(build_rows(some(), None), {"Throughput": b"\x89PNG one", "Load": b"two"})
    page = Page(text)
    assert [base64.b64decode(i.removeprefix("data:image/png;base64,")) for i in page.images] == [b"\x89PNG one", b"two"]
    assert all(load.startswith("data:") for load in page.loads) and "http" not in text.replace("http-equiv", "")


def test_a_report_is_all_files_and_the_results_come_back(tmp_path: Path):
    write_report(some(), str(tmp_path), csv=f"{tmp_path}/tables/out.csv", prices={"c7i.xlarge": 0.36})
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {
        *("bench.md", "bench.html", "bench.png", "bench-load.png", "bench.parquet", "tables/out.csv"),
        *(f"results/BAAI__bge-m3/{name}.json" for name in ("torch", "openvino", "onnx", "ort-rust", "candle")),
    }
    assert sorted(map(str, read_results(str(tmp_path)))) == sorted(map(str, some()))
    assert "![bench.png](bench.png)" in (tmp_path / "bench.md").read_text()
    drawn = base64.b64encode((tmp_path / "bench.png").read_bytes()).decode()
    assert drawn in (tmp_path / "bench.html").read_text()
    assert pq.read_table(tmp_path / "bench.parquet").num_rows == 4 * 3 + 1 + 3


def test_the_same_results_make_the_same_files_in_whatever_order(tmp_path: Path):
    mixed = some()
    random.Random(3).shuffle(mixed)
    for folder, results in (("a", some()), ("b", mixed)):
        write_report(results, f"{tmp_path}/{folder}", csv=f"{tmp_path}/{folder}/out.csv", prices=None)
    for name in ("bench.md", "bench.html", "bench.png", "bench-load.png", "bench.parquet", "out.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_figures_of_results_that_are_gone_do_not_stay(tmp_path: Path):
    write_report(some(), str(tmp_path), csv=None, prices=None)
    write_report([result(status="failed", reason="x")], str(tmp_path), csv=None, prices=None)
    assert not (tmp_path / "bench.png").exists() and not (tmp_path / "bench-load.png").exists()
    assert "bench.png" not in (tmp_path / "bench.md").read_text()


def test_no_results_make_a_report_too(tmp_path: Path):
    write_report([], str(tmp_path), csv=None, prices=None)
    assert "There are no results yet." in (tmp_path / "bench.md").read_text()
    assert "There are no results yet." in Page((tmp_path / "bench.html").read_text()).text


def test_an_object_store_takes_a_report():
    write_report(some(), "memory://bench-report", csv="memory://bench-report/out.csv", prices=None)
    assert len(read_results("memory://bench-report")) == 8
