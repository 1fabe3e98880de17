"""Planted bugs in the ways in which runs start: schedules, events, callbacks, gathering and moves."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from typing import Any

import sqlalchemy as sa

from hurlbat_dispatcher import writer as writing
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.schedules import Due
from hurlbat_dispatcher.listening import Listening
from hurlbat_dispatcher.schedules import Schedules
from hurlbat_dispatcher.store import firing as firing_store
from hurlbat_dispatcher.store import gathering as gathering_store
from hurlbat_dispatcher.store import publishing as publishing_store
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.schema import inline, schedule_fire
from hurlbat_dispatcher.store.statement import Statement
from hurlbat_dispatcher.turn import callbacks, crank, decide, due, firing, gathering, publishing
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Entry, Operation, Placed, Submit
from hurlbat_dispatcher.turn.publishing import read_events
from hurlbat_dispatcher.writer import Writer
from tests.sim.bugs import bug, swap
from tests.sim.ways_plan import GATHERING

Script = Generator[Any, Any, Any]

_EVENTS: ContextVar[Any] = ContextVar("events")
_DESK: ContextVar[Desk] = ContextVar("desk")


def _replacing(kept: Statement) -> Statement:
    """Return an insert that puts its row in the place of one with the same key."""
    insert = kept.clause
    assert isinstance(insert, sa.Insert)
    return Statement(insert.prefix_with("OR REPLACE"), kept.names)


def _put_off(desk: Desk, ledger: Ledger, entry: Entry, _: Any) -> Placed:
    """Place a run in the next turn, of which this server alone knows."""
    ledger.deferred.append(Submit([entry]))
    return Placed(None, entry.id, created=True)


def _put_off_more(desk: Desk, ledger: Ledger, entries: Sequence[Entry], intake: Any) -> Script:
    yield from ()
    return [_put_off(desk, ledger, entry, intake) for entry in entries]


class _Forgetful:
    """A desk that does not know what time it was before the clock was set back."""

    last_now = 0

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._desk, name)


def _forgetful(begin: Any) -> Any:
    def made(schedules: Any, *given: Any, **more: Any) -> None:
        begin(schedules, *given, **more)
        schedules._desk = _Forgetful(schedules._desk)

    return made


# -- schedules ---------------------------------------------------------------------------------------------------------


@bug("a due time is fired whatever was fired before, and its fire has no key of its own", hint=281)
def fired_without_its_key(stack: ExitStack) -> None:
    found = firing_store.FIRED.clause
    assert isinstance(found, sa.Select)
    nothing = found.where(schedule_fire.c.outcome == inline("nothing"))
    swap(stack, firing_store, "FIRED", lambda fired: Statement(nothing, fired.names))
    swap(stack, firing_store, "KEEP_FIRE", _replacing)
    swap(stack, Schedules, "__init__", _forgetful)  # or a clock that is set back brings no time a second time


@bug("a schedule goes on to its next time before the run of this one is stored")
def moved_on_before_the_run(stack: ExitStack) -> None:
    def make(place_more: Any) -> Any:
        def later(desk: Desk, ledger: Ledger, entries: Sequence[Entry], intake: Any) -> Script:
            by_hand = '"manual":true' in (entries[0].submission.trigger or "")
            return (yield from (place_more if by_hand else _put_off_more)(desk, ledger, entries, intake))

        return later

    swap(stack, firing, "place_more", make)


@bug("every server fires schedules, not the owner of the lanes alone", hint=3)
def fired_by_everybody(stack: ExitStack) -> None:
    def make(tick: Any) -> Any:
        def fire(desk: Desk, ledger: Ledger, *, sweep: bool) -> Script:
            yield from tick(desk, ledger, sweep=sweep)
            if not desk.owns:
                yield from firing.fire_due(desk, ledger, _INTAKE.get())

        return fire

    def remember(made: Any) -> Any:
        def intake(*given: Any) -> Any:
            found = made(*given)
            _INTAKE.set(found)
            return found

        return intake

    swap(stack, crank, "Intake", remember)
    swap(stack, due, "tick", make)


_INTAKE: ContextVar[Any] = ContextVar("intake")


@bug("of several due times that have come only the newest is fired", hint=8)
def only_the_newest_fires(stack: ExitStack) -> None:
    swap(stack, firing, "judge", lambda _: lambda times, now, missed: Due(tuple(times[-1:]), None))


@bug("a schedule goes on from a moment that has not come yet", hint=8)
def goes_on_from_later(stack: ExitStack) -> None:
    swap(stack, firing, "_next", lambda following: lambda row, now: following(row, now + 5_000))


@bug("nobody looks whether an earlier run of a schedule is alive", hint=2)
def overlap_unseen(stack: ExitStack) -> None:
    swap(stack, decide, "is_over", lambda _: lambda ledger, run_id: True)


# -- events ------------------------------------------------------------------------------------------------------------


@bug("an event is stored first, and the runs that it starts in another transaction", hint=8)
def event_before_its_runs(stack: ExitStack) -> None:
    swap(stack, publishing, "place", lambda _: _put_off)


@bug("whether an event is known is read before the transaction that stores it", hint=101)
def events_known_outside(stack: ExitStack) -> None:
    swap(stack, publishing_store, "KEEP_EVENT", _replacing)
    swap(stack, publishing_store, "KEEP_START", _replacing)

    def make_turn(turn: Any) -> Any:
        async def early(writer: Writer, operations: Sequence[Operation]) -> Ledger:
            _EVENTS.set(await writer._database.read(read_events(operations)))
            ledger: Ledger = await turn(writer, operations)
            return ledger

        return early

    def remembered(operations: Sequence[Operation]) -> Script:
        yield from ()
        return _EVENTS.get()

    swap(stack, Writer, "_turn", make_turn)
    swap(stack, crank, "read_events", lambda _: remembered)


@bug("an event starts one run of a task, however many of its filters are true", hint=18)
def one_run_for_all_filters(stack: ExitStack) -> None:
    def make(starts: Any) -> Any:
        return lambda listening, event: list({start.task: start for start in starts(listening, event)}.values())

    swap(stack, Listening, "starts", make)


# -- callbacks ---------------------------------------------------------------------------------------------------------


@bug("what runs for a failure is remembered, and stored in a later turn", hint=2)
def called_later(stack: ExitStack) -> None:
    swap(stack, callbacks, "place_more", lambda _: _put_off_more)


@bug("the failure of what was called for a failure calls again", hint=12)
def calls_without_end(stack: ExitStack) -> None:
    swap(stack, callbacks, "is_failure", lambda _: lambda trigger: False)


# -- gathering ---------------------------------------------------------------------------------------------------------


@bug("when a gathered run is due is known to the server alone that took it in", hint=12)
def timer_lost_at_a_crash(stack: ExitStack) -> None:
    timers: dict[int, set[str]] = {}

    def make_begin(begin_with: Any) -> Any:
        def remember(*given: Any) -> Any:
            row = begin_with(*given)
            timers.setdefault(id(_DESK.get()), set()).add(row.id)
            return row

        return remember

    def make_turn(turn: Any) -> Any:
        def known(desk: Desk, operations: Sequence[Operation]) -> Script:
            _DESK.set(desk)
            return (yield from turn(desk, operations))

        return known

    def make_take(take: Any) -> Any:
        def only_known(ledger: Ledger, statement: Statement, *values: Any) -> Script:
            rows = yield from take(ledger, statement, *values)
            if statement is not runs.DUE:
                return rows
            known = timers.get(id(_DESK.get()), set())
            return [row for row in rows if row.attempt or row.task not in GATHERING or row.id in known]

        return only_known

    def make_wake(wake_at: Any) -> Any:  # it is not looked for again and again
        return lambda ledger, moment: None if moment is not None and moment < ledger.now else wake_at(ledger, moment)

    swap(stack, Ledger, "wake_at", make_wake)
    swap(stack, writing, "turn", make_turn)
    swap(stack, gathering, "begin_with", make_begin)
    swap(stack, due, "_take", make_take)


@bug("what a stored run has gathered is kept in memory", hint=2)
def gathered_in_memory(stack: ExitStack) -> None:
    def make(settle: Any) -> Any:
        def forget(*given: Any) -> None:
            settle(*given)
            [ledger] = [one for one in given if isinstance(one, Ledger)]
            kept = (gathering_store.BEGIN, gathering_store.GO_ON)
            ledger.gathered = [(statement, rows) for statement, rows in ledger.gathered if statement in kept]

        return forget

    swap(stack, crank, "settle", make)


@bug("a run that has started gathers on", hint=33)
def gathers_after_its_start(stack: ExitStack) -> None:
    swap(stack, gathering, "_may_take", lambda _: lambda kind, row, now: row.state not in FINAL)
    swap(
        stack, gathering, "takes", lambda _: lambda gather, found, now: gather.size == 1 or found.submits < gather.size
    )


# -- runs of later -----------------------------------------------------------------------------------------------------


@bug("a run that has started is moved", hint=68)
def moved_after_its_start(stack: ExitStack) -> None:
    def make(move_run: Any) -> Any:
        def anyhow(desk: Desk, ledger: Ledger, row: Any, *more: Any) -> Any:
            if row.state == RunState.RUNNING:
                row = row._replace(state=RunState.QUEUED, ready=0, attempt=0, joined_at=None, due_at=ledger.now + 1)
            return move_run(desk, ledger, row, *more)

        return anyhow

    swap(stack, decide, "move_run", make)
