"""The tables of `scaling.py`."""

from __future__ import annotations

from typing import Any

from benchmarks.common import markdown_table
from benchmarks.scaling_paper import Costs, Fleet, first_limit, limits, per_node


def table(record: dict[str, Any]) -> list[str]:
    columns = ["encode stage", "workers", "contents/s", "most possible", "efficiency (min to max)", "seconds, whole"]
    rows = []
    for row in record["rows"]:
        low, high = row["efficiency min to max"]
        cells = [row["stage"], str(row["workers"]), f"{row['contents a second']:.1f}", f"{row['most possible']:.0f}"]
        rows.append([*cells, f"{row['efficiency']:.3f} ({low:.3f} to {high:.3f})", f"{row['seconds']:.1f}"])
    load = record["load average"]
    note = (
        f"{record['date']}; {record['contents']:,} contents of {1000 * record['seconds a content']:.0f} ms; Ray "
        f"{record['ray']}, two cores of {record['processor']}; {record['rounds']} rounds, {record['minutes']} minutes; "
        f"load average {load['start'][0]} at the start, {load['end'][0]} at the end."
    )
    return [*markdown_table(columns, rows), "", note, "", *paper(Costs(**record["costs"]), Fleet())]


def paper(costs: Costs, fleet: Fleet) -> list[str]:
    """What 64 GPUs would wait for."""
    shared, inside = limits(costs, fleet), per_node(costs, fleet)
    measured = [
        ["driver process, CPU", f"{1000 * costs.driver_seconds:.2f} ms"],
        ["head's `gcs_server` and `raylet`, CPU", f"{1000 * costs.head_seconds:.2f} ms"],
        ["decode and prepare, CPU", f"{1000 * costs.prepare_seconds:.0f} ms"],
        ["prepared, through the object store", f"{costs.prepared_bytes / 1e6:.2f} MB"],
        ["page read from the bucket", f"{costs.read_bytes / 1e6:.2f} MB, {costs.read_requests:g} request"],
        [
            "vectors written to the bucket",
            f"{costs.written_bytes / 1e3:.0f} kB, 1/{1 / costs.written_requests:.0f} request",
        ],
    ]
    all_share = [[name, f"{gpus:,.0f}"] for name, gpus in sorted(shared.items(), key=lambda item: item[1])]
    each = [[name, f"{100 * share:.0f} %"] for name, share in sorted(inside.items(), key=lambda item: -item[1])]
    name, gpus = first_limit(shared)
    verdict = (
        f"64 GPUs at {fleet.pages_per_gpu_second:g} pages a second each: of what all share, the {name} comes first, at "
        f"{gpus:,.0f} GPUs."
    )
    return [
        *markdown_table(["a page costs", "measured"], measured),
        "",
        *markdown_table(["shared by all", "is busy all the time at so many GPUs"], all_share),
        "",
        *markdown_table([f"of each node with {fleet.gpus_per_node} GPUs", "in use"], each),
        "",
        verdict,
    ]
