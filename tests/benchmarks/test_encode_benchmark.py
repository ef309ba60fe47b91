"""The benchmark of batches: what it makes of hand-made measurements, and the skew of what it measures on."""

import numpy as np

from benchmarks.encode import Way, least_cosine, summary, table
from benchmarks.encode_inputs import texts


def test_a_way_is_told_by_its_ratio_to_the_first_round_by_round():
    first = Way("first", lambda: ([], []), cpu=[4.0, 6.0, 5.0], wall=[9.0, 9.0, 9.0], padded=[100, 20])
    other = Way("other", lambda: ([], []), cpu=[2.0, 2.0, 2.0], wall=[3.0, 1.0, 2.0], padded=[50], least_cosine=0.99999)
    found = summary(other, first, real=40)
    assert (found["cpu s"], found["wall s"], found["ratio"], found["ratio min to max"]) == (2.0, 2.0, 2.5, [2.0, 3.0])
    assert (found["padded to real tokens"], found["largest forward, tokens"], found["forwards"]) == (1.25, 50, 1)
    record = {
        "cases": [{"case": "3 texts", "ways": [summary(first, first, 40), found]}],
        "load average": {"start": [1.0], "end": [2.0]},
        "date": "2026-01-02",
        "processor": "P",
        "torch": "2",
        "rounds": 3,
        "minutes": 1.5,
    }
    lines = table(record)
    assert "| 3 texts | other | 2.0 | 2.50× (2.00 to 3.00) | 1.25 | 1 | 50 |" in lines
    assert lines[-1].startswith("2026-01-02; one thread, P, torch 2; 3 rounds")


def test_the_least_cosine_is_that_of_any_token():
    one, other = [np.eye(2), np.ones((1, 2))], [np.eye(2) * 3, np.array([[1.0, 0.0]])]
    assert abs(least_cosine(one, one) - 1) < 1e-12 and abs(least_cosine(one, other) - 0.5**0.5) < 1e-12


def test_lengths_are_skewed_and_the_same_every_time():
    counts = np.array([len(text.split()) for text in texts(400)])
    assert texts(400) == texts(400) and 35 < np.median(counts) < 45 and np.quantile(counts, 0.9) > 110
