"""Servers and workers: a pair for each database that gentle tests share, pairs of their own for the others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.stage import Stage, assert_no_faults, set_stage
from tests.support.postgres import Cluster, running_cluster
from tests.support.processes import Processes


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def shared_stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A server and the worker app on either database, for all tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("stage")
    processes = Processes(folder)
    try:
        if request.param == "sqlite":
            with set_stage(processes, folder, f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}") as stage:
                yield stage
        else:
            cluster: Cluster = request.getfixturevalue("postgres_cluster")
            with cluster.database() as name:
                with set_stage(processes, folder, cluster.url(name)) as stage:
                    yield stage
                processes.close()
    finally:
        processes.close()


@pytest.fixture
def database_url(made_database_url: str) -> str:
    """The URL of a database on either kind that has its schema: how that is made is told of elsewhere."""
    return made_database_url


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that only this test uses, to be killed."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """The shared server and worker; the server's log holds no fault after the test."""
    yield shared_stage
    assert_no_faults(shared_stage.server)


@pytest.fixture
def own_stage(processes: Processes, tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """A server and a worker that only this test uses. To be stopped, the server has all the time that it takes."""
    with set_stage(processes, tmp_path, database_url, HURLBAT_DRAIN_SECONDS="600") as stage:
        yield stage
