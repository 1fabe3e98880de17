"""What every test may use: real databases, real processes, free ports. A test that did not run has failed."""

import asyncio
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from pydantic import SecretStr

from tests.support import ports
from tests.support.postgres import Cluster, running_cluster
from tests.support.processes import SECRET_KEY, Processes

_OURS = ("HURLBAT_TEST_", "HURLBAT_CHAOS_")
for _name in [name for name in os.environ if name.startswith("HURLBAT_") and not name.startswith(_OURS)]:
    del os.environ[_name]  # a developer's own settings are not the tests'

settings.register_profile(
    "hurlbat",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # a machine may be
)
settings.load_profile("hurlbat")


@pytest.fixture
def anyio_backend() -> str:
    """Coroutine tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server, one for each test process; to stop it, start it, or look at its rows from outside."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres_cluster: Cluster) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that only this test uses."""
    with postgres_cluster.database() as name:
        yield postgres_cluster.url(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite database that does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'hurlbat.db'}"


@pytest.fixture(scope="session")
def sqlite_schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema of today and no rows, to be copied: to make it takes longer than most tests."""
    from hurlbat_dispatcher import Settings, migrate

    file = tmp_path_factory.mktemp("schema") / "hurlbat.db"
    asyncio.run(migrate(Settings(database_url=f"sqlite:///{file}")))
    return file


@pytest.fixture(scope="session")
def postgres_schema(postgres_cluster: Cluster) -> Iterator[str]:
    """A PostgreSQL database with the schema of today and no rows, to be copied."""
    from hurlbat_dispatcher import Settings, migrate

    with postgres_cluster.database() as name:
        asyncio.run(migrate(Settings(database_url=postgres_cluster.url(name), secret_key=(SecretStr(SECRET_KEY),))))
        yield name


@pytest.fixture
def made_postgres_url(postgres_cluster: Cluster, postgres_schema: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with a schema and no rows."""
    with postgres_cluster.database(like=postgres_schema) as name:
        yield postgres_cluster.url(name)


@pytest.fixture
def made_sqlite_url(tmp_path: Path, sqlite_schema: Path) -> str:
    """The URL of a SQLite database with a schema and no rows."""
    return f"sqlite+aiosqlite:///{shutil.copy(sqlite_schema, tmp_path / 'hurlbat.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database: the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def made_database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with a schema and no rows: the test runs once on SQLite and once on PostgreSQL."""
    url: str = request.getfixturevalue("made_sqlite_url" if request.param == "sqlite" else "made_postgres_url")
    return url


@pytest.fixture
def free_port() -> int:
    """A loopback port that nobody listens on."""
    return ports.free_port()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts real processes (`serve`, `app`, `start`) and ends them with the test."""
    started = Processes(tmp_path)
    yield started
    started.close()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that was skipped, or expected to fail, has failed: what did not run shows nothing."""
    report = yield
    _forbid_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself."""
    report = yield
    _forbid_skip(report)
    return report


def _forbid_skip(report: Any) -> None:
    if report.outcome == "skipped" or hasattr(report, "wasxfail"):
        reason = getattr(report, "wasxfail", None) or report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipping and expected failures are not allowed here: {reason}"
