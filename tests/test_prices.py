"""Prices of nodes: the packaged table, a table of one's own, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from raylib.errors import UserError
from raylib.prices import read_prices, usd_per_million


def test_the_packaged_table_has_cpu_and_gpu_nodes_of_three_providers():
    prices = read_prices()
    assert prices["g6.xlarge"] == 0.8048 and prices["c7i.xlarge"] == 0.1785  # as AWS publishes them for us-east-1
    assert {"g2-standard-4", "Standard_NC24ads_A100_v4", "p5.48xlarge"} <= prices.keys()
    assert all(0.05 < price < 100 for price in prices.values())


def test_a_table_of_ones_own_takes_its_place(tmp_path: Path):
    path = tmp_path / "prices.yaml"
    path.write_text("our-box: 2\nc7i.xlarge: 0.5\n")
    assert read_prices(str(path)) == {"our-box": 2.0, "c7i.xlarge": 0.5}


def test_price_of_a_million():
    # an hour of 3.60 USD makes 0.001 USD per second; a million at 50 per second take 20,000 seconds
    assert usd_per_million(3.6, 50.0) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds nothing"),
        ("- a\n- b\n", "holds list"),
        ("a: [1\n", "is no YAML"),
        ("a: free\n", "has 'free' for a"),
        ("a: 0\n", "has 0 for a"),
        ("a: -1\n", "has -1 for a"),
        ("a: .nan\n", "has nan for a"),
        ("a: .inf\n", "has inf for a"),
        ("a: true\n", "has True for a"),
        ("7: 1\n", "has 7 for a node type"),
    ],
)
def test_what_is_no_price_is_refused(tmp_path: Path, text: str, told: str):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"prices.yaml {told}.*g6.xlarge: 0.8048"):
        read_prices(str(path))


def test_a_table_that_is_not_there():
    with pytest.raises(UserError, match=r"nowhere.yaml cannot be read.*--price-table"):
        read_prices("nowhere.yaml")
