"""Planted bugs in what happens around a turn: its commit, its lease, what is sent, and what servers tell each other."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any, Final

import sqlalchemy as sa

from hurlbat_dispatcher import writer as writing
from hurlbat_dispatcher.assembly import Parts
from hurlbat_dispatcher.loops.lease import Lease
from hurlbat_dispatcher.neighbours import Neighbours
from hurlbat_dispatcher.outbox import Outbox
from hurlbat_dispatcher.simulation.database import SimulatedDatabase
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.store.schema import RUNNING, run
from hurlbat_dispatcher.store.statement import AnyOf, Statement, bind
from hurlbat_dispatcher.taken import Taken
from hurlbat_dispatcher.turn import crank
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Entry, Operation, Submit
from hurlbat_dispatcher.turn.submits import entries_of, read_keys
from hurlbat_dispatcher.writer import Writer
from tests.sim.bugs import bug, swap

Script = Generator[Any, Any, Any]

SHARD_COLUMNS: Final = 4
"""Owner, epoch, end of the lease, and the time, which alone comes from a clock."""
_WRITER: ContextVar[Writer] = ContextVar("writer")
_KEYS: ContextVar[Any] = ContextVar("keys")


def _knowing(stack: ExitStack) -> None:
    """Let every turn know whose it is."""

    def make(turn: Any) -> Any:
        async def known(writer: Writer, operations: Sequence[Operation]) -> Ledger:
            _WRITER.set(writer)
            ledger: Ledger = await turn(writer, operations)
            return ledger

        return known

    swap(stack, Writer, "_turn", make)


@bug("a lease is counted by the clock of the server's host")
def lease_by_the_hosts_clock(stack: ExitStack) -> None:
    class ByTheHost:
        def __init__(self, lease: Any) -> None:
            self._lease = lease
            self._database = lease._database
            self.shared = self._database.shared

        async def write(self, script: Script) -> Any:
            return await self._database.write(self._told(script))

        def _told(self, script: Script) -> Script:
            rows: Any = None
            while True:
                try:
                    ask = script.send(rows)
                except StopIteration as done:
                    return done.value
                rows = yield ask
                if rows and len(rows[0]) == SHARD_COLUMNS:
                    rows = [(*rows[0][:-1], self._lease._clock.now_ms())]

    def make(run_once: Any) -> Any:
        async def by_the_host(lease: Any) -> None:
            real, lease._database = lease._database, ByTheHost(lease)
            try:
                await run_once(lease)
            finally:
                lease._database = real

        return by_the_host

    swap(stack, Lease, "run_once", make)


@bug("an attempt is sent before the commit that starts it", hint=16)
def sent_before_the_commit(stack: ExitStack) -> None:
    _knowing(stack)

    def make(turn: Any) -> Any:
        def hasty(desk: Any, operations: Any) -> Script:
            ledger = yield from turn(desk, operations)
            committed: Any = _WRITER.get()._committed
            parts: Parts = committed.__self__
            parts.outbox.send([one for one in ledger.deliveries if parts.taken.take(one[1].run_id, one[1].attempt)])
            ledger.deliveries = []
            return ledger

        return hasty

    swap(stack, writing, "turn", make)


@bug("a submit is acknowledged before its commit", hint=13)
def acknowledged_before_the_commit(stack: ExitStack) -> None:
    def make(turn: Any) -> Any:
        def hasty(desk: Any, operations: Any) -> Script:
            ledger = yield from turn(desk, operations)
            for reply, value in ledger.replies:
                if not reply.done() and not isinstance(value, Exception):
                    reply.set_result(value)
            return ledger

        return hasty

    swap(stack, writing, "turn", make)


@bug("idempotency keys are read before the transaction that stores them", hint=4)
def keys_read_outside(stack: ExitStack) -> None:
    keep = runs.KEEP_KEY.clause
    assert isinstance(keep, sa.Insert)
    swap(stack, runs, "KEEP_KEY", lambda kept: Statement(keep.prefix_with("OR REPLACE"), kept.names))

    def make_turn(turn: Any) -> Any:
        async def early(writer: Writer, operations: Sequence[Operation]) -> Ledger:
            _KEYS.set(await writer._database.read(read_keys(entries_of(operations))))
            ledger: Ledger = await turn(writer, operations)
            return ledger

        return early

    def remembered(entries: Sequence[Entry]) -> Script:
        yield from ()
        return _KEYS.get()

    swap(stack, Writer, "_turn", make_turn)
    swap(stack, crank, "read_keys", lambda _: remembered)


@bug("servers tell each other nothing of runs, and nobody sweeps")
def wake_up_dropped(stack: ExitStack) -> None:
    def make(notify: Any) -> Any:
        async def silent(database: Any, message: str) -> None:
            if "registry" in message or "moved" in message:
                await notify(database, message)

        return silent

    async def idle(parts: Parts) -> None:
        await parts.database.listen(parts.neighbours.heard)
        await parts._reload()

    swap(stack, SimulatedDatabase, "notify", make)
    swap(stack, Parts, "_sweep", lambda _: idle)


@bug("a commit whose outcome is unknown is taken for one that failed, and done again", hint=33)
def unknown_taken_for_failure(stack: ExitStack) -> None:
    def make(in_trouble: Any) -> Any:
        def again(writer: Any, trouble: DatabaseTrouble, operations: Sequence[Operation]) -> None:
            submits = [one for one in operations if isinstance(one, Submit)] if trouble.unknown else []
            ids = writer._committed.__self__.ids
            for submit in submits:
                submit.entries = [entry._replace(id=ids.new()) for entry in submit.entries]
            in_trouble(writer, trouble, [one for one in operations if one not in submits])
            writer._queue.extend(submits)

        return again

    swap(stack, Writer, "_in_trouble", make)


@bug("a commit whose outcome is unknown is taken for one that was done", hint=13)
def unknown_taken_for_success(stack: ExitStack) -> None:
    made: ContextVar[Any] = ContextVar("made", default=None)

    def remember(turn: Any) -> Any:
        def kept(desk: Any, operations: Any) -> Script:
            ledger = yield from turn(desk, operations)
            made.set(ledger)
            return ledger

        return kept

    def believe(turn: Any) -> Any:
        async def trusting(writer: Writer, operations: Sequence[Operation]) -> Ledger:
            made.set(None)
            try:
                ledger: Ledger = await turn(writer, operations)
            except DatabaseTrouble as trouble:
                if not trouble.unknown or made.get() is None:
                    raise
                return made.get()  # type: ignore[no-any-return]  # the ledger of the turn
            return ledger

        return trusting

    swap(stack, writing, "turn", remember)
    swap(stack, Writer, "_turn", believe)


@bug("a server sends without a look at its lease", hint=16)
def sends_without_its_lease(stack: ExitStack) -> None:
    swap(stack, Lease, "holds", lambda _: lambda lease: True)


@bug("what a turn puts off to the next one is lost", hint=166)
def deferred_is_lost(stack: ExitStack) -> None:
    def make(after: Any) -> Any:
        def forgetful(writer: Any, ledger: Ledger) -> None:
            ledger.deferred = []
            after(writer, ledger)

        return forgetful

    swap(stack, Writer, "_after", make)


@bug("a server does not remember what it has taken to send")
def taken_twice(stack: ExitStack) -> None:
    swap(stack, Taken, "take", lambda _: lambda taken, run_id, attempt: True)
    swap(stack, Taken, "attempts", lambda _: property(lambda taken: frozenset()))
    swap(stack, Outbox, "handed_over", lambda _: property(lambda outbox: frozenset()))


@bug("what the database did not take is not kept for later", hint=23)
def ends_not_kept(stack: ExitStack) -> None:
    def make(in_trouble: Any) -> Any:
        def drop(writer: Any, trouble: DatabaseTrouble, operations: Sequence[Operation]) -> None:
            in_trouble(writer, trouble, [one for one in operations if one.reply is not None])

        return drop

    swap(stack, Writer, "_in_trouble", make)
    swap(stack, Writer, "recall", lambda _: lambda writer: None)


@bug("whoever hears of a start sends it, whomever it is for", hint=2)
def sent_by_whoever_hears(stack: ExitStack) -> None:
    anybody = bind("me", sa.String()) != sa.literal_column("''")
    take = sa.select(*runs._TO_SEND, run.c.worker).where(runs._TENANT, AnyOf(run.c.id, "ids"), RUNNING, anybody)
    take = take.where(run.c.lease_until.is_(None))

    def make(do: Any) -> Any:
        def greedy(neighbours: Any, said: dict[str, Any]) -> None:
            mine = [(neighbours._desk.me, run_id) for _, run_id in said.get("started", ())]
            do(neighbours, said | {"started": mine})

        return greedy

    swap(stack, Neighbours, "_do", make)
    swap(stack, runs, "TAKE", lambda old: Statement(take, old.names))
