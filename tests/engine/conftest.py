"""Engines for the tests of this folder."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partialmethod

import pytest
import structlog

from hurlbat_dispatcher import migrate
from hurlbat_dispatcher.push.client import PushClient
from tests.engine.world import SOON, World, settings_for
from tests.support.postgres import Cluster

CLEAR = (
    "TRUNCATE run, timeline, lane, idempotency, task, worker, dispatcher, token, rate_limit, rate_use, rate_pause, "
    "shape, wait, news, "
    "schedule, schedule_fire, event, event_start, event_filter, gathering, webhook, operation "
    "RESTART IDENTITY; "
    "UPDATE shard SET owner = NULL, epoch = 0, lease_until = 0"
)


@pytest.fixture(autouse=True, scope="session")
def short_logs() -> None:
    """Write tracebacks plainly: with all their variables, one takes longer than the test that provokes it."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a healthy server give nothing up because its machine, or a part of it, stands still for a while."""
    for limit in (
        "push.client.CANCEL_SECONDS",
        "push.proof.PROOF_SECONDS",
        "store.dial.CONNECT_SECONDS",
        "store.kinds.STALL_SECONDS",
        "store.postgres.READER_SECONDS",
        "store.postgres.TALK_SECONDS",
        "store.postgres.TRANSACTION_SECONDS",
    ):
        monkeypatch.setattr(f"hurlbat_dispatcher.{limit}", SOON)
    patient = partialmethod(PushClient.__init__, connect_timeout=SOON, head_timeout=SOON)
    monkeypatch.setattr(PushClient, "__init__", patient)


@pytest.fixture(scope="session")
def migrated(postgres_cluster: Cluster) -> Iterator[str]:
    """The name of a database with the schema, made once for all tests of a process."""
    with postgres_cluster.database() as name:
        asyncio.run(migrate(settings_for(postgres_cluster.url(name))))
        yield name


@pytest.fixture
def postgres_url(postgres_cluster: Cluster, migrated: str) -> str:
    """The URL of that database, emptied."""
    postgres_cluster.query(CLEAR, migrated)
    return postgres_cluster.url(migrated)


@pytest.fixture
def sqlite_url(made_sqlite_url: str) -> str:
    """The URL of a SQLite database with the schema: to make it takes longer than most tests."""
    return made_sqlite_url


@pytest.fixture
def nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the test to look after those who wait or watch. To be asked for before the engine."""
    monkeypatch.setattr("hurlbat_dispatcher.assembly.LOOK_AGAIN", 3600.0)


@pytest.fixture
def nobody_rechecks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave it to the test to prove workers again. To be asked for before the engine."""
    monkeypatch.setattr("hurlbat_dispatcher.assembly.RECHECK_SECONDS", 3600.0)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """A running engine: the test runs once on SQLite and once on PostgreSQL."""
    async with World(database_url) as running:
        yield running


@pytest.fixture
async def local(sqlite_url: str) -> AsyncIterator[World]:
    """A running engine on SQLite, for rules that no database has a part in."""
    async with World(sqlite_url) as running:
        yield running


@pytest.fixture
async def shared(postgres_url: str) -> AsyncIterator[World]:
    """A running engine on PostgreSQL."""
    async with World(postgres_url) as running:
        yield running


@pytest.fixture
async def owner(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A first server, which starts the runs; no sweep lends a hand."""
    monkeypatch.setattr("hurlbat_dispatcher.assembly.SWEEP_SHARED", 3600.0)
    async with World(postgres_url) as world:
        yield world


@pytest.fixture
async def other(owner: World) -> AsyncIterator[World]:
    """A second server, of which the first knows."""
    async with World(owner.settings.database_url, owner.network) as world:
        await owner.until(lambda: owner.parts.desk.peers == (world.parts.desk.me,))
        yield world
