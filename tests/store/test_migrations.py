"""The schema's versions."""

from dataclasses import dataclass
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.database import CannotOpen, Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.migrate import scripts
from hurlbat_dispatcher.store.tables import metadata
from tests.store.rows import ask, tell

pytestmark = pytest.mark.anyio


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


async def test_the_migrations_make_exactly_the_schema(store: Database) -> None:
    engine: AsyncEngine = store._engine  # type: ignore[attr-defined]  # both have one
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_migrating_again_changes_nothing(store: Database) -> None:
    await store.write(tell("UPDATE shard SET epoch = 7"))
    await store.migrate()
    await store.prepare()
    assert await store.read(ask("SELECT epoch FROM shard")) == [(7,)]
    assert await store.read(ask("SELECT version_num FROM alembic_version")) == [(scripts().get_current_head(),)]


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(store: Database) -> None:
    await store.write(tell("UPDATE alembic_version SET version_num = '9999'"))
    for work in (store.migrate, store.prepare):
        with pytest.raises(CannotOpen, match="newer than this version of Hurlbat"):
            await work()
    assert await store.read(ask("SELECT version_num FROM alembic_version")) == [("9999",)]


@dataclass(frozen=True)
class Revision:
    revision: str


class NextVersion:
    """The scripts of a version that knows one revision more."""

    def get_current_head(self) -> str:
        return "9999"

    def walk_revisions(self) -> list[Revision]:
        return [
            Revision("9999"),
            Revision("0006"),
            Revision("0005"),
            Revision("0003"),
            Revision("0002"),
            Revision("0001"),
        ]


async def test_a_shared_database_of_an_older_version_is_not_migrated_by_a_server(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database(postgres_url, SystemClock())
    await store.open()
    await store.prepare()  # an empty one is made
    assert await store.read(ask("SELECT version_num FROM alembic_version")) == [("0006",)]
    monkeypatch.setattr("hurlbat_dispatcher.store.migrate.scripts", NextVersion)
    with pytest.raises(CannotOpen, match="hurlbat migrate"):
        await store.prepare()
    assert await store.read(ask("SELECT version_num FROM alembic_version")) == [("0006",)]
    await store.close()
