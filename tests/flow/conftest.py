"""One server on each database, and beside each the process of the workers, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.flow.stand import Flow, set_up
from tests.support.postgres import Cluster
from tests.support.stands import on_postgres, on_sqlite


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    """A server on SQLite with its workers."""
    with on_sqlite(tmp_path_factory.mktemp("flow"), set_up) as started:
        yield started


@pytest.fixture(scope="session")
def postgres_flow(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[Flow]:
    """A server on PostgreSQL with its workers."""
    with on_postgres(tmp_path_factory.mktemp("flow"), postgres_cluster, set_up) as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def either_flow(request: pytest.FixtureRequest) -> Flow:
    """A server on one database, then on the other."""
    found: Flow = request.getfixturevalue("flow" if request.param == "sqlite" else "postgres_flow")
    return found
