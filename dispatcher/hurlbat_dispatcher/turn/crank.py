"""The turn: read what the operations need, decide by the pure rules, admit what can start now, write it all, commit.

A run that finds room is stored as running in the very commit that accepts it, so its plain life is one insert and one
update. Nothing here waits for the network.
"""

from collections.abc import Callable, Generator, Mapping, Sequence

from hurlbat_dispatcher.domain.holding import look
from hurlbat_dispatcher.domain.lanes import Started
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.slots import AGO_MS
from hurlbat_dispatcher.domain.workers import NOWHERE
from hurlbat_dispatcher.errors import Conflict, NotFound, Problem
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import callbacks, composing, courses, decide, due, firing, joining, starts
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.fence import fenced
from hurlbat_dispatcher.turn.gathering import Gatherings, read_open, settle
from hurlbat_dispatcher.turn.knowing import find_lanes
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import (
    AttemptEnd,
    Beat,
    Cancel,
    Detach,
    Displace,
    End,
    Fire,
    Freed,
    Look,
    Move,
    Note,
    Operation,
    Publish,
    Recall,
    Refresh,
    Replay,
    Signal,
    Stopped,
    Submit,
    Take,
    Tick,
)
from hurlbat_dispatcher.turn.publishing import publish, read_events
from hurlbat_dispatcher.turn.submits import Intake, answer_submits, entries_of, parents_of, place_all, read_keys

MAX_STARTS = 1_000
"""Starts in one turn; what could start besides starts in the next."""


def turn(desk: Desk, operations: Sequence[Operation]) -> Generator[Ask, Rows, Ledger]:
    """Do the operations in one transaction. Raises `NotOwner` when the ownership was lost before it."""
    ledger, entries, gatherings = Ledger(0), entries_of(operations), Gatherings(desk.most_input)
    if desk.owns:
        ledger.now = yield from fenced(desk)
        yield from _load(desk, ledger, operations, (yield from read_open(gatherings, entries)))
    else:  # the clock is read when the rows are ours: what another server wrote meanwhile is not to be later
        yield from _load(desk, ledger, operations, (yield from read_open(gatherings, entries)))
        ledger.now = desk.tell_time((yield from runs.database_now()))
    now = ledger.now
    if desk.leap:
        yield from due.leap(desk)
    yield from find_lanes(desk, entries, now)
    intake = Intake((yield from read_keys(entries)), gatherings)
    events = yield from read_events(operations)
    ticks = [operation for operation in operations if isinstance(operation, Tick)]
    for operation in operations:
        if isinstance(operation, Submit):
            place_all(desk, ledger, operation, intake)
        elif isinstance(operation, Publish):
            publish(desk, ledger, operation, intake, events)
        elif isinstance(operation, Fire):
            yield from firing.fire_now(desk, ledger, intake, operation)
        elif isinstance(operation, Recall):
            yield from starts.recall(desk, ledger, operation)
        elif isinstance(operation, Take):
            yield from starts.take(desk, ledger, operation.run_ids)
        elif not isinstance(operation, Tick | Look):
            _apply(desk, ledger, operation)
    if ticks or (desk.moment is not None and desk.moment <= now):
        # once a turn: what it reads is not written yet, and another one would read it again
        yield from due.tick(desk, ledger, sweep=any(tick.sweep for tick in ticks))
        if desk.owns:
            yield from firing.fire_due(desk, ledger, intake)
    yield from composing.compose(desk, ledger, intake, look=bool(ticks))
    if ledger.failures:
        yield from callbacks.call(desk, ledger, intake)
    if ledger.overrun:
        yield from joining.pause_keys(desk, ledger)
    desk.picture.clock(now)
    starting = desk.owns and desk.may_start() and not desk.draining
    room = MAX_STARTS

    def admit() -> list[Started]:
        nonlocal room
        begun = desk.picture.admit(now, room) if starting else []
        room -= len(begun)
        return begun

    waiters = intake.waiters
    started: list[Started] = []
    while True:
        fresh = yield from joining.join(desk, ledger, waiters, admit, started)
        fresh += admit()
        started += [one for one in fresh if one.slots.worker != NOWHERE]
        workflows = [one.run_id for one in fresh if one.slots.worker == NOWHERE]
        if not workflows and not ledger.followed and not ledger.stopped:
            break
        yield from composing.begin(desk, ledger, intake, workflows)  # and what follows from those that were displaced
        if ledger.failures:
            yield from callbacks.call(desk, ledger, intake)
    if not room or desk.picture.unfinished:
        ledger.wake_at(now)
    yield from starts.start(desk, ledger, started, waiters)
    if desk.picture.changed_rates:
        joining.note_uses(desk, ledger)
    settle(ledger, gatherings, waiters)
    for row in waiters.values():
        ledger.inserts.append(row)
        if not row.ready:
            ledger.wake_at(row.due_at)
            ledger.queued = True
        ledger.wake_at(row.expires_at)
    ledger.inserts.sort()
    ledger.deliveries = [one for one in ledger.deliveries if one[1].run_id not in ledger.touched]
    ledger.readies = [values for values in ledger.readies if values[-1] not in ledger.touched]
    yield from ledger.write()
    yield from starts.add_outputs(ledger)
    yield from _refill(desk, ledger)
    if ticks:
        yield from due.next_moment(desk, ledger)
    answer_submits(ledger)
    for operation in operations:
        if isinstance(operation, Look):
            lane = desk.picture.lanes.get(operation.lane) if desk.owns else None
            ledger.reply(operation, None if lane is None else look(desk.picture, lane, now))
    ledger.wake_at(desk.picture.alarm() if desk.owns else None)
    return ledger


def _load(
    desk: Desk, ledger: Ledger, operations: Sequence[Operation], gathering: Mapping[int, Sequence[str]]
) -> Generator[Ask, Rows, None]:
    ids: dict[int, dict[str, None]] = {tenant: dict.fromkeys(found) for tenant, found in gathering.items()}
    for operation in operations:
        wanted = ids.setdefault(operation.tenant, {})
        match operation:
            case End(ends):
                wanted.update((end.run_id, None) for end in ends)
            case Detach(attempts) | Stopped(attempts):
                wanted.update((run_id, None) for run_id, _ in attempts)
            case Note(notes):
                wanted.update((note[0], None) for note in notes)
            case Submit():
                wanted.update(dict.fromkeys(parents_of(operation)))
            case Beat(run_id) | Cancel(run_id) | Displace(run_id) | Move(run_id) | Replay(run_id):
                wanted[run_id] = None
            case _:
                pass
    for tenant, wanted in ids.items():
        yield from ledger.load(tenant, sorted(wanted))
    endings: dict[int, list[str]] = {}
    for operation in operations:
        if isinstance(operation, Replay):
            endings.setdefault(operation.tenant, []).append(operation.run_id)
    for tenant, over in endings.items():
        yield from ledger.load_endings(tenant, over)
        yield from courses.read(desk, ledger, tenant, [run_id for run_id in over if run_id in ledger.rows])


def _apply(desk: Desk, ledger: Ledger, operation: Operation) -> None:
    match operation:
        case End(ends):
            _end(desk, ledger, operation, ends)
        case Cancel(run_id, reason):
            by = operation.by
            _one(ledger, operation, run_id, lambda row: decide.cancel(desk, ledger, row, reason, by))
        case Replay(run_id):
            nodes, everything = operation.nodes, operation.everything
            _one(ledger, operation, run_id, lambda row: decide.replay(desk, ledger, row, nodes, everything=everything))
        case Move(run_id, due_at, priority, delay):
            due_at = due_at if delay is None else ledger.now + delay
            _one(ledger, operation, run_id, lambda row: decide.move_run(desk, ledger, row, due_at, priority))
        case Displace(run_id, detail):
            if run_id in ledger.touched:
                ledger.deferred.append(operation)
            elif run_id in ledger.rows:
                decide.displace(desk, ledger, ledger.rows[run_id], detail)
        case Beat(run_id, attempt):
            _beat(desk, ledger, operation, run_id, attempt)
        case Detach(attempts, begun):
            for run_id, attempt in attempts:
                row = ledger.rows.get(run_id)
                if row and row.state == RunState.RUNNING and row.attempt == attempt:
                    ledger.sent_by(row, operation.delivery)
                    _renew(desk, ledger, row, decide.deadline_from(desk, ledger.now, row, begun.get(run_id)))
        case Stopped(attempts):
            for run_id, attempt in attempts:
                row = ledger.rows.get(run_id)
                if row and row.attempt == attempt:
                    ledger.sent_by(row, operation.delivery)
                if row and row.holds_until is not None and row.attempt == attempt:
                    decide.release(desk, ledger, row)
        case Note(notes):
            for run_id, attempt, kind, detail in notes:
                row = ledger.rows.get(run_id)
                if row and row.state == RunState.RUNNING and row.attempt == attempt:
                    ledger.note(row, kind, detail)
                    ledger.reply(operation, None)
                else:
                    ledger.reply(operation, Conflict("attempt_over", f"attempt {attempt} is not running"))
        case Freed(attempts):
            for run_id, attempt, started in operation.back:
                flight = desk.picture.running.get(run_id)
                if flight is None or flight.attempt == attempt:
                    desk.picture.backed_off(run_id, started=started)
            for run_id, attempt in attempts:
                desk.release(run_id, attempt, unsent=(run_id, attempt) in operation.unsent)
            for run_id in operation.over:
                desk.picture.ended(run_id)
        case Signal():
            _signal(desk, ledger, operation)
        case Refresh():
            desk.refresh(ledger.now)
            ledger.reply(operation, None)
        case _:
            raise TypeError(f"no turn knows {operation}")


def _end(desk: Desk, ledger: Ledger, operation: End, ends: Sequence[AttemptEnd]) -> None:
    if operation.worker and operation.good and desk.small(operation.worker):
        slots = desk.picture.slots[operation.worker]
        slots.answered(operation.good, ledger.now)
        desk.picture.opened(slots)
        if not desk.owns:
            ledger.good[operation.worker] = ledger.good.get(operation.worker, 0) + operation.good
    later = [end for end in ends if end.run_id in ledger.touched]
    if later:
        ledger.deferred.append(End(later, reply=operation.reply, tenant=operation.tenant))
    for end in ends:
        if end.run_id not in ledger.touched:
            problem = decide.end_attempt(desk, ledger, end, again=operation.again)
            ledger.reply(operation, problem)


def _one(ledger: Ledger, operation: Operation, run_id: str, change: Callable[[RunRow], Problem | None]) -> None:
    if run_id in ledger.touched:
        ledger.deferred.append(operation)
        return
    row = ledger.rows.get(run_id)
    part = operation.part if isinstance(operation, Cancel | Replay) else None
    problem: Problem | None
    if row is None or row.tenant != operation.tenant:
        problem = NotFound("run_unknown", f"there is no run {run_id}")
    elif part is not None and not part.fits(row.state, ledger.endings.get(run_id, (None, None))[0]):
        problem = Conflict("run_changed", f"the run is {row.state}, and not what was meant any more", state=row.state)
    else:
        problem = change(row)
    if part is not None:
        ledger.count(operation.tenant, part.operation, done=problem is None)
    ledger.reply(operation, problem)


def _beat(desk: Desk, ledger: Ledger, operation: Beat, run_id: str, attempt: int) -> None:
    if run_id in ledger.touched:
        ledger.deferred.append(operation)
        return
    row = ledger.rows.get(run_id)
    if row is None:
        ledger.reply(operation, NotFound("run_unknown", f"there is no run {run_id}"))
    elif row.state == RunState.RUNNING and row.attempt == attempt:
        if row.lease_until is not None:
            _renew(desk, ledger, row, row.deadline_at)
        ledger.reply(operation, False)
    elif row.state == RunState.CANCELLED and row.attempt == attempt:
        ledger.reply(operation, True)
    else:
        ledger.reply(operation, Conflict("attempt_over", f"attempt {attempt} is not running", state=row.state))


def _renew(desk: Desk, ledger: Ledger, row: RunRow, deadline: int | None) -> None:
    """Let the attempt live for another lease, never beyond its deadline."""
    until = ledger.now + desk.lease
    if deadline is not None:
        until = min(until, max(ledger.now, deadline))
    ledger.leases.append((until, deadline, row.tenant, row.id, row.attempt))
    ledger.rows[row.id] = row._replace(lease_until=until, deadline_at=deadline)
    ledger.renewed.add(row.id)
    ledger.wake_at(until)


def _signal(desk: Desk, ledger: Ledger, signal: Signal) -> None:
    slots = desk.picture.slots.get(signal.worker)
    if slots is None:
        return
    if not signal.relayed:
        ledger.signals.append(signal)
    age = AGO_MS if signal.sent_at is None else int((desk.clock.monotonic() - signal.sent_at) * 1000)
    if signal.trouble:
        slots.shrink(ledger.now, age)
    if signal.unreachable:
        slots.unreachable(ledger.now)
        desk.picture.shut(slots)
    if signal.pushed_back is not None:
        slots.pushed_back(ledger.now, signal.pushed_back, age)
        desk.picture.shut(slots)
    if signal.rest is not None:
        slots.rest(ledger.now, signal.rest)
        desk.picture.shut(slots)


def _refill(desk: Desk, ledger: Ledger) -> Generator[Ask, Rows, None]:
    """Read on in the lanes whose heads were used up; what is found there may start in the next turn, at once."""
    if desk.picture.hungry:
        ledger.wake_at(ledger.now)
    yield from due.read_heads(desk, list(desk.picture.hungry.values()))
