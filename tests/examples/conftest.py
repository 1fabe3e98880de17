"""One server for the tests of workers in other languages, and all of these beside it."""

from collections.abc import Iterator

import pytest

from tests.examples.others import Stand, set_up
from tests.support.stands import on_sqlite


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A server on SQLite, and six workers."""
    with on_sqlite(tmp_path_factory.mktemp("others"), set_up) as started:
        yield started
