"""The report: what it says, what it warns of, and that names cannot do anything in it."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from raylib.probe.findings import findings, within
from raylib.probe.report import print_summary, render_html, write_report
from raylib.probe.results import GroupScores, Scores, SplitFacts
from tests.probe.made_results import many, probe, scores

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Tags with their attributes, and the cells of each table's rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data.strip() + " "


def chosen():
    results = many()
    return results, next(r for r in results if r.name == "query_token_layer36")


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    results, best = chosen()
    write_report(str(tmp_path), results, best, {}, [], num_layers=48)
    assert {p.name for p in tmp_path.iterdir()} == {"overview.png", "overview.svg", "report.html"}
    text = (tmp_path / "report.html").read_text()
    assert "http:" not in text and "https:" not in text and "url(" not in text.replace("url(#", "")
    links = [
        v for _, attrs in Page(text).tags for k, v in attrs.items() if k in ("src", "href", "xlink:href", "action")
    ]
    assert links and all(str(link).startswith("#") for link in links)
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    assert text.count("<svg") == 2 and "currentColor" in text and "#1b1d21;" not in text.split("</style>", 1)[1]


def test_the_table_has_all_probes_and_marks_the_best():
    results, best = chosen()
    text = render_html(results, best, {"have no label": 1200, "of none": 0}, ["a <note>"], 48)
    page = Page(text)
    table = page.rows[: len(results) + 1]
    assert [cell.strip() for cell in table[0]] == [
        "Probe",
        "Test AUROC",
        "Validation",
        "Train",
        "Accuracy",
        "F1",
        "Test rows",
    ]
    assert table[1] == ["vision only ", "0.680 0.640 to 0.710 ", "0.670 ", "0.970 ", "0.750 ", "0.555 ", "8 "]
    marked = [row[0] for row in table if "best by validation" in row[0]]
    assert marked == ["query token, layer 36 best by validation "]
    assert ["MathVista ", "– all 3 rows have the label 0 ", "3 ", "0 "] in page.rows
    assert "<li>1,200 rows have no label</li>" in text and "of none" not in text and "a &lt;note&gt;" in text
    assert "split by image, seed 42: 30 to train, 4 to choose, 8 to test" in text


def test_names_from_data_are_text():
    result = probe(
        "query_token/layer_1",
        model_name=HOSTILE,
        target=HOSTILE,
        by={HOSTILE: [GroupScores(HOSTILE, 4, 2, 0.5, None, HOSTILE)]},
        notes=[HOSTILE],
    )
    text = render_html([result], result, {HOSTILE: 3}, [HOSTILE])
    tags = Page(text).tags
    assert [tag for tag, _ in tags].count("script") == 1 and "img" not in dict(tags)
    assert not any(name.startswith("on") for _, attrs in tags for name in attrs)
    stream = io.StringIO()
    plain = replace(result, model_name="[red]m[/red]")
    print_summary([plain], plain, Console(file=stream, width=200))
    assert "[red]m[/red]" in stream.getvalue()


def test_the_terminal_has_the_table_and_the_findings():
    results, best = chosen()
    stream = io.StringIO()
    print_summary(results, best, Console(file=stream, width=160))
    out = stream.getvalue()
    assert re.search(r"query token, layer 36 · best +0\.930 +0\.890 to 0\.960 +0\.920 +0\.970 +0\.750 +0\.555", out)
    assert "chosen by its validation AUROC" in out and "! Over all test rows" in out


def test_within_weighs_by_pairs():
    groups = [GroupScores("a", 5, 2, 0.9, None), GroupScores("b", 5, 1, 0.6, None), GroupScores("c", 9, 0, None, None)]
    assert within(groups) == pytest.approx((0.9 * 6 + 0.6 * 4) / 10)
    assert within(groups[2:]) is None


def sound() -> Scores:
    return Scores(1000, 200, 0.9, (0.87, 0.93), 0.9, 0.8, 0.7, 0.75, [[700, 100], [0, 200]])


GOOD = [GroupScores("AMBER", 500, 100, 0.89, (0.85, 0.92)), GroupScores("POPE", 500, 100, 0.9, (0.86, 0.93))]


def test_a_sound_probe_has_no_warning():
    best = probe("query_token/layer_1", train=replace(sound(), auroc=0.95), test=sound(), by={"source": GOOD})
    assert findings([best], best) == []
    assert "Before you believe it" not in render_html([best], best, {}, [])


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"split": SplitFacts("random", 42, 800, 0, 1000, 733, 900)}, "training row shows too (random split)"),
        (
            {"by": {"source": [replace(g, auroc=0.8, interval=(0.7, 0.9)) for g in GOOD]}},
            "0.900, and 0.800 within sources",
        ),
        (
            {"by": {"source": [*GOOD, GroupScores("HallusionBench", 60, 9, 0.645, (0.5, 0.8))]}},
            "does not hold for: HallusionBench 0.645",
        ),
        (
            {"by": {"domain": [GroupScores("OCR", 60, 0, None, None, "one class")]}},
            "1 of 1 groups by domain are of one",
        ),
        ({"train": replace(sound(), auroc=0.999)}, None),
        (
            {"train": replace(sound(), auroc=1.0), "test": replace(sound(), auroc=0.8)},
            "AUROC 1.000 there, 0.800 on the",
        ),
        ({"validation": None}, "No rows were held out"),
        (
            {"test": replace(sound(), auroc=0.52, interval=(0.45, 0.6)), "train": replace(sound(), auroc=0.6)},
            "holds 0.5",
        ),
        ({"test": replace(sound(), positives=12)}, "The rarer class has 12 test rows"),
    ],
)
def test_what_is_warned_of(changed, told):
    made = {
        "train": replace(sound(), auroc=0.95),
        "test": sound(),
        "by": {} if "test" in changed else {"source": GOOD},
        **changed,
    }
    best = probe("query_token/layer_1", **made)
    found = findings([best], best)
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_without_validation_the_page_says_the_test_chose():
    best = probe("vision_only", validation=None, test=scores(0.7))
    text = render_html([best], best, {}, [])
    assert "Before you believe it" in text and "<li>No rows were held out to choose by" in text
    assert "best by the test rows" in text and '<button type="button">Validation</button>' not in text
