"""The only place that asks which database it is."""

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import CannotOpen, Database
from hurlbat_dispatcher.store.sqlite import SqliteDatabase


def database(url: str, clock: Clock) -> Database:
    """Return the database behind the URL, not yet open. Raises `CannotOpen` for an unknown kind."""
    kind = url.partition(":")[0].partition("+")[0]
    if kind == "sqlite":
        return SqliteDatabase(url, clock)
    if kind == "postgresql":
        try:
            # the driver is an extra of its own
            from hurlbat_dispatcher.store.postgres import PostgresDatabase
        except ImportError as error:
            raise CannotOpen("PostgreSQL needs its driver; install hurlbat[server,postgres]") from error
        return PostgresDatabase(url)
    raise CannotOpen(f"the database must be SQLite or PostgreSQL, and not {kind}")
