"""Vectors that cannot be compared, named by the file and the id that a user knows."""

import pickle

import numpy as np
import pytest

from raylib.errors import UserError
from raylib.search.blocks import BadVectorError
from raylib.search.naming import Names, named_by_id

QUERIES = Names(["q7", "q8"], np.array([0, 1]))
DOCUMENTS = Names(["a", "b", "c", "d"], np.array([2, 0, 1, 0]), path="pages.npz")


@pytest.mark.parametrize(
    ("side", "position", "message"),
    [
        ("query", 1, "query q8 is bad"),
        ("document", 0, "pages.npz: document b is bad"),
        ("document", 2, "pages.npz: document a is bad"),
    ],
)
def test_the_first_id_of_a_content_is_named(side, position, message):
    with pytest.raises(UserError) as caught, named_by_id(QUERIES, DOCUMENTS):
        raise BadVectorError(side, position, "is bad")
    assert str(caught.value) == message
    assert str(pickle.loads(pickle.dumps(caught.value))) == message, "it travels from an actor to the driver"


def test_without_ids_the_place_is_all_there_is():
    with pytest.raises(BadVectorError, match=r"^query 5 is bad$"), named_by_id(Names([], np.arange(0)), DOCUMENTS):
        raise BadVectorError("query", 5, "is bad")
