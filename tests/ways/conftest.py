"""One server on each database, and beside each the worker, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster
from tests.support.stands import on_postgres, on_sqlite
from tests.ways.stand import Ways, set_up


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """A server on SQLite with its worker."""
    with on_sqlite(tmp_path_factory.mktemp("ways"), set_up) as started:
        yield started


@pytest.fixture(scope="session")
def postgres_ways(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[Ways]:
    """A server on PostgreSQL with its worker."""
    with on_postgres(tmp_path_factory.mktemp("ways"), postgres_cluster, set_up) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def either_ways(request: pytest.FixtureRequest) -> Ways:
    """A server on one database, then on the other."""
    found: Ways = request.getfixturevalue("ways" if request.param == "sqlite" else "postgres_ways")
    return found
