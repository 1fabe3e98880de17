"""The only place that asks which database it is."""

from typing import Final

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import CannotOpen, Database
from hurlbat_dispatcher.store.sqlite import SqliteDatabase

STALL_SECONDS: Final = 10.0
"""How long a transaction in which nothing happens is left alone, at most."""


def database(url: str, clock: Clock, lease: float = STALL_SECONDS) -> Database:
    """Return the database behind the URL, not yet open. Raises `CannotOpen` for an unknown kind.

    A server that stands still in the middle of a transaction holds up others for less than its `lease` (seconds).
    """
    kind = url.partition(":")[0].partition("+")[0]
    if kind == "sqlite":
        return SqliteDatabase(url, clock)
    if kind == "postgresql":
        try:
            # the driver is an extra of its own
            from hurlbat_dispatcher.store.postgres import PostgresDatabase
        except ImportError as error:
            raise CannotOpen("PostgreSQL needs its driver; install hurlbat[server,postgres]") from error
        return PostgresDatabase(url, stall=min(lease, STALL_SECONDS))
    raise CannotOpen(f"the database must be SQLite or PostgreSQL, and not {kind}")
