"""One server on each database, and beside each the process of the workers, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.composition.stand import Stand, set_up
from tests.support.postgres import Cluster
from tests.support.stands import on_postgres, on_sqlite


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A server on SQLite with its workers."""
    with on_sqlite(tmp_path_factory.mktemp("composition"), set_up) as started:
        yield started


@pytest.fixture(scope="session")
def postgres_stand(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[Stand]:
    """A server on PostgreSQL with its workers."""
    with on_postgres(tmp_path_factory.mktemp("composition"), postgres_cluster, set_up) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Stand:
    """A server on one database, then on the other."""
    found: Stand = request.getfixturevalue("stand" if request.param == "sqlite" else "postgres_stand")
    return found
