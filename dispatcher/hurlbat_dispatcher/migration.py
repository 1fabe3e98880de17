"""Bring a database's schema up to date without serving it: what a fleet does before its servers start."""

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.settings import Settings
from hurlbat_dispatcher.store.kinds import database


async def migrate(settings: Settings) -> None:
    """Migrate the database of the settings. Raises `CannotOpen`, `DatabaseTrouble`."""
    store = database(settings.database_url, SystemClock())
    await store.open()
    try:
        await store.migrate()
    finally:
        await store.close()
