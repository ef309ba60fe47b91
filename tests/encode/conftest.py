import pytest

from tests.evaluate.conftest import fresh_factories as fresh_factories


@pytest.fixture
def models(fresh_factories):
    """The toys that were made in this test, by name."""
    return fresh_factories
