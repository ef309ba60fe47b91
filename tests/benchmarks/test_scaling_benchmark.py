"""The model on paper and the table of benchmarks/scaling.py."""

import pytest

from benchmarks.scaling_paper import Costs, Fleet, first_limit, limits, per_node
from benchmarks.scaling_report import table
from benchmarks.scaling_side import steady_rate

COSTS = Costs(
    driver_seconds=0.0002,
    head_seconds=0.0001,
    prepare_seconds=0.06,
    prepared_bytes=2.5e6,
    read_bytes=1e6,
    written_bytes=264e3,
    read_requests=1.0,
    written_requests=1 / 100,
)


def test_what_all_share():
    """By hand, at ten pages a second: a GPU takes 2 ms of the driver and 1 ms of the head a second, 10 reads, 0.1
    writes."""
    found = limits(COSTS, Fleet(driver_cores=1, head_cores=8, bucket_reads=5500, bucket_writes=3500))
    assert found == pytest.approx(
        {
            "driver process": 500,
            "head node": 8000,
            "bucket, reads of one prefix": 550,
            "bucket, writes of one prefix": 35_000,
        }
    )
    assert first_limit(found) == ("driver process", pytest.approx(500))


def test_what_a_node_has_for_itself():
    """By hand: 80 pages a second on eight GPUs; 80 × 0.06 s of 192 cores; 80 × 3.764 MB of 12.5 GB/s."""
    found = per_node(COSTS, Fleet(cores_per_gpu=24, node_network_bytes=12.5e9, object_store_bytes=10e9))
    assert found["CPU cores that prepare"] == pytest.approx(4.8 / 192)
    assert found["network, prepared elsewhere"] == pytest.approx(80 * 3.764e6 / 12.5e9)
    assert found["network, prepared on the node"] == pytest.approx(80 * 1.264e6 / 12.5e9)
    assert found["object store, copies"] == pytest.approx(80 * 5e6 / 10e9)


def test_the_table_says_what_was_measured():
    row = {"stage": "pool", "workers": 4, "seconds": 33.0, "contents a second": 190.4, "efficiency": 0.97}
    row |= {"most possible": 200.0, "efficiency min to max": [0.96, 0.98]}
    record = {
        "date": "2026-11-26",
        "processor": "a processor",
        "ray": "2.60.0",
        "contents": 6400,
        "seconds a content": 0.02,
        "rounds": 2,
        "minutes": 10,
        "load average": {"start": [0.1], "end": [0.2]},
        "rows": [row],
        "costs": vars(COSTS),
    }
    lines = table(record)
    assert "| pool | 4 | 190.4 | 200 | 0.970 (0.960 to 0.980) | 33.0 |" in lines
    assert lines[-1].endswith("the driver process comes first, at 500 GPUs.")


def test_the_rate_counts_from_where_the_last_worker_has_begun():
    """By hand: b begins at 2; of 10 contents each, three forwards begin from then on, and the stage ends at 5."""
    forwards = [("a", 0.0, 10), ("a", 1.0, 10), ("b", 2.0, 10), ("a", 2.5, 10), ("b", 3.5, 10)]
    assert steady_rate(forwards, 2, 5.0) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="2 of 3 workers had work"):
        steady_rate(forwards, 3, 5.0)
