"""What every job as a function needs: its settings, and the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from raylib.bench.config import BenchConfig
from raylib.errors import UserError
from raylib.extract.config import ExtractConfig
from raylib.placement import Placement
from raylib.probe.config import ProbeConfig

Config = TypeVar("Config")


def as_config(kind: type[Config], job: str, model: str | Sequence[str] | Config, settings: dict[str, Any]) -> Config:
    """Settings by keyword, or a finished config."""
    if isinstance(model, kind):
        if settings:
            raise UserError(f"give either an {kind.__name__} or settings by keyword, not both")
        return model
    one = kind is ExtractConfig
    models: Any = model if one else [model] if isinstance(model, str) else list(model)  # pyright: ignore
    return with_settings(kind, job, {"model": models, **settings})


def with_settings(kind: type[Config], job: str, settings: dict[str, Any]) -> Config:
    unknown = sorted(set(settings) - set(vars(kind)["__dataclass_fields__"]))
    if unknown:
        raise UserError(f"{job} has no setting {', '.join(unknown)}; see raylib {job} --help")
    return kind(**settings)


def connected(config: Placement | ProbeConfig | BenchConfig):
    if config.local:
        return nullcontext()
    from raylib.cluster.session import session

    return session(config.address)
