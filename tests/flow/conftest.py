"""One server on each database, and beside each the process of the workers, for all tests here."""

from collections.abc import Iterator

import pytest

from tests.flow.stand import Flow, set_up
from tests.support.postgres import Cluster
from tests.support.processes import Processes


@pytest.fixture(scope="session")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    """A server on SQLite with its workers."""
    folder = tmp_path_factory.mktemp("flow")
    processes = Processes(folder)
    try:
        with set_up(processes, folder, f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}") as started:
            yield started
    finally:
        processes.close()


@pytest.fixture(scope="session")
def postgres_flow(tmp_path_factory: pytest.TempPathFactory, postgres_cluster: Cluster) -> Iterator[Flow]:
    """A server on PostgreSQL with its workers."""
    folder = tmp_path_factory.mktemp("flow")
    processes = Processes(folder)
    with postgres_cluster.database() as name:
        try:
            with set_up(processes, folder, postgres_cluster.url(name)) as started:
                yield started
        finally:
            processes.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def either_flow(request: pytest.FixtureRequest) -> Flow:
    """A server on one database, then on the other."""
    found: Flow = request.getfixturevalue("flow" if request.param == "sqlite" else "postgres_flow")
    return found
