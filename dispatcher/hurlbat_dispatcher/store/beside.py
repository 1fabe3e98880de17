"""A look at a SQLite file from beside its server: nothing is locked, written, migrated or made."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from sqlalchemy.dialects.sqlite.aiosqlite import dialect as sqlite_dialect

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import CannotOpen, DatabaseTrouble
from hurlbat_dispatcher.store.sqlite import transact
from hurlbat_dispatcher.store.statement import Script

T = TypeVar("T")

STEPS: Final = 10_000
"""Instructions of SQLite's machine between two looks at the time."""
_DIALECT: Final = sqlite_dialect()
_LOCKS: Final = Path("/proc/locks")


def read_beside(path: str, script: Callable[[], Script[T]], clock: Clock, *, seconds: float) -> T:
    """Run the script on one snapshot of the file, in the calling thread. Raises `CannotOpen`, `DatabaseTrouble`.

    Without a journal nobody writes. Such a file is read as it is, since a common reader would make a journal; if one
    appears meanwhile, a server has come, and the file is read again beside it.
    """
    if not Path(path).is_file():
        raise CannotOpen(f"there is no database at {path}")
    journal = Path(f"{path}-wal")
    quiet = not journal.exists()
    try:
        result = _read(path, script(), clock, seconds, options="immutable=1" if quiet else "mode=ro")
    except DatabaseTrouble:
        if not (quiet and journal.exists()):
            raise
    else:
        if not (quiet and journal.exists()):
            return result
    return _read(path, script(), clock, seconds, options="mode=ro")


def is_served(path: str) -> bool | None:
    """Tell whether a server holds the file, or None where the system does not show that."""
    try:
        held = Path(f"{path}.lock").stat()
    except OSError:
        return False
    try:
        locks = _LOCKS.read_text()
    except OSError:
        return None
    return any(" FLOCK " in line and f":{held.st_ino} " in line for line in locks.splitlines())


def _read(path: str, script: Script[T], clock: Clock, seconds: float, *, options: str) -> T:
    deadline = clock.monotonic() + seconds
    try:
        connection = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?{options}", uri=True, isolation_level=None)
    except sqlite3.Error as error:
        raise CannotOpen(f"the SQLite file {path} cannot be read: {error}") from error
    try:
        connection.create_function("hurlbat_now", 0, clock.now_ms)
        connection.set_progress_handler(lambda: clock.monotonic() > deadline, STEPS)
        connection.execute("PRAGMA query_only=on")
        return transact(connection, _DIALECT, script, "BEGIN", "ROLLBACK")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise DatabaseTrouble(f"reading {path} took longer than {seconds:g} s") from error
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN):
            raise CannotOpen(f"the SQLite file {path} cannot be read: {error}") from error
        raise DatabaseTrouble(f"SQLite: {error}") from error
    finally:
        connection.close()
