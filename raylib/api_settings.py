"""What every job as a function needs: its settings, and the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from raylib.bench.config import BenchConfig
from raylib.errors import UserError
from raylib.extract.config import ExtractConfig
from raylib.logs import log_as_json, name_job
from raylib.placement import Placement
from raylib.prices import read_prices
from raylib.probe.config import ProbeConfig
from raylib.timeline import Timeline

if TYPE_CHECKING:
    from raylib.evaluate.progress import Reporter

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


def connected(config: Placement | ProbeConfig | BenchConfig, kind: str):
    """Whatever the job needs around it. kind: of the job, for its name."""
    log_format = config.log_format if isinstance(config, Placement) else "text"
    name_job(kind)
    if log_format == "json":
        log_as_json()
    if config.local:
        return nullcontext()
    from raylib.cluster.session import session

    return session(config.address, kind=kind, log_format=log_format)


def timeline_of(config: Placement) -> Timeline:
    """An empty one, with the prices of --price-table. Raises UserError for a table that cannot be read."""
    prices = read_prices(config.price_table)
    if config.local:
        return Timeline(prices=prices)
    from raylib.cluster.metrics import count_reused

    return Timeline(prices=prices, on_reuse=count_reused)


def reporter_of(config: Placement) -> Reporter:
    """Where the job says what it does."""
    from raylib.evaluate.progress import reporter

    return reporter(config.quiet, config.log_format)  # pyright: ignore[reportAttributeAccessIssue], every job has it
