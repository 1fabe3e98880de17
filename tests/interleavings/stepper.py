"""Transactions of several servers, stepped statement by statement on real connections.

A side does the transactions of one server, one after the other, on a connection of its own. Its next step is known
before it is done: a statement, or the COMMIT or ROLLBACK that ends the transaction. BEGIN goes with the first
statement, as it takes neither a snapshot nor a lock.

A statement that has to wait for a lock blocks its side: that is asked of PostgreSQL (`pg_blocking_pids`), never guessed
from the time that has passed. It comes back by itself when the lock is free. When all sides wait for each other one of
them must give way, as after PostgreSQL's own look for deadlocks; which one is a fork of the schedule like any other.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.store.database import Clash
from hurlbat_dispatcher.store.statement import Ask, Fetch, Prepared, Rows, Script, Statement
from hurlbat_dispatcher.turn.fence import NotOwner
from tests.interleavings.schedules import Choose, Step

GLANCE, LONGEST = 0.001, 0.03
"""Seconds after which a statement that has not ended is asked about, at first and at last: what waits for a lock is
found at once, and what only waits for a CPU is not asked about so often that it gets none. They change nothing else."""
_LOCKING = re.compile(r"\bFOR (UPDATE|SHARE)\b")
_NEW_ROWS = re.compile(r"INSERT INTO (run|timeline) ")
"""New rows with keys that nobody else makes: they wait for nobody, and nobody for them."""
CLOCK = "the clock"
"""What the owner of the lanes reads as it takes its locks; readings by others can change their order."""
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE) (\w+)")


class Transaction(NamedTuple):
    """One transaction. `epoch` is that of the ownership that it relies on."""

    script: Script[Any]
    epoch: int | None = None


Program = Generator[Transaction, Any, None]
"""What a server does: yields transactions, is sent what they return, and is thrown `Clash` and `NotOwner`."""


class Fault(NamedTuple):
    """A planted fault: where the SQL of a statement matches `was`, it `becomes` something else."""

    statement: Statement
    was: str
    becomes: str

    def plant(self, sql: str) -> str:
        """Return the faulty SQL."""
        faulty, places = re.subn(self.was, self.becomes, sql)
        assert places == 1, f"{self.was} is there {places} times: {sql}"
        return faulty


@dataclass(frozen=True, slots=True)
class _End:
    """How a transaction ends: with COMMIT and a result, or with ROLLBACK and an error."""

    result: Any = None
    error: Exception | None = None

    @property
    def sql(self) -> str:
        return "COMMIT" if self.error is None else "ROLLBACK"


class Side:
    """One server and its connection.

    `broken` is the error that its program did not handle, if any; `clashes` counts the transactions that clashed, and
    `waits` the statements that had to wait for a lock.
    """

    def __init__(
        self, name: str, connection: asyncpg.Connection, dialect: Dialect, faults: Sequence[Fault] = ()
    ) -> None:
        self.name = name
        self.connection = connection
        self.pid: int = connection.get_server_pid()
        self.faults = faults
        self.broken: Exception | None = None
        self.clashes = 0
        self.waits = 0
        self._dialect = dialect
        self._program: Program | None = None
        self._transaction = Transaction(iter(()))  # type: ignore[arg-type]  # never looked at
        self._fresh = False
        self._touched: frozenset[str] = frozenset()
        self._next: Ask | _End | None = None
        self._doing: asyncio.Task[Rows] | None = None

    # -- what it is about to do --------------------------------------------------------------------------------------

    def begin(self, program: Program) -> None:
        """Take a program; nothing of it is done yet."""
        self.broken, self.clashes, self.waits = None, 0, 0
        self._program = program
        self._turn_to(lambda: next(program))

    @property
    def step(self) -> Step | None:
        """What it does next; None when it is through, or blocked."""
        if self._doing is not None or self._next is None:
            return None
        if isinstance(self._next, _End):
            return self.end(self._next.sql)
        sql = self._prepared(self._next.statement).sql
        tables = _TABLE.findall(sql)
        locks = self._changes() is not None
        if _NEW_ROWS.match(sql):
            tables = []
        touches = {_locks_of(table) for table in tables[:1] if locks}
        sees = set(tables)
        if "clock_timestamp" in sql:
            touches, sees = (touches | {CLOCK}, sees) if locks else (touches, sees | {CLOCK})
        return Step(sql, frozenset(touches), frozenset(sees))

    def end(self, what: str) -> Step:
        """The end of its transaction: its locks are free, and a COMMIT shows to others what it has changed."""
        if not self._touched:
            return Step(what)
        shown = {*self._touched, "the history"} if what == "COMMIT" else set()
        return Step(what, frozenset({_locks_of(table) for table in self._touched} | shown))

    @property
    def blocked(self) -> bool:
        """Tell whether a statement of it waits for a lock."""
        return self._doing is not None

    @property
    def epoch(self) -> int | None:
        """The epoch that its transaction relies on."""
        return self._transaction.epoch

    # -- doing it ----------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Do the next step; `settle` tells when it has ended."""
        assert self.step is not None
        assert self._next is not None
        changes = self._changes()
        if changes is not None:
            self._touched |= {changes}
        self._doing = asyncio.create_task(self._do(self._next, begins=self._fresh))
        self._fresh = False

    async def settle(self, watcher: asyncpg.Connection, others: frozenset[int]) -> bool:
        """Wait until the step has ended, or waits for a lock that one of the others has; tell whether it has ended."""
        glance = GLANCE
        while self._doing is not None and not self._doing.done():
            await asyncio.wait({self._doing}, timeout=glance)
            if self._doing.done():
                break
            glance = min(2 * glance, LONGEST)
            blockers = await watcher.fetchval("SELECT pg_blocking_pids($1)", self.pid)
            if blockers and others.issuperset(blockers):
                return False
        return True

    def proceed(self) -> bool:
        """Take the outcome of a step that has ended, and learn the next; tell whether something was committed."""
        assert self._doing is not None
        done, self._doing = self._doing, None
        if isinstance(self._next, _End):
            done.result()
            return self._over(self._next)
        try:
            rows = done.result()
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.TransactionRollbackError) as error:
            self._clash(str(error))
        except asyncpg.QueryCanceledError:
            self._clash("deadlock detected")
        else:
            self._ask(rows)
        return False

    async def give_way(self, watcher: asyncpg.Connection) -> None:
        """End a statement that waits for a lock, as PostgreSQL ends a deadlock."""
        await watcher.fetchval("SELECT pg_cancel_backend($1)", self.pid)
        assert self._doing is not None
        await asyncio.wait({self._doing})

    async def abandon(self, watcher: asyncpg.Connection) -> None:
        """Leave the program where it is, and take back what was not committed."""
        if self._doing is not None:
            if not self._doing.done():
                await watcher.fetchval("SELECT pg_cancel_backend($1)", self.pid)
            with suppress(asyncpg.PostgresError):
                await self._doing
            self._doing = None
        if self._program is not None:
            self._program.close()
            self._transaction.script.close()
            self._program = None
        self._next = None
        if self.connection.is_in_transaction():
            await self.connection.execute("ROLLBACK")

    async def _do(self, what: Ask | _End, *, begins: bool) -> Rows:
        if begins:
            await self.connection.execute("BEGIN")
        if isinstance(what, _End):
            await self.connection.execute(what.sql)
            return ()
        prepared = self._prepared(what.statement)
        if isinstance(what, Fetch):
            rows: Rows = await self.connection.fetch(prepared.sql, *prepared.arrange(what.values))
            return rows
        await self.connection.executemany(prepared.sql, [prepared.arrange(row) for row in what.rows])
        return ()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _prepared(self, statement: Statement) -> Prepared:
        prepared = statement.prepared(self._dialect)
        for fault in self.faults:
            if fault.statement is statement:
                return Prepared(
                    fault.plant(prepared.sql),
                    prepared.order,
                    prepared.lists,
                    prepared.constants,
                    prepared.as_declared,
                )
        return prepared

    def _changes(self) -> str | None:
        """Return the table that the next statement locks rows of, or writes to."""
        if self._next is None or isinstance(self._next, _End):
            return None
        sql = self._prepared(self._next.statement).sql
        locks = not isinstance(self._next, Fetch) or _LOCKING.search(sql) is not None
        return _TABLE.findall(sql)[0] if locks else None

    def _turn_to(self, move: Callable[[], Transaction]) -> None:
        """Let the program go on to its next transaction."""
        try:
            self._transaction = move()
        except StopIteration:
            self._next = None
        except (Clash, NotOwner) as error:
            self._next, self.broken = None, error
        else:
            self._fresh, self._touched = True, frozenset()
            self._ask(None)

    def _ask(self, rows: Rows | None) -> None:
        """Send the script what it asked for, and learn what it asks for next."""
        script = self._transaction.script
        try:
            ask = script.send(rows)  # type: ignore[arg-type]  # None begins a generator
            while not isinstance(ask, Fetch) and not ask.rows:
                ask = script.send(())
            self._next = ask
        except StopIteration as over:
            self._next = _End(result=over.value)
        except NotOwner as lost:
            self._next = _End(error=lost)

    def _clash(self, reason: str) -> None:
        self._transaction.script.close()
        self._next = _End(error=Clash(reason))
        self.clashes += 1

    def _over(self, end: _End) -> bool:
        program = self._program
        assert program is not None
        error = end.error
        if error is None:
            self._turn_to(lambda: program.send(end.result))
        else:
            self._turn_to(lambda: program.throw(error))
        return error is None


Committed = Callable[[Side, int | None], Awaitable[None]]
"""Hears of each commit: by whom, and in which epoch."""


async def play(sides: Sequence[Side], watcher: asyncpg.Connection, choose: Choose, committed: Committed) -> bool:
    """Play the sides' programs to their ends in one schedule; tell whether it was one that was not seen before."""
    pids = frozenset(side.pid for side in sides)
    while True:
        ready = {side.name: side for side in sides if side.step is not None}
        waiting = [side for side in sides if side.blocked]
        if not ready and not waiting:
            return True
        if ready:
            chosen = choose({name: side.step for name, side in ready.items() if side.step is not None})
        else:
            chosen = choose({side.name: side.end("gives way to end a deadlock") for side in waiting})
        if chosen is None:
            return False
        if ready:
            epoch = ready[chosen].epoch
            ready[chosen].go()
            if not await ready[chosen].settle(watcher, pids):
                ready[chosen].waits += 1
            elif ready[chosen].proceed():
                await committed(ready[chosen], epoch)
        else:
            await next(side for side in waiting if side.name == chosen).give_way(watcher)
        for side in waiting:
            if await side.settle(watcher, pids):
                side.proceed()


def _locks_of(table: str) -> str:
    return f"locks of {table}"
