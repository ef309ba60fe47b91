"""What to know before a probe's number is believed: leaks, groups that carry it, and sets too small to tell."""

from __future__ import annotations

from collections.abc import Sequence

from raylib.probe.results import GroupScores, ProbeResult, SplitFacts

_CONFOUNDED = 0.03
"""Above the AUROC within sources, from which the pooled one is said to owe to telling sources apart. HALP's SmolVLM2
probe has .927 pooled, and from .909 down to .645 within its four sources."""
_OVERFITTED = 0.1
_FEW = 30
"""Positives (or negatives) below which an AUROC is hardly more than its interval."""


def within(groups: Sequence[GroupScores]) -> float | None:
    """The mean AUROC within groups, each weighed by its pairs of a positive and a negative row: the share of such
    pairs, of one group, that are in order (a stratified AUROC). None where no group has both classes."""
    pairs = [(g.auroc, g.positives * (g.rows - g.positives)) for g in groups if g.auroc is not None]
    total = sum(n for _, n in pairs)
    return sum(auroc * n for auroc, n in pairs) / total if total else None


def findings(results: Sequence[ProbeResult], best: ProbeResult) -> list[str]:
    """Warnings about the best probe, and about all where it says so; [] where there is nothing to say."""
    found = [*_of_split(best), *_of_sources(best), *_of_classes(best)]
    if best.validation is None:
        found.append(
            "No rows were held out to choose by: the best probe is the best of the test rows, which flatters it."
        )
    train, test = best.train.auroc, best.test.auroc
    if train is not None and test is not None and train - test > _OVERFITTED:
        also = sum(
            (r.train.auroc or 0) - (r.test.auroc or 0) > _OVERFITTED for r in results if r.test.auroc is not None
        )
        found.append(
            f"The best probe has learnt its training rows by heart: AUROC {train:.3f} there, {test:.3f} on the test "
            f"rows ({also} of {len(results)} probes are more than {_OVERFITTED} apart)."
        )
    if best.test.interval is not None and best.test.interval[0] <= 0.5 <= best.test.interval[1]:
        found.append("The interval of the best probe holds 0.5: it may be no better than chance.")
    return found


def split_title(split: SplitFacts) -> str:
    return "random split" if split.kind == "random" else f"split by {split.kind}"


def _of_split(best: ProbeResult) -> list[str]:
    split = best.split
    if not split.shared_images:
        return []
    return [
        f"{split.shared_images} of {split.test_rows} test rows show an image that a training row shows too "
        f"({split_title(split)}): a probe can know the image again, so all numbers here are too good. Split by image."
    ]


def _of_sources(best: ProbeResult) -> list[str]:
    sources, pooled = best.by.get("source", []), best.test.auroc
    inside = within(sources)
    if pooled is None or inside is None or len(sources) < 2:
        return []
    found = []
    if pooled - inside >= _CONFOUNDED:
        found.append(
            f"Over all test rows the AUROC is {pooled:.3f}, and {inside:.3f} within sources: a part of it is telling "
            "sources apart, whose shares of positives differ."
        )
    low = best.test.interval[0] if best.test.interval else pooled
    worse = [g for g in sources if g.auroc is not None and g.interval is not None and g.interval[1] < low]
    if worse:
        told = ", ".join(f"{g.name} {g.auroc:.3f}" for g in sorted(worse, key=lambda g: g.auroc or 0.0))
        found.append(f"The AUROC over all test rows does not hold for: {told}.")
    return found


def _of_classes(best: ProbeResult) -> list[str]:
    found = []
    for column, groups in best.by.items():
        single = [g for g in groups if g.positives in (0, g.rows)]
        if single:
            rows = sum(g.rows for g in single)
            names = ", ".join(g.name for g in single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
            found.append(
                f"{len(single)} of {len(groups)} groups by {column.replace('_', ' ')} are of one class and have no "
                f"AUROC ({names}); their {rows} test rows count in the one over all rows."
            )
    fewer = min(best.test.positives, best.test.rows - best.test.positives)
    if 0 < fewer < _FEW:
        found.append(f"The rarer class has {fewer} test rows: differences between probes are mostly chance.")
    return found
