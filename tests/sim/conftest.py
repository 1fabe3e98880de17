"""What tests of simulated histories share."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is planted on it is there until the test ends."""
    with ExitStack() as planted:
        yield planted
