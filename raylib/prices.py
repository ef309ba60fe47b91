"""What an hour of a node costs, and what that makes of a million embeddings."""

from __future__ import annotations

import math

from raylib import storage
from raylib.errors import UserError

_MEANT = "Expected lines such as `g6.xlarge: 0.8048`: the name of a node type, and US dollars per hour."


def read_prices(path: str | None = None) -> dict[str, float]:
    """Node type → USD per hour, from a YAML file; without one, from raylib's own table of public prices (prices.yaml,
    approximations that name their sources). A file takes the place of that table, and is not added to it.

    Raises UserError for a file that is not there, or that has anything but names and prices above 0 in it.
    """
    from importlib.resources import files

    import yaml

    try:
        text = files("raylib").joinpath("prices.yaml").read_text("utf-8") if path is None else storage.read_text(path)
        found = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the price table {path} cannot be read: {error}. Check --price-table.") from error
    except yaml.YAMLError as error:
        raise UserError(f"the price table {path} is no YAML: {' '.join(str(error).split())}. {_MEANT}") from error
    if not isinstance(found, dict) or not found:
        raise UserError(f"the price table {path} holds {'nothing' if not found else type(found).__name__}. {_MEANT}")
    return {_name(name, path): _price(name, price, path) for name, price in found.items()}


def usd_per_million(usd_per_hour: float, per_second: float) -> float:
    """Of so many embeddings per second, on a node that does nothing else."""
    return usd_per_hour / 3600 / per_second * 1e6


def _name(name: object, path: str | None) -> str:
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"the price table {path} has {name!r} for a node type. {_MEANT}")
    return name


def _price(name: object, price: object, path: str | None) -> float:
    usable = isinstance(price, int | float) and not isinstance(price, bool) and math.isfinite(price) and price > 0
    if not usable:
        raise UserError(f"the price table {path} has {price!r} for {name}. {_MEANT}")
    return float(price)  # pyright: ignore[reportArgumentType]
