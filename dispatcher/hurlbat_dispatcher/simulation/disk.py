"""The one database of a world: in memory, on one connection, with a clock of its own and a bus between the servers.

Each transaction is one piece here, so their order is the order of commits. What a real database does to transactions
that overlap is not to be seen in a simulation; it is held on PostgreSQL.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.pool import StaticPool

from hurlbat_dispatcher.simulation.clock import VirtualClock
from hurlbat_dispatcher.simulation.faults import Fault, Trouble
from hurlbat_dispatcher.simulation.loop import VirtualLoop
from hurlbat_dispatcher.simulation.process import current
from hurlbat_dispatcher.simulation.trace import WORLD, Trace
from hurlbat_dispatcher.store.database import DatabaseTrouble, Heard
from hurlbat_dispatcher.store.migrate import upgrade_on
from hurlbat_dispatcher.store.sqlite import transact
from hurlbat_dispatcher.store.statement import Script

T = TypeVar("T")

_DIALECT: Final = pysqlite.dialect()
_LATE_SECONDS: Final = (0.5, 6.0)


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """A server that hears what others say; `context` is the one that it listens in."""

    heard: Heard
    context: Context


class Disk:
    """What is stored, and outlives every process. `on_commit` is called with the name of who committed."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock, trouble: Trouble, trace: Trace) -> None:
        self.clock = clock
        self.on_commit: Callable[[str], None] | None = None
        self.commits = 0
        self.connection = sqlite3.connect(
            ":memory:", isolation_level=None, cached_statements=256, factory=_Connection, check_same_thread=False
        )
        self.connection.deserialize(_empty())
        self.connection.execute("PRAGMA foreign_keys=on")
        self.connection.execute("PRAGMA temp_store=memory")
        self.connection.create_function("hurlbat_now", 0, clock.now_ms)
        self._loop = loop
        self._trouble = trouble
        self._trace = trace
        self._listeners: list[Listener] = []
        self._away_until = 0.0
        self._unwritable_until = 0.0
        self._closed = False

    def close(self) -> None:
        """End it with the world: who asks it now is told that it is away."""
        self._closed = True
        self._listeners.clear()
        self.connection.close()

    # -- transactions --------------------------------------------------------------------------------------------------

    def write(self, script: Script[T]) -> T:
        """Run a script and commit, all at once. Raises what a real database would."""
        try:
            self._may_write()
            before = self.connection.total_changes
            if self._trouble.strikes(Fault.BROKEN):
                self.connection.fuse = 1 + self._trouble.one_of(8)
            if self._trouble.strikes(Fault.UNKNOWN):
                self._write_unknown(script)
            result = self._transact(script, "BEGIN IMMEDIATE", "COMMIT")
        except BaseException:
            script.close()
            raise
        finally:
            self.connection.fuse = 0
        self._committed(self.connection.total_changes - before)
        return result

    def read(self, script: Script[T]) -> T:
        """Run a script on what is stored now."""
        try:
            self._may_read()
            return self._transact(script, "BEGIN", "ROLLBACK")
        except BaseException:
            script.close()
            raise

    def look(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read rows from outside of the world, whatever state it is in."""
        return self.connection.execute(sql, values).fetchall()

    def go_away(self, seconds: float) -> None:
        """Let it be away for so long; every connection is lost."""
        self._away_until = self._loop.time() + seconds
        self._listeners.clear()
        self._trace.note(WORLD, f"the database is away for {seconds:.3f} s")

    def refuse_writes(self, seconds: float) -> None:
        """Let it be read-only for so long, as a standby or a full disk is."""
        self._unwritable_until = self._loop.time() + seconds
        self._trace.note(WORLD, f"the database takes no writes for {seconds:.3f} s")

    def _transact(self, script: Script[T], begin: str, end: str) -> T:
        return transact(self.connection, _DIALECT, script, begin, end)

    def _write_unknown(self, script: Script[Any]) -> None:
        stored = bool(self._trouble.one_of(2))
        before = self.connection.total_changes
        self._transact(script, "BEGIN IMMEDIATE", "COMMIT" if stored else "ROLLBACK")
        self._trace.note(_who(), f"does not know of its commit, {'stored' if stored else 'lost'}")
        if stored:
            self._committed(self.connection.total_changes - before)
        raise DatabaseTrouble("the connection was lost during the commit", unknown=True)

    def _committed(self, rows: int) -> None:
        if rows:
            self.commits += 1
            self._trace.note(_who(), f"commits {rows} rows")
            if self.on_commit is not None:
                self.on_commit(_who())

    def _may_read(self) -> None:
        if self._closed:
            raise DatabaseTrouble("the world is over")
        if self._trouble.strikes(Fault.OUTAGE):
            self.go_away(self._trouble.seconds(self._trouble.faults.outage_seconds))
        if self._loop.time() < self._away_until:
            raise DatabaseTrouble("the database cannot be reached")
        if self._trouble.strikes(Fault.CONNECTION_LOST):
            self.forget(_who())
            raise DatabaseTrouble("the connection was lost")

    def _may_write(self) -> None:
        self._may_read()
        if self._trouble.first_of(Fault.READ_ONLY, Fault.DISK_FULL):
            self.refuse_writes(self._trouble.seconds(self._trouble.faults.outage_seconds))
        if self._loop.time() < self._unwritable_until:
            raise DatabaseTrouble("the database takes no writes: it is read-only, or its disk is full")
        if self._trouble.strikes(Fault.BUSY):
            raise DatabaseTrouble("the database is locked")

    # -- the bus -------------------------------------------------------------------------------------------------------

    def listen(self, heard: Heard) -> None:
        """Call `heard` in the current process with what others say, until the connection is lost."""
        if self._closed or self._loop.time() < self._away_until:
            return
        if all(listener.heard != heard for listener in self._listeners):
            self._listeners.append(Listener(heard, copy_context()))

    def forget(self, who: str) -> None:
        """Lose the connection that a process listens on."""
        self._listeners = [one for one in self._listeners if one.context.run(_who) != who]

    def notify(self, message: str) -> None:
        """Tell all who listen but the current process; each may hear it late, or not at all."""
        own = _who()
        for listener in self._listeners:
            if listener.context.run(_who) == own or self._trouble.strikes(Fault.MESSAGE_LOST):
                continue
            seconds = self._trouble.seconds(self._trouble.faults.disk_seconds)
            if self._trouble.strikes(Fault.MESSAGE_LATE):
                seconds += self._trouble.seconds(_LATE_SECONDS)
            self._loop.call_later(seconds, self._tell, listener, message, context=listener.context)

    def _tell(self, listener: Listener, message: str) -> None:
        if listener in self._listeners:
            listener.heard(message)


class _Connection(sqlite3.Connection):
    """A connection that fails in the middle of a transaction when its fuse burns down."""

    fuse = 0

    def execute(self, *args: Any) -> sqlite3.Cursor:
        self._burn()
        return super().execute(*args)

    def executemany(self, *args: Any) -> sqlite3.Cursor:
        self._burn()
        return super().executemany(*args)

    def _burn(self) -> None:
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                raise sqlite3.OperationalError("disk I/O error")


def _who() -> str:
    process = current()
    return WORLD if process is None else process.name


@cache
def _empty() -> bytes:
    """Make the schema by the real migrations, once."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection:
        upgrade_on(connection)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        made = driver.serialize()
    engine.dispose()
    return made
