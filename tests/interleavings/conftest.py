"""One database and one stage for all tests of this folder that a process runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from hurlbat_dispatcher.store.postgres import PostgresDatabase
from tests.interleavings.stage import Stage
from tests.support.postgres import Cluster


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Tests of a module share a loop, and with it the connections."""
    return "asyncio"


@pytest.fixture(scope="session")
def migrated_url(postgres_cluster: Cluster) -> Iterator[str]:
    """The URL of a PostgreSQL database with the schema."""

    async def migrate(url: str) -> None:
        database = PostgresDatabase(url)
        await database.open()
        await database.migrate()
        await database.close()

    with postgres_cluster.database() as name:
        url = postgres_cluster.url(name)
        asyncio.run(migrate(url))
        yield url


@pytest.fixture(scope="module")
async def stage(migrated_url: str, anyio_backend: str) -> AsyncIterator[Stage]:
    """The stage; each scene makes its own rows."""
    async with Stage(migrated_url) as made:
        yield made
