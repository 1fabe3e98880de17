"""What is played: rows arranged, and what servers do to them by the engine's own scripts.

One worker, `w`, has a slot for everything that is in flight and as many more as a scene says; one task, `echo`, is
tried twice. Times of the rows are around `NOW`; the clock of the stage begins there and goes on when it is read.
"""

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.clock import Chance
from hurlbat_dispatcher.domain.gathering import Gather, GatherKind
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, NotSent, Succeeded
from hurlbat_dispatcher.domain.policies import PLAIN, name_lane
from hurlbat_dispatcher.domain.runs import Backoff, Submission, Task
from hurlbat_dispatcher.domain.triggers import by_event
from hurlbat_dispatcher.domain.workers import Mode, Worker, WorkerState
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.schedules import Schedules
from hurlbat_dispatcher.secrecy import LeaseTokens
from hurlbat_dispatcher.store import leases, schema
from hurlbat_dispatcher.store.database import Clash
from hurlbat_dispatcher.store.lanes import LaneRow
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.turn.crank import turn
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.due import rebuild
from hurlbat_dispatcher.turn.fence import NotOwner
from hurlbat_dispatcher.turn.operations import (
    AttemptEnd,
    Beat,
    Cancel,
    Detach,
    End,
    Entry,
    EventStart,
    Fire,
    Move,
    Operation,
    Publication,
    Publish,
    Recall,
    Refresh,
    Replay,
    Stopped,
    Submit,
    Take,
    Tick,
)
from tests.interleavings.checks import answer
from tests.interleavings.stepper import Program, Transaction

OWNER, PEER, HEIR = SERVERS = ("owner", "peer", "heir")
GONE: Final = "gone"
"""A server that died; its lease is over."""
EPOCH: Final = 7
NOW: Final = 1_800_000_000_000
MOMENT: Final = 10
"""Milliseconds by which the clock goes on when it is read."""
LEASE: Final = 15_000
GATHERS: Final = Task(
    "gathers", max_attempts=1, workers=("w",), gather=Gather(GatherKind.TRAILING, 60_000, max_wait=None)
)
"""Gathers all its submits."""
TASK: Final = Task("echo", max_attempts=2, backoff=Backoff("fixed", initial=0.0, jitter=False), workers=("w",))
LANE: Final = 1
LANE_NAME: Final = name_lane(PLAIN)
KEY: Final = "order-1"
EVENT: Final = "event-1"
POSTGRESQL: Final[Dialect] = make_url("postgresql+asyncpg://").get_dialect()()
Turn = Callable[[], Sequence[Operation]]
"""Makes the operations of one turn."""
_ID = "0199a3c0-0000-7000-8000-0000000000{:02x}"

FLYING, WAITING, NEXT, ENDED, SILENT, ORPHAN, HELD, DELAYED, KEYED, SOON = (_ID.format(n) for n in range(1, 11))
"""Runs: with a worker, sent by the peer · next in the lane · after it · failed · its own lease is over · its sender is
gone · cancelled, with a slot that it need not hold any longer · due, taken in by the peer, and not yet in its lane ·
completed, with an old key · due in a moment.
"""

_FLIES: Final[Mapping[str, Any]] = {
    "state": "running",
    "attempt": 1,
    "tries": 1,
    "started_at": NOW - 9_000,
    "worker": "w",
    "sender": PEER,
}
SCHEDULE: Final = "each-minute"
DUE: Final = NOW // 60_000 * 60_000
"""When the schedule fires next: it is due."""
_ENDED: Final[Mapping[str, Any]] = {**_FLIES, "finished_at": NOW - 5_000}
RUNS: Final[Mapping[str, Mapping[str, Any]]] = {
    FLYING: _FLIES,
    WAITING: {"rank": 1},
    NEXT: {"rank": 2},
    ENDED: {**_ENDED, "state": "failed"},
    SILENT: {**_FLIES, "lease_until": NOW - 1_000},
    ORPHAN: {**_FLIES, "sender": GONE},
    HELD: {**_ENDED, "state": "cancelled", "reason": "cancelled", "holds_until": NOW - 1_000},
    DELAYED: {"ready": 0, "sender": PEER},
    SOON: {"ready": 0, "due_at": NOW + 15, "created_at": NOW - 10_000},
    KEYED: {**_ENDED, "state": "completed", "idempotency_key": KEY},
}


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """Rows, as the SQL that makes them in place of whatever there was, and the slots of each worker.

    `lanes` are known to everybody.
    """

    sql: str
    slots: Mapping[str, int]
    lanes: Sequence[LaneRow] = ()


@dataclass(frozen=True, slots=True)
class Deed:
    """What a server does in a scene."""

    by: str
    program: Callable[[Desk], Program]


# -- scenes ----------------------------------------------------------------------------------------------------------


def scene(
    *runs: str,
    free: int = 0,
    owned_until: int = NOW + LEASE,
    old_key: bool = False,
    new_lane: bool = False,
    scheduled: bool = False,
) -> Scene:
    """Arrange these runs, with so many free slots at the worker.

    The owner owns the lanes until `owned_until`. `old_key`: the key of `KEYED` is remembered, and its time is over.
    `new_lane`: there is no lane yet. `scheduled`: a schedule is due.
    """
    rows = [_row(schema.run, **{**_RUN, "id": run_id, **RUNS[run_id]}) for run_id in runs]
    until = {OWNER: owned_until, PEER: NOW + 3_600_000, GONE: NOW - 60_000}
    servers = [_row(schema.dispatcher, id=name, started_at=NOW - 99_000, lease_until=at) for name, at in until.items()]
    key = _row(schema.idempotency, tenant=1, task=TASK.name, key=KEY, run=KEYED, digest="", until=NOW - 1_000)
    known = [LaneRow(LANE, 1, TASK.name, *LANE_NAME, NOW), LaneRow(LANE + 1, 1, GATHERS.name, *LANE_NAME, NOW)]
    ways = ("schedule", "schedule_fire", "event", "event_start", "gathering", "wait", "news")
    tables = ("run", "timeline", "idempotency", "dispatcher", "lane", *ways)
    sql = [*(f"DELETE FROM {table}" for table in tables)]
    sql += [
        *([] if new_lane else [_insert(schema.lane, [lane._asdict() for lane in known])]),
        *([_insert(schema.schedule, [_row(schema.schedule, **_SCHEDULE)])] if scheduled else []),
        *([_insert(schema.run, rows)] if rows else []),
        _insert(schema.dispatcher, servers),
        f"UPDATE shard SET owner = '{OWNER}', epoch = {EPOCH}, lease_until = {owned_until}",
        f"SELECT setval('stage.moment', {NOW})",
    ]
    if old_key:
        sql.append(_insert(schema.idempotency, [key]))
    taken = sum(row["state"] == "running" or row.get("holds_until") is not None for row in rows)
    return Scene("; ".join(sql), MappingProxyType({"w": taken + free}), [] if new_lane else known)


_RUN: Final[Mapping[str, Any]] = {
    "tenant": 1,
    "kind": "task",
    "task": TASK.name,
    "task_version": 1,
    "lane": LANE,
    "state": "queued",
    "ready": 1,
    "max_attempts": TASK.max_attempts,
    "priority": 2,
    "created_at": NOW - 10_000,
    "due_at": NOW - 10_000,
    "input": "null",
    "metadata": "{}",
}


_SCHEDULE: Final[Mapping[str, Any]] = {
    "tenant": 1,
    "name": SCHEDULE,
    "task": TASK.name,
    "source": "api",
    "expression": "* * * * *",
    "timezone": "UTC",
    "input": "null",
    "metadata": "{}",
    "missed": "all",
    "overlap": "allow",
    "next_at": DUE,
}


def _row(table: sa.Table, **values: Any) -> dict[str, Any]:
    """Return a whole row; a number that is not given is 0."""
    needed = [column for column in table.columns if not column.nullable and column.name not in values]
    return {column.name: values.get(column.name) for column in table.columns} | {column.name: 0 for column in needed}


def _insert(table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> str:
    statement = sa.insert(table).values([dict(row) for row in rows])
    return str(statement.compile(dialect=POSTGRESQL, compile_kwargs={"literal_binds": True}))


def desk_of(server: str, arranged: Scene) -> Desk:
    """Return the desk of a server; its picture is empty yet."""
    worker = Worker(
        name="w",
        url="http://w.test",
        mode=Mode.PROTOCOL,
        slots=arranged.slots["w"],
        state=WorkerState.READY,
        problem=None,
        tasks=(TASK.name, GATHERS.name),
        labels=MappingProxyType({}),
        max_batch=1,
        manifest="",
        created_at=0,
        updated_at=0,
    )
    registry = Registry(workers={"w": worker}, tasks={TASK.name: TASK, GATHERS.name: GATHERS})
    return Desk(
        me=server,
        registry=registry,
        chance=Chance(1),
        lease=LEASE,
        report_base="http://hurlbat.test",
        lease_tokens=LeaseTokens(b"key"),
        epoch=EPOCH if server == OWNER else None,
        peers=(PEER,) if server == OWNER else (),
    )


# -- programs --------------------------------------------------------------------------------------------------------


def takes_turns(desk: Desk, *turns: Sequence[Operation]) -> Program:
    """Do turns as the writer does.

    After a clash the picture is read anew and the turn done once more; after the loss of the lanes it is done as a
    server that does not own them.
    """
    for operations in turns:
        try:
            yield Transaction(turn(desk, operations), desk.epoch)
        except (Clash, NotOwner) as error:
            if isinstance(error, NotOwner):
                desk.epoch = None
            yield Transaction(rebuild(desk))
            yield Transaction(turn(desk, operations), desk.epoch)


def takes_over(desk: Desk, *turns: Sequence[Operation]) -> Program:
    """Renew the lease, take the lanes if they are free, and do turns."""
    held = yield from _renews(desk)
    desk.epoch, desk.peers = (held.epoch if held.owner == desk.me else None), held.peers
    yield Transaction(rebuild(desk))
    yield from takes_turns(desk, *turns)


def _renews(desk: Desk) -> Generator[Transaction, Any, leases.Ownership]:
    held: leases.Ownership = yield Transaction(leases.renew(desk.me, LEASE))
    return held


def _only_renews(desk: Desk) -> Program:
    yield from _renews(desk)


def _hands_over(desk: Desk) -> Program:
    yield Transaction(leases.hand_over(desk.me, LEASE))


def _leaves(desk: Desk) -> Program:
    yield Transaction(leases.leave(desk.me))


def does(by: str, *turns: Turn) -> Deed:
    """Let a server do these turns, one after the other."""
    return Deed(by, lambda desk: takes_turns(desk, *(operations() for operations in turns)))


def succeeds(by: str, *turns: Turn) -> Deed:
    """Let a server take over the lanes, if they are free, and do these turns."""
    return Deed(by, lambda desk: takes_over(desk, *(operations() for operations in turns)))


def renews(by: str) -> Deed:
    """Let a server renew its lease, and what it owns."""
    return Deed(by, _only_renews)


def hands_over(by: str) -> Deed:
    """Let a server begin to stop: it takes no more work."""
    return Deed(by, _hands_over)


def looks_after(by: str, work: Callable[[Schedules], Coroutine[Any, Any, Any]]) -> Deed:
    """Let a server change the schedule, by the door that people have."""

    def program(desk: Desk) -> Program:
        handed: Any = _Handed()
        door = Schedules(1, handed, desk.registry, desk, desk.clock, desk.ids, put=lambda _: None, changed=lambda: None)
        doing = work(door)
        result: Any = None
        while True:
            try:
                script = doing.send(result)
            except StopIteration:
                return
            try:
                result = yield Transaction(script)
            except Clash as error:
                script = doing.throw(error)
                result = yield Transaction(script)

    return Deed(by, program)


class _Handed:
    """A database that lets somebody else do each transaction."""

    async def write(self, script: Script[Any]) -> Any:
        return await _Transacting(script)


class _Transacting:
    def __init__(self, script: Script[Any]) -> None:
        self._script = script

    def __await__(self) -> Generator[Script[Any], Any, Any]:
        return (yield self._script)


def leaves(by: str) -> Deed:
    """Let a server leave."""
    return Deed(by, _leaves)


# -- operations: each call of what these return makes them anew --------------------------------------------------------


def result(run_id: str) -> Turn:
    """The first attempt of a run succeeded."""
    return lambda: [End([AttemptEnd(run_id, 1, Succeeded(answer(1)))])]


def failure(run_id: str) -> Turn:
    """The first attempt of a run failed, and may be tried again."""
    return lambda: [End([AttemptEnd(run_id, 1, Failed(ErrorCode.TASK_ERROR, "no"))])]


def not_sent(run_id: str) -> Turn:
    """The first attempt of a run never reached its worker, and is not charged."""
    return lambda: [End([AttemptEnd(run_id, 1, NotSent(ErrorCode.CONNECT_REFUSED, "no"))])]


def cancel(run_id: str) -> Turn:
    """Somebody cancels a run."""
    return lambda: [Cancel(run_id, "cancelled")]


def replay(run_id: str) -> Turn:
    """Somebody replays a run."""
    return lambda: [Replay(run_id)]


def beat(run_id: str) -> Turn:
    """The first attempt of a run is alive."""
    return lambda: [Beat(run_id, 1)]


def detach(run_id: str) -> Turn:
    """The first attempt of a run has lost its stream."""
    return lambda: [Detach([(run_id, 1)])]


def stopped(run_id: str) -> Turn:
    """The worker confirms that the first attempt of a cancelled run has stopped."""
    return lambda: [Stopped([(run_id, 1)])]


def look() -> Sequence[Operation]:
    """Nothing has happened: start what can start."""
    return [Refresh()]


def tick() -> Sequence[Operation]:
    """A moment has come."""
    return [Tick()]


def sweep() -> Sequence[Operation]:
    """The slow sweep, which rescues and recounts."""
    return [Tick(sweep=True)]


def take() -> Sequence[Operation]:
    """The server hears that a run was started for it to send."""
    return [Take([FLYING])]


def recall() -> Sequence[Operation]:
    """The server has lost what it had taken."""
    return [Recall(before=NOW, took=frozenset({(FLYING, 1)}))]


def child(number: int) -> Turn:
    """A task submits a child with a key: of `FLYING`; the body is the same with every number."""
    asked = Submission(TASK.name, parent=FLYING, child_key=KEY)
    entry = Entry(_ID.format(100 + number), 1, asked, TASK, *LANE_NAME, "same", root=FLYING)
    return lambda: [Submit([entry])]


def submit(number: int) -> Turn:
    """Somebody submits a run with the key; the body is the same with every number."""
    entry = Entry(_ID.format(100 + number), 1, Submission(TASK.name, idempotency_key=KEY), TASK, *LANE_NAME, "same")
    return lambda: [Submit([entry])]


def submit_plain(number: int) -> Turn:
    """Somebody submits a run without a key."""
    entry = Entry(_ID.format(100 + number), 1, Submission(TASK.name), TASK, *LANE_NAME, "")
    return lambda: [Submit([entry])]


def gathers(number: int) -> Turn:
    """Somebody submits a run that is gathered with all others of its task."""
    asked = Submission(GATHERS.name, str(number))
    entry = Entry(_ID.format(100 + number), 1, asked, GATHERS, *LANE_NAME, "", "all")
    return lambda: [Submit([entry])]


def publish(number: int) -> Turn:
    """Somebody publishes the event, which starts a run; its content is the same with every number."""
    asked = Submission(TASK.name, trigger=by_event(EVENT, "made", None))
    entry = Entry(_ID.format(100 + number), 1, asked, TASK, *LANE_NAME, "")
    start = EventStart(TASK.name, None, "started", entry)
    return lambda: [Publish([Publication(EVENT, 1, "made", None, "{}", "{}", None, "same", None, [start])])]


def move(run_id: str, due_at: int) -> Turn:
    """Somebody moves a run that waits for its time."""
    return lambda: [Move(run_id, due_at)]


def fire() -> Sequence[Operation]:
    """Somebody lets the schedule fire by hand."""
    return [Fire(SCHEDULE)]


def together(*turns: Turn) -> Turn:
    """Several operations in one turn."""
    return lambda: [operation for operations in turns for operation in operations()]
