"""One server on each database, and beside each the worker, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster
from tests.support.processes import Processes
from tests.ways.stand import Ways, set_up


@pytest.fixture(scope="session")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """A server on SQLite with its worker."""
    folder = tmp_path_factory.mktemp("ways")
    processes = Processes(folder)
    try:
        with set_up(processes, folder, f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}") as started:
            yield started
    finally:
        processes.close()


@pytest.fixture(scope="session")
def postgres_ways(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[Ways]:
    """A server on PostgreSQL with its worker."""
    folder = tmp_path_factory.mktemp("ways")
    processes = Processes(folder)
    with postgres_cluster.database() as name:
        try:
            with set_up(processes, folder, postgres_cluster.url(name)) as started:
                yield started
        finally:
            processes.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either_ways(request: pytest.FixtureRequest) -> Ways:
    """A server on one database, then on the other."""
    found: Ways = request.getfixturevalue("ways" if request.param == "sqlite" else "postgres_ways")
    return found
