"""Databases, open and migrated, for the tests of this folder."""

from collections.abc import AsyncIterator

import pytest

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    """An open database with the schema: the test runs once on SQLite and once on PostgreSQL."""
    opened = database(database_url, SystemClock())
    await opened.open()
    await opened.migrate()
    yield opened
    await opened.close()
