"""PostgreSQL, shared by any number of servers: one connection writes, a few read, one listens.

Statements go through asyncpg directly; ids are text on our side and `uuid` on theirs.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from hurlbat_dispatcher.store.database import CannotOpen, Clash, DatabaseTrouble, Heard
from hurlbat_dispatcher.store.dial import Dial
from hurlbat_dispatcher.store.migrate import check_version, has_schema, upgrade
from hurlbat_dispatcher.store.statement import Fetch, Rows, Script

T = TypeVar("T")

log = structlog.get_logger("hurlbat.database")

CHANNEL = "hurlbat"
READERS = 4
READER_SECONDS = 10.0
"""How long to wait for one of them."""
STATEMENT_SECONDS = 30.0
"""How long a statement may take, locks included; the backend itself ends it 5 s before, so that it holds on to nothing.

Longer than a lease: a database that stalls stalls for all, so that nobody could take over, and to cut short what is
only slow would begin it again and again. That nobody is there any longer is known sooner (`store.dial`).
"""
TRANSACTION_SECONDS = 10.0
"""How long a begin, a commit or a rollback may take: a backend that does not answer is given up then."""
TALK_SECONDS = 5.0
MAX_NOTIFICATIONS = 100
"""Notifications that wait for the connection; more are dropped, as each is a hint that the sweep makes up for."""
_MIGRATING = {"idle_in_transaction_session_timeout": "10000", "application_name": "hurlbat", "jit": "off"}
_ONE_AT_A_TIME = sa.select(sa.func.pg_advisory_xact_lock(0x6875726C))
"""Servers that start together migrate one after the other."""
_END_STALLED = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE usename = current_user AND wait_event IN ('ClientRead', 'ClientWrite')
AND state_change < clock_timestamp() - make_interval(secs => $1)
"""
_END_WHO_BLOCKS = _END_STALLED + "AND pid = ANY (pg_blocking_pids($2))"
"""Ends those who stand in the way of a backend and have waited for their own client for so many seconds.

The database does it itself for who is idle in a transaction, but not between the steps of one statement.
"""
_END_WHO_HOLDS = _END_STALLED + (
    "AND datname = current_database() AND application_name = 'hurlbat' "
    "AND (backend_xid IS NOT NULL OR (state = 'idle' AND wait_event = 'ClientWrite') "
    "OR EXISTS (SELECT FROM pg_locks WHERE pg_locks.pid = pg_stat_activity.pid AND locktype = 'advisory'))"
)
"""The same for servers that hold rows which nobody waits for, as others pass over what is locked, or that migrate.

And for those that are told what they do not read: while one of them lags behind, PostgreSQL keeps every notification,
until there is no room for more.
"""
_LOST = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # of a connection that broke between two states
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    TimeoutError,
)


class PostgresDatabase:
    """The shared database. See `store.database.Database`. Raises `CannotOpen` for a URL that cannot be read."""

    shared = True
    file: str | None = None

    def __init__(self, url: str, *, stall: float = 10.0) -> None:
        self._dial = Dial(url)
        stalled = {"idle_in_transaction_session_timeout": str(int(stall * 1000))}
        self._stall = stall
        self._settings = _MIGRATING | stalled | {"statement_timeout": "25000"}
        self._engine: AsyncEngine | None = None
        self._writer: asyncpg.Connection | None = None
        self._listener: asyncpg.Connection | None = None
        self._readers: asyncpg.Pool | None = None
        self._writing = asyncio.Lock()
        self._talking = asyncio.Lock()
        self._heard: Heard | None = None
        self._ending: asyncio.Future[None] | None = None
        self._waiting = 0
        self._losses = 0

    async def open(self) -> None:
        """Connect to write and to read."""
        self._engine = create_async_engine(
            "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: self._dial.connect(_MIGRATING)
        )
        try:
            self._writer = await self._dial.connect(self._settings)
            await _warn_of_lost_writes(self._writer)
            self._readers = await asyncpg.create_pool(min_size=0, max_size=READERS, connect=self._connect_reader)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection."""
        for connection in (self._listener, self._writer):
            if connection is not None and not connection.is_closed():
                with suppress(Exception):
                    await connection.close(timeout=2)
        self._listener = self._writer = None
        if self._readers is not None:
            self._readers.terminate()
            self._readers = None
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    async def migrate(self) -> None:
        """Bring the schema up to this version, one server at a time."""
        try:
            await self._watched(upgrade(self._engine_or_trouble(), before=_ONE_AT_A_TIME))
        except (*_LOST, DBAPIError) as error:
            raise _trouble(error) from error

    async def prepare(self) -> None:
        """Make the schema where there is none; an older one is for `hurlbat migrate`, as other servers may use it."""
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                known = await self._watched(has_schema(self._engine_or_trouble()))
                if known:
                    await self._watched(check_version(self._engine_or_trouble()))
        except (*_LOST, DBAPIError) as error:
            raise _trouble(error) from error
        if not known:
            await self.migrate()

    async def write(self, script: Script[T]) -> T:
        """Run the script in one transaction on the writing connection."""
        async with self._writing:
            if self._writer is None or self._writer.is_closed():
                self._writer = await self._reconnect()
            connection = self._writer
            watching = asyncio.get_running_loop().call_later(self._stall, self._watch, connection)
            try:
                return await self._transact(connection, script, "BEGIN")
            except _ReadOnly:
                await self._look_elsewhere()
                raise
            except BaseException:
                # whatever state it is in, the next transaction must not inherit it
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()
                raise
            finally:
                watching.cancel()

    async def read(self, script: Script[T]) -> T:
        """Run the script on one snapshot."""
        if self._readers is None:
            raise DatabaseTrouble("the database is closed")
        try:
            async with self._readers.acquire(timeout=READER_SECONDS) as connection:
                return await self._transact(connection, script, "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ")
        except _LOST as error:
            raise _trouble(error) from error

    async def listen(self, heard: Heard) -> None:
        """Call `heard` with each message of the other servers, on a connection of its own."""
        self._heard = heard
        async with self._talking:
            await self._listen()

    async def notify(self, message: str) -> None:
        """Tell the other servers. Lost when the connection is, with all that wait behind it."""
        if self._waiting >= MAX_NOTIFICATIONS:
            return
        losses = self._losses
        self._waiting += 1
        try:
            async with self._talking:  # a connection says one thing at a time
                if losses == self._losses:
                    await self._listen()
                    await self._say(message)
        finally:
            self._waiting -= 1

    async def _say(self, message: str) -> None:
        if self._listener is None or self._listener.is_closed():
            return
        try:
            await self._listener.execute("SELECT pg_notify($1, $2)", CHANNEL, message, timeout=TALK_SECONDS)
        except (*_LOST, asyncpg.PostgresError):
            self._losses += 1
            self._listener.terminate()

    async def _listen(self) -> None:
        heard = self._heard
        if heard is None or (self._listener is not None and not self._listener.is_closed()):
            return
        try:
            self._listener = await self._reconnect()
            own = self._listener.get_server_pid()

            def pass_on(_: object, pid: int, __: str, payload: object) -> None:
                if pid != own:
                    heard(str(payload))

            async with asyncio.timeout(TALK_SECONDS):
                await self._listener.add_listener(CHANNEL, pass_on)
        except (DatabaseTrouble, *_LOST, asyncpg.PostgresError):
            self._losses += 1
            if self._listener is not None:
                self._listener.terminate()

    async def _transact(self, connection: Any, script: Script[T], begin: str) -> T:
        dialect = self._engine_or_trouble().dialect
        committing = False
        try:
            await connection.execute(begin, timeout=TRANSACTION_SECONDS)
            rows: Rows | None = None  # as a generator is begun
            while True:
                try:
                    ask = script.send(rows)  # type: ignore[arg-type]  # None begins a generator
                except StopIteration as done:
                    committing = True
                    await _commit(connection)
                    result: T = done.value
                    return result
                prepared = ask.statement.prepared(dialect)
                if isinstance(ask, Fetch):
                    rows = await connection.fetch(
                        prepared.sql, *prepared.arrange(ask.values), timeout=STATEMENT_SECONDS
                    )
                else:
                    if ask.rows:
                        values = ask.rows if prepared.as_declared else [prepared.arrange(row) for row in ask.rows]
                        await connection.executemany(prepared.sql, values, timeout=STATEMENT_SECONDS)
                    rows = ()
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.TransactionRollbackError) as error:
            await _roll_back(connection, script)
            if isinstance(error, asyncpg.StatementCompletionUnknownError):
                raise _trouble(error, unknown=committing) from error
            raise Clash(str(error)) from error
        except (asyncpg.DataError, ValueError):  # a value that no database takes: the fault of whoever gave it
            await _roll_back(connection, script)
            raise
        except TimeoutError as error:  # nothing more can be asked of it, not even to roll back
            script.close()
            connection.terminate()
            raise _trouble(error, unknown=committing) from error
        except asyncpg.ReadOnlySQLTransactionError as error:
            await _roll_back(connection, script)
            raise _ReadOnly(f"PostgreSQL: {error}") from error
        except (*_LOST, asyncpg.PostgresError) as error:
            await _roll_back(connection, script)
            raise _trouble(error, unknown=committing and _may_be_done(error)) from error
        except Exception:
            await _roll_back(connection, script)
            raise

    async def cut_off(self) -> None:
        """End the transactions of servers that have stood still in the middle of one, whoever waits for them or not."""
        await self._end_stalled(_END_WHO_HOLDS)

    def _watch(self, connection: asyncpg.Connection) -> None:
        """End who stands in the way of our transaction: a server that was stopped in the middle of its own."""
        if not connection.is_closed():
            self._ending = asyncio.ensure_future(self._end_stalled(_END_WHO_BLOCKS, connection.get_server_pid()))

    async def _end_stalled(self, sql: str, *pids: int) -> None:
        if self._readers is None:
            return
        try:
            async with self._readers.acquire(timeout=READER_SECONDS) as reader:
                ended = await reader.fetch(sql, self._stall, *pids, timeout=TRANSACTION_SECONDS)
        except (DatabaseTrouble, *_LOST, asyncpg.PostgresError):
            return
        if ended:
            log.warning("a server that holds on to rows and does nothing was cut off", connections=len(ended))

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what may have to wait for another server; say so, and cut off who only stands in the way."""
        task = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=self._stall))[0]:
                log.warning("the schema is waited for: another server migrates it, or the database stands still")
                await self.cut_off()
        finally:
            if task.cancel():
                await asyncio.wait({task})
        return task.result()

    async def _reconnect(self) -> asyncpg.Connection:
        try:
            return await self._dial.connect(self._settings)
        except CannotOpen as error:  # it could once: a certificate is missing now
            raise DatabaseTrouble(str(error)) from error

    async def _connect_reader(self, *_: object, **__: object) -> asyncpg.Connection:
        return await self._reconnect()

    async def _look_elsewhere(self) -> None:
        """Leave a host that takes no writes any longer: another one may do so now, or the same one later."""
        for connection in (self._writer, self._listener):
            if connection is not None:
                connection.terminate()
        if self._readers is not None:
            await self._readers.expire_connections()

    def _engine_or_trouble(self) -> AsyncEngine:
        if self._engine is None:
            raise DatabaseTrouble("the database is closed")
        return self._engine


class _ReadOnly(DatabaseTrouble):
    """A host takes no writes: it is a standby, or was made read-only."""


async def _commit(connection: Any) -> None:
    """Commit. A warning says that a standby may not have it yet, as when the wait for that was cancelled."""
    warnings: list[str] = []

    def warned(_: object, message: Any) -> None:
        if message.severity_en == "WARNING":
            warnings.append(message.message)

    connection.add_log_listener(warned)
    try:
        done = await connection.execute("COMMIT", timeout=TRANSACTION_SECONDS)
    finally:
        connection.remove_log_listener(warned)
    if warnings:
        raise DatabaseTrouble(f"PostgreSQL: {warnings[0]}", unknown=True)
    if done != "COMMIT":
        raise DatabaseTrouble("PostgreSQL rolled the transaction back")


def _may_be_done(error: Exception) -> bool:
    """Tell whether a COMMIT that failed so may have taken place. Of an ERROR the server has rolled everything back."""
    return not isinstance(error, asyncpg.PostgresError) or error.severity_en != "ERROR"


def _trouble(error: Exception, *, unknown: bool = False) -> DatabaseTrouble:
    said = getattr(error, "orig", None) or error
    return DatabaseTrouble(f"PostgreSQL: {str(said) or 'it does not answer'}", unknown=unknown)


async def _warn_of_lost_writes(connection: asyncpg.Connection) -> None:
    if await connection.fetchval("SHOW fsync", timeout=TRANSACTION_SECONDS) == "off":
        log.warning(
            "PostgreSQL runs with fsync=off: a crash of its machine loses what was acknowledged; "
            "set it to on in postgresql.conf"
        )


async def _roll_back(connection: Any, script: Script[Any]) -> None:
    script.close()
    if connection.is_closed() or not connection.is_in_transaction():
        return
    try:
        await connection.execute("ROLLBACK", timeout=TRANSACTION_SECONDS)
    except (*_LOST, asyncpg.PostgresError):
        connection.terminate()
