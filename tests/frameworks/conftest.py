"""One server for all tests here; each module starts the apps of its frameworks beside it."""

from collections.abc import Iterator

import pytest

from tests.frameworks.stand import Stand, set_up
from tests.support.stands import on_sqlite


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A server on SQLite, and the means to start workers."""
    with on_sqlite(tmp_path_factory.mktemp("frameworks"), set_up) as started:
        yield started
