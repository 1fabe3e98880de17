"""Says of a database in trouble what a caller can act on."""

from collections.abc import Awaitable
from typing import TypeVar

from hurlbat_dispatcher.errors import Unavailable
from hurlbat_dispatcher.store.database import DatabaseTrouble

T = TypeVar("T")


async def available(work: Awaitable[T]) -> T:
    """Return what the work returns. Raises `Unavailable` where the database is in trouble."""
    try:
        return await work
    except DatabaseTrouble as trouble:
        raise Unavailable("database_unavailable", str(trouble), retry_after=1) from trouble
