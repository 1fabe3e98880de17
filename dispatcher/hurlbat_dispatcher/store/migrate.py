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
from hurlbat_dispatcher.store.tables import metadata


def scripts() -> ScriptDirectory:
    """Return the migration scripts that this version has."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return ScriptDirectory.from_config(config)


async def upgrade(engine: AsyncEngine, *, before: sa.Executable | None = None) -> None:
    """Bring the schema up to this version in one transaction, which begins with `before`.

    Raises `CannotOpen` when it is newer.
    """
    async with engine.begin() as connection:
        if before is not None:
            await connection.execute(before)
        await connection.run_sync(upgrade_on)


async def has_schema(engine: AsyncEngine) -> bool:
    """Tell whether any version of the schema is there."""
    async with engine.connect() as connection:
        return await connection.run_sync(_current) is not None


async def check_version(engine: AsyncEngine) -> None:
    """Raise `CannotOpen` unless the schema is exactly this version's."""
    async with engine.connect() as connection:
        current = await connection.run_sync(_current)
    _refuse_newer(current)
    if current != scripts().get_current_head():
        raise CannotOpen("the database's schema is older than this version of Hurlbat; run `hurlbat migrate` first")


def upgrade_on(connection: Connection) -> None:
    """Bring the schema up to this version on one connection, in its transaction. Raises `CannotOpen`."""
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
