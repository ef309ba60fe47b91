"""Which batches belong to which step."""

import numpy as np

from raylib.examples.examples import read_examples
from raylib.train.schedule import Schedule, by_chance
from tests.train.made_runs import write_pairs


def test_a_run_that_ends_with_an_epoch_needs_no_plan_of_the_next(tmp_path):
    """12 examples are three batches of 4; six steps end with the second epoch, of as many as were allowed."""
    examples = read_examples(write_pairs(tmp_path / "pairs.jsonl", n=12))

    schedule = by_chance(examples, batch_size=4, seed=0, epochs=100, accumulate=1, max_steps=6)

    assert len(schedule.plans) == 2
    assert [(w.step, w.epoch, w.batches) for w in schedule.windows(after=2)] == [
        (3, 0, (2,)),
        (4, 1, (0,)),
        (5, 1, (1,)),
        (6, 1, (2,)),
    ]
    assert list(schedule.windows(after=6)) == []


def test_no_gradient_is_carried_into_the_next_epoch():
    """Five batches in windows of two: the last of an epoch is short."""
    schedule = Schedule([np.arange(10).reshape(5, 2)], epochs=2, accumulate=2, steps=5)

    assert [(w.step, w.epoch, w.batches) for w in schedule.windows()] == [
        (1, 0, (0, 1)),
        (2, 0, (2, 3)),
        (3, 0, (4,)),
        (4, 1, (0, 1)),
        (5, 1, (2, 3)),
    ]
