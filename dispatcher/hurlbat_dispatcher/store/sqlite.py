"""SQLite, embedded: one file, one server, one writer thread, and a reader that never waits for it.

A whole script runs as one function on aiosqlite's own thread, which costs one hop instead of one for each statement.
The file is held by a kernel lock beside it, which dies with the process however that ends.
"""

import fcntl
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import event
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import CannotOpen, Clash, DatabaseTrouble, Heard
from hurlbat_dispatcher.store.migrate import upgrade
from hurlbat_dispatcher.store.statement import Fetch, Rows, Script

T = TypeVar("T")

_PRAGMAS = (
    "journal_mode=wal",
    "synchronous=full",
    "cache_size=-16384",
    "temp_store=memory",
    "wal_autocheckpoint=4000",
    "busy_timeout=5000",
    "foreign_keys=on",
)
_PASSES = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})
"""What may pass by itself, of that which keeps a file from being opened."""
_CLOSED = ("Connection closed", "no active connection")
"""How aiosqlite says it."""


class SqliteDatabase:
    """The embedded database. See `store.database.Database`."""

    shared = False

    def __init__(self, url: str, clock: Clock, *, lock: bool = True) -> None:
        self._url = url
        self._clock = clock
        self._locks = lock
        self._path = make_url(url).database or ":memory:"
        self.file: str | None = None if self._path == ":memory:" else self._path
        self._lock: int | None = None
        self._files: dict[str, tuple[int, int]] = {}
        self._engine: AsyncEngine | None = None
        self._writer: AsyncConnection | None = None
        self._reader: AsyncConnection | None = None
        self._write_thread: aiosqlite.Connection | None = None
        self._read_thread: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Take the lock and open one connection to write and one to read."""
        self._take_lock()
        try:
            self._engine = self._make_engine()
            self._writer = await self._engine.connect()
            self._write_thread = await _thread_of(self._writer)
            self._reader = await self._engine.connect()
            self._read_thread = await _thread_of(self._reader)
            await self._read_thread.execute("PRAGMA query_only=on")
            await self._read_thread.execute("PRAGMA cache_size=-4096")
        except Exception as error:
            await self.close()
            said = f"the SQLite file {self._path} cannot be opened: {_cause(error)}"
            raise (DatabaseTrouble if _code(error) & 0xFF in _PASSES else CannotOpen)(said) from error

    async def close(self) -> None:
        """Close both connections and let the file go."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(Exception):
                    await connection.close()
        self._reader = self._writer = self._read_thread = self._write_thread = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def migrate(self) -> None:
        """Bring the schema up to this version."""
        try:
            await upgrade(self._engine_or_trouble())
        except DBAPIError as error:
            raise DatabaseTrouble(f"SQLite: {_cause(error)}") from error

    async def prepare(self) -> None:
        """Bring the schema up to this version: nobody else uses the file."""
        await self.migrate()

    async def write(self, script: Script[T]) -> T:
        """Run the script in one transaction, in one hop."""
        return await self._run(self._write_thread, script, "BEGIN IMMEDIATE", "COMMIT")

    async def read(self, script: Script[T]) -> T:
        """Run the script on one snapshot, in one hop."""
        return await self._run(self._read_thread, script, "BEGIN", "ROLLBACK")

    async def listen(self, heard: Heard) -> None:
        """Nobody else is there to be heard."""

    async def notify(self, message: str) -> None:
        """Nobody else is there to be told."""

    async def cut_off(self) -> None:
        """Nobody else is there to stand still."""

    async def _run(self, thread: aiosqlite.Connection | None, script: Script[T], begin: str, end: str) -> T:
        if thread is None:
            raise DatabaseTrouble("the database is closed")
        dialect = self._engine_or_trouble().dialect

        def run() -> T:
            if end == "COMMIT":
                self._check_files()
            return transact(thread._conn, dialect, script, begin, end)

        try:
            # aiosqlite offers no public way to run a function of one's own on its thread
            result: T = await thread._execute(run)  # type: ignore[no-untyped-call]  # its own
        except sqlite3.IntegrityError as error:
            raise Clash(str(error)) from error
        except sqlite3.DataError:  # a value that no database takes: the fault of whoever gave it
            raise
        except (sqlite3.Error, MemoryError) as error:
            raise DatabaseTrouble(f"SQLite: {error}") from error
        except ValueError as error:
            if str(error) in _CLOSED:
                raise DatabaseTrouble("the database is closed") from error
            raise
        return result

    def _check_files(self) -> None:
        """Raise `DatabaseTrouble` when a file has another's place: what we write would be gone with the process."""
        if self.file is None:
            return
        for name in (self.file, f"{self.file}-wal"):
            try:
                found = os.stat(name)
            except OSError:
                now = None
            else:
                now = found.st_dev, found.st_ino
            known = self._files.get(name)
            if known is None and now is not None:
                self._files[name] = now
            elif known != now:
                raise DatabaseTrouble(f"{name} was moved or removed; put it back, or restart the server")

    def _make_engine(self) -> AsyncEngine:
        engine = create_async_engine(
            self._url, poolclass=NullPool, connect_args={"timeout": 5, "cached_statements": 256}
        )

        @event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            # the driver's own transactions lose updates in silence: it begins late, and not for reads
            connection.isolation_level = None
            cursor = connection.cursor()
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()
            connection.create_function("hurlbat_now", 0, self._clock.now_ms)

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    def _engine_or_trouble(self) -> AsyncEngine:
        if self._engine is None:
            raise DatabaseTrouble("the database is closed")
        return self._engine

    def _take_lock(self) -> None:
        if not self._locks or self._path == ":memory:":
            return
        path = Path(f"{self._path}.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise CannotOpen(f"the folder of {self._path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            raise CannotOpen(
                f"another server uses {self._path}; stop it, or let several servers share a PostgreSQL database"
            ) from error


def transact(connection: sqlite3.Connection, dialect: Dialect, script: Script[T], begin: str, end: str) -> T:
    """Run a whole script on a connection, in the calling thread.

    Raises `DatabaseTrouble` when nobody knows whether the end took place, else what SQLite raises.
    """
    if connection.in_transaction:  # which could not be rolled back when it failed
        connection.execute("ROLLBACK")
    connection.execute(begin)
    try:
        rows: Rows | None = None  # as a generator is begun
        while True:
            try:
                ask = script.send(rows)  # type: ignore[arg-type]  # None begins a generator
            except StopIteration as done:
                _end(connection, end)
                result: T = done.value
                return result
            prepared = ask.statement.prepared(dialect)
            if isinstance(ask, Fetch):
                rows = connection.execute(prepared.sql, prepared.arrange(ask.values)).fetchall()
            else:
                if ask.rows:
                    values = ask.rows if prepared.as_declared else [prepared.arrange(row) for row in ask.rows]
                    connection.executemany(prepared.sql, values)
                rows = ()
    except BaseException:
        script.close()
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _end(connection: sqlite3.Connection, end: str) -> None:
    """Commit or roll back.

    A commit that fails is not there, with one exception: when the sync failed, it stands in the file, whole. Here it is
    forgotten and the next one overwrites it, but who opens the file after a crash before that finds it.
    """
    try:
        connection.execute(end)
    except sqlite3.OperationalError as error:
        code = _code(error)
        if code & 0xFF == sqlite3.SQLITE_IOERR and code != sqlite3.SQLITE_IOERR_WRITE:
            raise DatabaseTrouble(f"SQLite: {error}", unknown=True) from error
        raise


async def _thread_of(connection: AsyncConnection) -> aiosqlite.Connection:
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    assert isinstance(driver, aiosqlite.Connection)
    return driver


def _cause(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)


def _code(error: BaseException) -> int:
    """Return SQLite's extended code of an error, 0 when it is none of SQLite's."""
    code: int | None = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", None)
    return code or 0
