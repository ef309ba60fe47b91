"""`raylib mine batches`: training pairs → a plan of batches, and how hard they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from raylib import storage
from raylib.errors import UserError
from raylib.examples.batch_plan import write_plan
from raylib.examples.examples import Examples
from raylib.mine.b3 import Plan, plan_batches
from raylib.mine.comparison import Comparison, DenseComparison
from raylib.mine.config import BatchesConfig
from raylib.mine.duplicates import same_examples
from raylib.mine.harder import cluster_negatives
from raylib.mine.job import MineJob, facts_for_summary
from raylib.mine.kinds import skip_tops
from raylib.mine.options import UNMINED
from raylib.mine.plans import random_batches, sequential_batches
from raylib.mine.quality import ClusterQuality, Quality, batch_quality, cluster_quality, histograms, random_quality
from raylib.mine.report import print_batches
from raylib.mine.teacher import Teacher
from raylib.terminal import console

_SHOWN = 10

_JUDGED_CELLS = 256 * 1024**2
"""Similarities of batches that are looked at to judge a plan: 256 batches of 1,024 examples."""

_JUDGED_LATE_CELLS = 8 * 1024**2
"""The same by MaxSim, which costs as much as hundreds of inner products."""


@dataclass(frozen=True)
class _Made:
    """batches: see `Plan`. plan: None for one by chance or in order. same: duplicates, for the quality."""

    batches: np.ndarray
    plan: Plan | None = None
    same: np.ndarray | None = None
    hard_negatives: np.ndarray | None = None


class BatchesJob(MineJob[BatchesConfig]):
    kind = "raylib mine batches"

    def check(self, examples: Examples) -> None:
        config = self.config
        skips = skip_tops(examples.datasets, config.skip_top)
        there = np.bincount(examples.dataset, minlength=len(examples.datasets))
        small = [f"{name} ({n})" for name, n in zip(examples.datasets, there, strict=True) if 0 < n < config.batch_size]
        if small:
            more = f" and {len(small) - _SHOWN} more" if len(small) > _SHOWN else ""
            raise UserError(
                f"--batch-size is {config.batch_size}, and a batch is of one data set; these have fewer examples: "
                f"{', '.join(small[:_SHOWN])}{more}. Lower it, leave them out of --data, or join them with --group-by"
            )
        if config.method in UNMINED:
            return
        m = len(examples.documents)
        pairs, counts = np.unique(examples.dataset * m + examples.positive, return_counts=True)
        documents = np.bincount(pairs // m, minlength=len(there))
        most = np.zeros(len(there), dtype=np.int64)
        np.maximum.at(most, pairs // m, counts)
        for number in np.flatnonzero(there).tolist():
            name = examples.datasets[number]
            self._check_documents(name, skips[name], int(documents[number]), int(most[number]), int(there[number]))

    def _check_documents(self, dataset: str, skip: int, documents: int, most: int, n: int) -> None:
        """most: examples of the document that has the most. What vectors show besides is found where they are there."""
        if documents <= skip:
            raise UserError(
                f"the first {skip} ranks are left out, and the examples of {dataset} have {documents} documents, so "
                f"that no neighbour is left; lower it with --skip-top {dataset}=N"
            )
        batches = -(-n // self.config.batch_size)
        if most > batches and not self.config.allow_duplicates:
            raise UserError(
                f"{most} examples of {dataset} share one positive and it has {batches} batches, so that some must meet "
                "as negatives; lower --batch-size, or let them meet as seldom as can be with --allow-duplicates (the "
                "trainer then has to mask them)"
            )

    def needed(self, examples: Examples) -> Examples:
        """Without the given negatives: a batch is of queries and positives."""
        unwanted = np.ones(len(examples.documents), dtype=bool)
        unwanted[examples.positive] = False
        if not unwanted.any():
            return examples
        return examples.without(np.zeros(len(examples.queries), dtype=bool), unwanted).examples

    def deciding(self, examples: Examples) -> dict[str, Any]:
        return {**self.config.deciding(), "skip_top": skip_tops(examples.datasets, self.config.skip_top)}

    def mine(self, examples: Examples, teacher: Teacher | None) -> tuple[dict[str, str], dict[str, Any]]:
        config = self.config
        files, told, png = {"plan": config.output_file}, {}, None
        if teacher is None:
            made = self._unmined(examples, None)
            self.reporter.say("no teacher was given: how hard the batches are is not known")
        else:
            with teacher.compared() as comparison:
                with self._timed("mine") as stage:
                    stage.held = self.place.held()
                    made = self._made(examples, comparison)
                with self._timed("judge"):
                    told, png = self._judge(examples, comparison, made)
            files["histograms"] = config.beside(".png")
        with self._timed("write"):
            write_plan(
                config.output_file,
                made.batches,
                examples.ids,
                settings={**config.plan_settings(), "skip_top": skip_tops(examples.datasets, config.skip_top)},
                teacher="" if teacher is None else teacher.fingerprint,
                hard_negatives=made.hard_negatives,
            )
            if png is not None:
                with storage.atomic_write(files["histograms"]) as stream:
                    stream.write(png)
        placed = int((made.batches >= 0).sum())
        self.reporter.say(f"wrote {config.output_file}: {len(made.batches)} batches, {placed} examples in all")
        return files, {"steps": len(made.batches), "placed": placed, **told}

    def _made(self, examples: Examples, comparison: Comparison) -> _Made:
        config = self.config
        if config.method in UNMINED:
            return self._unmined(examples, comparison)
        self.reporter.say(f"planning batches of {len(examples)} examples by {config.method}")
        skips = skip_tops(examples.datasets, config.skip_top)
        plan = plan_batches(
            comparison,
            examples.positive,
            batch_size=config.batch_size,
            cluster_size=config.cluster_size,
            skip_top={number: skips[name] for number, name in enumerate(examples.datasets)},
            neighbours=config.neighbours,
            seed=config.seed,
            method=config.method,  # pyright: ignore[reportArgumentType], the others returned
            groups=examples.dataset,  # numbers: names for each of millions would be gigabytes
            duplicate_similarity=config.duplicate_similarity,
            remainder=config.remainder,
            allow_duplicates=config.allow_duplicates,
            split_above=config.split_above,
            run=self.place.run,
        )
        self.timings |= {f"mine_{stage}": seconds for stage, seconds in plan.seconds.items()}
        negatives = None
        if config.hard_negatives:
            negatives = cluster_negatives(
                plan.clusters,
                plan.window,
                plan.excluded,
                examples.positive,
                plan.same,
                config.hard_negatives,
                seed=config.seed,
            )
        return _Made(plan.batches, plan, plan.same, negatives)

    def _unmined(self, examples: Examples, comparison: Comparison | None) -> _Made:
        config = self.config
        settings: dict[str, Any] = {
            "batch_size": config.batch_size,
            "groups": examples.dataset,
            "remainder": config.remainder,
        }
        if config.method == "random":
            batches = random_batches(len(examples), seed=config.seed, **settings)
        else:
            batches = sequential_batches(len(examples), **settings)
        if comparison is None:
            return _Made(batches)
        return _Made(batches, same=same_examples(comparison, examples.positive, config.duplicate_similarity))

    def _judge(self, examples: Examples, comparison: Comparison, made: _Made) -> tuple[dict[str, Any], bytes]:
        """(what the summary says of the plan's quality, the histograms); printed as well."""
        config = self.config
        cells = _JUDGED_CELLS if isinstance(comparison, DenseComparison) else _JUDGED_LATE_CELLS
        settings: dict[str, Any] = {
            "groups": examples.dataset,
            "suspect_above": config.suspect_above,
            "most_batches": max(4, cells // config.batch_size**2),
            "seed": config.seed,
        }
        assert made.same is not None, "with a teacher, duplicates are known"
        about = (made.batches, comparison, examples.positive, made.same)
        plans: dict[str, Quality] = {config.method: batch_quality(*about, **settings)}
        if config.method != "random":
            plans["random"] = random_quality(*about, **settings)
        clusters: ClusterQuality | None = None
        searches = {}
        if made.plan is not None:
            clusters = cluster_quality(made.plan.clusters, made.plan.graph, made.plan.excluded, examples.positive)
            searches = {examples.datasets[number]: facts for number, facts in made.plan.searches.items()}
        if not config.quiet:
            print_batches(plans, clusters, searches, console())
        told: dict[str, Any] = {"quality": {name: quality.numbers() for name, quality in plans.items()}}
        if clusters is not None:
            told |= {"clusters": vars(clusters), "search": {k: facts_for_summary(v) for k, v in searches.items()}}
        return told, histograms(plans)
