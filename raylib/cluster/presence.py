"""How many raylib jobs are on a cluster. Each is present by a named actor, which ends with it, whatever ends it."""

from __future__ import annotations

from typing import Any

import ray

_PREFIX = "raylib-job-"
_NAMESPACE = "raylib"

_own: Any = None


class _Presence:
    """Does nothing; that it is there says that its job is."""


def announce() -> None:
    """Be counted from now on, until this process leaves the cluster."""
    global _own
    name = _PREFIX + ray.get_runtime_context().get_job_id()
    _own = ray.remote(_Presence).options(name=name, namespace=_NAMESPACE, get_if_exists=True, num_cpus=0).remote()


def present_jobs() -> int:
    """At least 1: who asks is there."""
    found: Any = ray.util.list_named_actors(all_namespaces=True)
    names = (entry["name"] for entry in found if entry["namespace"] == _NAMESPACE)
    return max(1, sum(name.startswith(_PREFIX) for name in names))
