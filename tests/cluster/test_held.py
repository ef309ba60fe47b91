"""What nodes say they are, and what workers hold of them; GPU memory, where there are GPUs. Starts no Ray."""

from __future__ import annotations

import pytest

from raylib.cluster import metrics
from raylib.cluster.held import held
from raylib.cluster.metrics import Meter
from raylib.cluster.session import Workers
from raylib.timeline import Held, NodeKind, Stage


def node(cpus: float, gpus: float = 0.0, alive: bool = True, labels: dict[str, str] | None = None, own: str = ""):
    shown = {"CPU": cpus, "memory": 1e9, "object_store_memory": 1e9, "node:10.0.0.1": 1.0}
    shown |= {own: 1.0, "accelerator_type:A10G": 1.0} if own else {}
    return {"Alive": alive, "Labels": labels or {}, "Resources": shown | ({"GPU": gpus} if gpus else {})}


NODES = [
    node(0, labels={"ray.io/node-group": "head"}),
    node(16, 1, labels={"raylib.io/node-type": "g6e.4xlarge"}),
    node(16, 1, labels={"raylib.io/node-type": "g6e.4xlarge", "raylib.io/market": "spot"}),
    node(16, 1, alive=False, labels={"raylib.io/node-type": "g6e.4xlarge"}),
    node(15, labels={"node.kubernetes.io/instance-type": "m7i.4xlarge"}),
    node(8, own="g5.2xlarge"),
]


def test_nodes_that_are_alike_are_counted_together(monkeypatch):
    monkeypatch.setattr("raylib.cluster.held.ray.nodes", lambda: NODES)
    found = held(Workers(2, 1, 0.5, 4), 2)
    assert (found.workers, found.gpus, found.cpus) == (2, 1.0, 8.0)
    assert set(found.nodes) == {
        NodeKind((), 1, 0.0, 0.0),
        NodeKind(("g6e.4xlarge",), 2, 1.0, 16.0),
        NodeKind(("m7i.4xlarge",), 1, 0.0, 15.0),
        NodeKind(("g5.2xlarge",), 1, 0.0, 8.0),
    }
    usd, at = Stage("encode", 0.0, 3600.0, found).usd({"g6e.4xlarge": 3.0})
    assert (usd, at) == (3.0, "g6e.4xlarge at $3 an hour"), "one of two GPUs, for an hour"


def test_workers_without_a_gpu_hold_none(monkeypatch):
    monkeypatch.setattr("raylib.cluster.held.ray.nodes", list)
    assert held(Workers(3, 1, None, 2), 3) == Held(3, 0.0, 6.0)


@pytest.mark.parametrize(("devices", "told"), [(0, []), (2, [300.0])])
def test_gpu_memory_is_that_of_all_devices_of_the_process(monkeypatch, devices, told):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 100.0 * (device + 1))
    seen = []

    class Gauge:
        def set(self, value: float, tags: dict[str, str]) -> None:
            seen.append(value)
            assert tags == {"raylib_job": "j", "model": "m", "stage": "encode"}

    monkeypatch.setattr(metrics, "_metric", {"raylib_gpu_memory_bytes": Gauge()}.__getitem__)
    Meter("j", "m", "encode").gpu_memory()
    assert seen == told
