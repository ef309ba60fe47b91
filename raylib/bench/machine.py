"""What a machine is, and what a process takes of it."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from raylib.placement import usable_cpus


def machine_facts(device: str, versions: Mapping[str, str]) -> dict[str, Any]:
    """Processor, cores, memory, GPU where the device is one, and versions: nothing that changes from run to run."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": usable_cpus(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions},
    }
    gpu = _nvidia("name", device) if device.startswith("cuda") else None
    return found | ({"gpu": gpu} if gpu else {})


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            names = [line.partition(":")[2].strip() for line in stream if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def rss_mb() -> float:
    """Memory of this process now; its peak where the system does not tell."""
    return _status_mb("VmRSS")


def peak_rss_mb() -> float:
    """The most memory that this process has had. Of the process itself, and not `ru_maxrss` where that can be avoided:
    in Linux a new process starts with the peak of the one that it was forked from."""
    return _status_mb("VmHWM")


def _status_mb(field: str) -> float:
    try:
        with open("/proc/self/status", encoding="utf-8") as stream:
            return next(int(line.split()[1]) for line in stream if line.startswith(f"{field}:")) * 1024 / 1e6
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def gpu_used_mb(device: str) -> float | None:
    """Memory that is taken of the GPU, by whoever; None where the device is none. A cell has its GPU alone, so what it
    takes is what this says after, less what it said before."""
    used = _nvidia("memory.used", device) if device.startswith("cuda") else None
    return float(used) * 1.048576 if used is not None and used.replace(".", "").isdecimal() else None


def _nvidia(field: str, device: str) -> str | None:
    """What nvidia-smi says of the GPU that this process calls `device`."""
    at = int(device.partition(":")[2] or 0)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    which = visible[at] if at < len(visible) else str(at)
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", f"--id={which}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip().splitlines()[0] if answer.stdout.strip() else None
