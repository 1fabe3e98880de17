"""The schema's versions: alembic, with its scripts inside the package."""

from pathlib import Path

import sqlalchemy as sa
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from hurlbat_dispatcher.store.database import CannotOpen
from hurlbat_dispatcher.store.schema import metadata

_ADVISORY_LOCK = 0x6875726C  # "hurl": servers that start together migrate one after the other


def scripts() -> ScriptDirectory:
    """Return the migration scripts that this version has."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


async def upgrade(engine: AsyncEngine) -> None:
    """Bring the schema up to this version in one transaction. Raises `CannotOpen` when it is newer."""
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


async def check_version(engine: AsyncEngine) -> None:
    """Raise `CannotOpen` unless the schema is exactly this version's."""
    async with engine.connect() as connection:
        current = await connection.run_sync(_current)
    _refuse_newer(current)
    if current != scripts().get_current_head():
        raise CannotOpen("the database's schema is older than this version of Hurlbat; run `hurlbat migrate` first")


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    current = _current(connection)
    _refuse_newer(current)
    directory = scripts()
    environment = EnvironmentContext(
        Config(), directory, fn=lambda revision, _: directory._upgrade_revs("head", revision)
    )
    with environment:
        environment.configure(connection=connection, target_metadata=metadata, transactional_ddl=False)
        environment.run_migrations()


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(current: str | None) -> None:
    known = {revision.revision for revision in scripts().walk_revisions()}
    if current is not None and current not in known:
        raise CannotOpen(
            f"the database's schema (version {current}) is newer than this version of Hurlbat; "
            "install the version that made it"
        )
