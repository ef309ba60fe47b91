"""The page as HTML: one file that needs no network, and in which nothing that a data set holds can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raylib.inspect.choose import Distribution, Order
from raylib.inspect.draw import excerpt
from raylib.inspect.view import Drawn


@dataclass
class Summary:
    """What stands above the queries.

    measure: as MTEB spells it. n_queries: of the task, of which `drawn` shows some. other: the model that is compared
    with, or None; counts [3]: queries that are better, equal and worse than there; n_alone: queries that only one of
    the two has. top_k: documents shown of a ranking.
    """

    model: str
    task: str
    measure: str
    part: str
    order: Order
    top_k: int
    spread: Distribution
    other: str | None = None
    other_spread: Distribution | None = None
    counts: tuple[int, int, int] = (0, 0, 0)
    n_alone: int = 0


def render(summary: Summary, drawn: Drawn) -> str:
    """The whole page. Every text of the data set is escaped."""
    from importlib.resources import files

    import jinja2

    template = files("raylib.inspect").joinpath("templates", "inspect.html.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    filters: dict[str, Callable] = {"score": format_score, "measure": measure_title, "excerpt": excerpt}
    environment.filters |= {**filters, "number": format_number, "signed": format_difference, "word": word_title}
    return environment.from_string(template).render(
        s=summary, queries=drawn.queries, pages=drawn.pages, notes=drawn.notes
    )


def format_score(value: float) -> str:
    """A measure × 100, as on the leaderboard."""
    return f"{100 * value:.2f}"


def format_difference(value: float) -> str:
    """Of two measures, × 100, with its sign; ±0 where there is none."""
    return f"{100 * value:+.2f}".replace("-", "−") if abs(value) >= 5e-5 else "±0"


def format_number(value: float) -> str:
    """A similarity with four digits."""
    return f"{value:#.4g}".replace("-", "−")


def measure_title(name: str) -> str:
    """MTEB's name of a measure as the field writes it: ndcg_at_10 → nDCG@10."""
    base, at, k = name.partition("_at_")
    title = {"ndcg": "nDCG", "map": "MAP", "mrr": "MRR"}.get(base, base.replace("_", " ").capitalize())
    return f"{title}@{k}" if at else title


def word_title(word: str) -> str:
    """A token as a person can tell it from none: a space is shown, a line end too."""
    return {"": "∅", "\n": "⏎", "\n\n": "⏎⏎", "\t": "⇥"}.get(word, word.strip() or "␣" * len(word))
