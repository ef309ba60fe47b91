"""The Grafana dashboard draws every metric there is, and none that there is not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from raylib.cluster.metrics import COUNTERS, GAUGES, HISTOGRAMS, METRICS, TAGS

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana-raylib.json"
OF_RAY = {"le", "NodeAddress", "WorkerId"}
"""Labels that Ray and histograms add."""
EXPORTED = {
    **{f"ray_{name}_total": name for name in COUNTERS},
    **{f"ray_{name}_bucket": name for name in HISTOGRAMS},
    **{f"ray_{name}": name for name in GAUGES},
}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())


def expressions(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_every_metric_is_drawn_and_every_name_is_a_metric(dashboard):
    drawn = [name for expression in expressions(dashboard) for name in re.findall(r"ray_\w+", expression)]
    assert set(drawn) <= EXPORTED.keys()
    assert {EXPORTED[name] for name in drawn} == set(METRICS)


def test_labels_and_variables_are_there(dashboard):
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    for expression in expressions(dashboard):
        selected = re.findall(r"(\w+)=~", expression)
        grouped = [label for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(", ")]
        assert {*selected, *grouped} <= {*TAGS, *OF_RAY} and set(TAGS) <= set(selected)
        used = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval"}
        assert used <= variables.keys()
        assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")
    for tag, name in zip(TAGS, ("job", "model", "stage"), strict=True):
        metric, label = re.findall(r"\w+", variables[name]["definition"].removeprefix("label_values"))
        assert metric in EXPORTED and label == tag
    for panel in dashboard["panels"]:
        labels = {name for target in panel["targets"] for name in re.findall(r"{{(\w+)}}", target["legendFormat"])}
        assert labels <= {*TAGS, *OF_RAY}


def test_panels_do_not_overlap(dashboard):
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for p in places for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
