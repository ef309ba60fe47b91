"""Tables for programs: bench.parquet with every round, and the CSV in the columns of the harness that this replaces."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from raylib import storage
from raylib.bench.table import MEASURES, Row
from raylib.prices import usd_per_million

if TYPE_CHECKING:
    import pyarrow as pa

OLD_COLUMNS = (
    *("timestamp", "model", "runtime", "language", "concurrency", "qps"),
    *("p50_latency_ms", "p90_latency_ms", "p95_latency_ms", "p99_latency_ms"),
    *("server_cpu_percent", "server_memory_mb", "client_cpu_percent", "client_memory_mb"),
)
"""Of embedding_model_benchmarking. The last four stay empty: there is no server here, and no client."""
_OWN_COLUMNS = (
    *("tower", "runtime_name", "precision", "threads", "batch", "tokens", "load", "status", "reason", "node_type"),
    *("rounds", "contents_per_s", "contents_per_s_low", "contents_per_s_high", "p50_latency_ms_low"),
    *("p50_latency_ms_high", "tensor_in_p50_latency_ms", "cpu_ms_per_call", "cpu_ratio", "throughput_ratio", "load_s"),
    *("first_call_s", "peak_rss_mb", "gpu_mb", "disk_bytes", "cosine", "max_difference", "ndcg_at_5", "ndcg_loss"),
    *("usd_per_million", "errors"),
)
_OLD_RUNTIMES = {
    "torch": "PyTorch",
    "torch-compile": "PyTorch compiled",
    "onnx": "ONNX Runtime",
    "ort-native": "ONNX Runtime",
    "ort-rust": "ONNX Runtime",
    "openvino": "OpenVINO",
    "candle": "Candle",
}


def write_csv(path: str, rows: Sequence[Row]) -> None:
    """One line for each cell, figures as medians over its rounds; what was not measured is an empty field."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, [*OLD_COLUMNS, *_OWN_COLUMNS], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in _csv_line(row).items()} for row in rows)
    storage.write_text(path, stream.getvalue())


def _csv_line(row: Row) -> dict[str, Any]:
    result, cell = row.result, row.result.cell
    speed, p50 = row.measures.get("contents_per_s"), row.measures.get("p50_ms")
    line: dict[str, Any] = {
        "timestamp": _old_time(result.rounds[0].started) if result.rounds else None,
        "model": cell.model,
        "runtime": _OLD_RUNTIMES.get(cell.runtime, cell.runtime),
        "language": result.language[:1].upper() + result.language[1:],
        "concurrency": cell.clients,
        "qps": None if speed is None else _digits(speed.median / cell.batch),
        "tensor_in_p50_latency_ms": _digits(row.median("tensor_in_p50_ms")),
    }
    line |= {f"{p}_latency_ms": _digits(row.median(f"{p}_ms")) for p in ("p50", "p90", "p95", "p99")}
    for name, spread in (("contents_per_s", speed), ("p50_latency_ms", p50)):
        if spread is not None:
            line |= {f"{name}_low": _digits(spread.low), f"{name}_high": _digits(spread.high)}
    names = ("contents_per_s", "cpu_ms_per_call", "load_s", "first_call_s", "peak_rss_mb", "gpu_mb")
    line |= {name: _digits(row.median(name)) for name in names}
    ratios = ("cpu_ratio", "throughput_ratio", "ndcg_loss", "usd_per_million")
    line |= {name: _digits(getattr(row, name)) for name in ratios}
    line |= {name: getattr(cell, name) for name in ("tower", "precision", "threads", "batch", "tokens", "load")}
    line |= {name: getattr(result, name) for name in ("status", "reason", "disk_bytes", "ndcg_at_5")}
    parity = result.parity
    return line | {
        "runtime_name": cell.runtime,
        "node_type": row.node,
        "rounds": len(result.rounds),
        "cosine": None if parity is None else parity.cosine,
        "max_difference": None if parity is None else parity.difference,
        "errors": row.errors if row.measured else None,
    }


def _digits(value: float | None) -> float | None:
    """Six that count: no clock here knows more."""
    return None if value is None else float(f"{value:.6g}")


def _old_time(started: str) -> str:
    """2025-11-26 10:57:03, in UTC; a time that is not ISO 8601 stays as it is."""
    with suppress(ValueError):
        time = datetime.fromisoformat(started)
        return (time.astimezone(UTC) if time.tzinfo else time).strftime("%Y-%m-%d %H:%M:%S")
    return started


def write_parquet(path: str, rows: Sequence[Row], prices: Mapping[str, float]) -> None:
    """One row for each cell and round, `round` from 1; a cell without rounds has one row, its round null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = [line for row in rows for line in _round_lines(row, prices)]
    with storage.atomic_write(path) as stream:
        pq.write_table(pa.Table.from_pylist(lines, _schema()), stream)


def _round_lines(row: Row, prices: Mapping[str, float]) -> list[dict[str, Any]]:
    result, parity = row.result, row.result.parity
    machine = result.machine
    line = {name: getattr(result.cell, name) for name in _CELL}
    line |= {name: getattr(result, name) for name in ("status", "reason", "language", "disk_bytes", "dim", "ndcg_at_5")}
    line |= {
        "cosine": None if parity is None else parity.cosine,
        "max_difference": None if parity is None else parity.difference,
        "parity_contents": None if parity is None else parity.contents,
        **{
            name: None if machine.get(name) is None else str(machine[name])
            for name in ("node_type", "processor", "gpu")
        },
        "machine": json.dumps(machine, sort_keys=True, default=str),
    }
    if not result.rounds:
        return [line]
    lines = []
    for number, one in enumerate(result.rounds, 1):
        told = {name: read(one) for name, read in MEASURES.items()}
        told |= {name: getattr(one, name) for name in ("started", "warm_up", "calls", "seconds", "errors")}
        price = prices.get(row.node) if one.contents_per_s > 0 else None
        usd = None if price is None else usd_per_million(price, one.contents_per_s)
        lines.append(line | told | {"round": number, "usd_per_million": usd})
    return lines


_CELL = ("model", "tower", "runtime", "precision", "threads", "batch", "tokens", "clients", "load")


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = ("model", "tower", "runtime", "precision", "status", "reason", "language", "node_type", "processor", "gpu")
    whole = ("threads", "batch", "tokens", "clients", "disk_bytes", "dim", "parity_contents")
    of_round = ("round", "warm_up", "calls", "errors")
    real = ("load", "cosine", "max_difference", "ndcg_at_5", *MEASURES, "seconds", "usd_per_million")
    fields = [*((n, pa.string()) for n in text), *((n, pa.int64()) for n in (*whole, *of_round))]
    fields += [("started", pa.string()), *((n, pa.float64()) for n in real), ("machine", pa.string())]
    return pa.schema(fields)
