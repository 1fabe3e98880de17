"""What a turn has read, and what it will write: rows in, changes out, in an order that fits the constraints."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hurlbat.wire import DeliveredRun
from hurlbat_dispatcher.domain.graph import Graph, States
from hurlbat_dispatcher.domain.lanes import Waiting
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import MAX_TIMELINE
from hurlbat_dispatcher.store import bulk, firing, graphs, lanes, limits, publishing, runs
from hurlbat_dispatcher.store.firing import Fired
from hurlbat_dispatcher.store.graphs import NodeRow, WaitRow
from hurlbat_dispatcher.store.lanes import UseRow
from hurlbat_dispatcher.store.limits import PauseRow
from hurlbat_dispatcher.store.publishing import NewEvent, NewStart
from hurlbat_dispatcher.store.runs import NewRun, RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement, Values
from hurlbat_dispatcher.turn.operations import Attempt, Operation, Reply, Signal

_MANY = frozenset({"log", "progress", "late", "moved", "gathered", "not_sent", "pushed_back", "held", "not_started"})
"""Kinds of timeline rows of which a run may have any number."""


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """A running attempt whose worker is to be told."""

    worker: str
    run_id: str
    attempt: int
    reason: str
    sender: str | None


Waiters = dict[str, NewRun]
"""New runs of a turn that have not started, by id."""


class Newcomer(NamedTuple):
    """A run that is due for the first time."""

    run_id: str
    lane: int
    waiting: Waiting


class Assigned(NamedTuple):
    """A start that another server is to send."""

    sender: str
    run_id: str


AnyNode = RunRow | NodeRow
"""A node's run, whether it was read for its own sake or its workflow's."""


@dataclass(slots=True)
class Course:
    """A workflow's run as a turn sees it: its graph, and its nodes as they stand, by name."""

    graph: Graph
    nodes: dict[str, AnyNode]
    payload: tuple[str, str] | None = None
    """Its input and metadata, in JSON, once they were needed."""

    @property
    def states(self) -> States:
        """Return the states of the nodes that were reached or barred."""
        return {name: RunState(row.state) for name, row in self.nodes.items()}


@dataclass(slots=True)
class Ledger:
    """One turn. `now` is the database's time in ms; `rows` are the runs that were read, as they stand."""

    now: int
    rows: dict[str, RunRow] = field(default_factory=dict)
    endings: dict[str, tuple[int | None, str | None]] = field(default_factory=dict)
    """When runs ended that are to start again (ms), and their errors in JSON."""
    touched: set[str] = field(default_factory=set)
    """Runs that this turn has changed: at most one change a run and turn, the next waits for the next turn."""
    renewed: set[str] = field(default_factory=set)
    """Runs whose lease this turn has renewed, so that it is not over yet."""
    deferred: list[Operation] = field(default_factory=list)
    inserts: list[NewRun] = field(default_factory=list)
    starts: list[Values] = field(default_factory=list)
    ends: list[Values] = field(default_factory=list)
    put_backs: list[Values] = field(default_factory=list)
    replays: list[Values] = field(default_factory=list)
    leases: list[Values] = field(default_factory=list)
    sent: list[Values] = field(default_factory=list)
    """By what deliveries attempts were sent that have not ended by them."""
    readies: list[Values] = field(default_factory=list)
    releases: list[Values] = field(default_factory=list)
    moves: list[Values] = field(default_factory=list)
    gathered: Sequence[tuple[Statement, Sequence[Values]]] = ()
    """What becomes of gatherings and of their runs."""
    notes: list[Values] = field(default_factory=list)
    events: list[NewEvent] = field(default_factory=list)
    event_starts: list[NewStart] = field(default_factory=list)
    fires: list[Fired] = field(default_factory=list)
    advances: list[Values] = field(default_factory=list)
    """What becomes of schedules that were fired."""
    parts: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    """Of operations on many runs, (tenant, id): to how many runs it was done, and how many were passed over."""
    failures: list[tuple[RunRow, str | None]] = field(default_factory=list)
    """Runs that have finally failed and whose tasks name another for it, with the error in JSON."""
    followed: dict[str, RunRow] = field(default_factory=dict)
    """Runs that ended and of whose end something may follow: nodes, and what was cancelled."""
    cancelled: dict[str, RunRow] = field(default_factory=dict)
    """Runs that were cancelled in turns before, and have children that were not reached."""
    stopped: dict[str, RunRow] = field(default_factory=dict)
    """Nodes that were cancelled and hold nothing any more."""
    courses: dict[str, Course] = field(default_factory=dict)
    """Workflows that this turn has to do with."""
    outputs: dict[str, str | None] = field(default_factory=dict)
    errors: dict[str, str | None] = field(default_factory=dict)
    """What came of nodes in this turn, in JSON, by run."""
    begins: list[Values] = field(default_factory=list)
    resumes: list[Values] = field(default_factory=list)
    superseded: list[Values] = field(default_factory=list)
    waits: dict[str, list[WaitRow]] = field(default_factory=dict)
    """What runs wait for, as far as it was read, as it stands now."""
    woken: dict[str, None] = field(default_factory=dict)
    """Runs of which conditions have come true."""
    begun: dict[str, None] = field(default_factory=dict)
    """Workflows that run, and whose first nodes were left to this turn."""
    new_waits: list[WaitRow] = field(default_factory=list)
    met: list[Values] = field(default_factory=list)
    waited: list[Values] = field(default_factory=list)
    """Runs that wait no longer."""
    news: dict[tuple[int, str, str], None] = field(default_factory=dict)
    """What is left to the next turn, or told to the server that starts runs: (tenant, kind, of what)."""
    old_news: list[Values] = field(default_factory=list)
    new_keys: list[Values] = field(default_factory=list)
    old_keys: list[Values] = field(default_factory=list)
    ended_keys: list[Values] = field(default_factory=list)
    # what follows the commit
    submits: list[tuple[Operation, Sequence[Any]]] = field(default_factory=list)
    replies: list[tuple[Reply, Any]] = field(default_factory=list)
    deliveries: list[tuple[str, DeliveredRun]] = field(default_factory=list)
    cancels: list[CancelOrder] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    assigned: list[Assigned] = field(default_factory=list)
    connected: frozenset[str] | None = None
    """Runs that live on this server's lease, where that was read."""
    freed: list[Attempt] = field(default_factory=list)
    """Attempts whose slots are free again."""
    unsent: set[Attempt] = field(default_factory=set)
    """Of these, the attempts that were no start: their units are free again, too."""
    back: list[tuple[str, int, bool]] = field(default_factory=list)
    """Attempts of ranked runs that wait again, and whether any attempt of theirs counts."""
    overrun: list[tuple[int, int, str, int]] = field(default_factory=list)
    """Rate limits that workers asked to wait: the tenant and lane of the run, the key, until when (ms)."""
    uses: list[UseRow] = field(default_factory=list)
    pauses: list[PauseRow] = field(default_factory=list)
    """Rate limit keys that are paused from now on."""
    newcomers: list[Newcomer] = field(default_factory=list)
    """Runs that are due for the first time, and whose concurrency rules rank them."""
    refused: dict[str, str] = field(default_factory=dict)
    """New runs that were cancelled in the very turn that took them in, and why."""
    signals: list[Signal] = field(default_factory=list)
    """What this server has heard of workers, and the others have not."""
    good: dict[str, int] = field(default_factory=dict)
    """Good signs of workers, for the server that starts the runs."""
    outdated: bool = False
    """The registry lacks what is stored."""
    queued: bool = False
    """Something waits that the owner of the lanes has not seen."""
    moment: int | None = None
    """The earliest time at which this turn's changes want another one."""

    def reply(self, operation: Operation, value: Any) -> None:
        """Answer the operation after the commit."""
        if operation.reply is not None:
            self.replies.append((operation.reply, value))

    def count(self, tenant: int, operation: str, *, done: bool) -> None:
        """Count a run of an operation on many: it was done, or the run was passed over."""
        so_far, skipped = self.parts.get((tenant, operation), (0, 0))
        self.parts[tenant, operation] = (so_far + done, skipped + (not done))

    def note(self, row: RunRow, kind: str, detail: dict[str, Any], attempt: int | None = None) -> None:
        """Add a row to the run's timeline."""
        at = row.attempt if attempt is None else attempt
        self.notes.append((row.tenant, row.id, self.now, kind, at, json.dumps(detail)))

    def sent_by(self, row: RunRow, delivery: str | None) -> None:
        """Keep by what delivery an attempt was sent."""
        if delivery is not None:
            self.sent.append((delivery, row.tenant, row.id, row.attempt))

    def wake_at(self, moment: int | None) -> None:
        """Ask for another turn at that time."""
        if moment is not None and (self.moment is None or moment < self.moment):
            self.moment = moment

    def load(self, tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, None]:
        """Read and lock runs by id."""
        if ids:
            found = yield runs.LOAD.fetch(tenant, list(ids))
            self.rows.update((row[1], RunRow._make(row)) for row in found)

    def _keep_timelines_short(self) -> Generator[Ask, Rows, None]:
        """Drop logs, progress and the like of runs whose timeline is full."""
        told = {values[1] for values in self.notes if values[3] in _MANY}
        full: set[str] = set()
        for tenant in {values[0] for values in self.notes} if told else ():
            counts = yield runs.COUNT_ROWS.fetch(tenant, sorted(told))
            full.update(row[0] for row in counts if row[1] >= MAX_TIMELINE)
        if full:
            self.notes = [values for values in self.notes if values[1] not in full or values[3] not in _MANY]

    def load_endings(self, tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, None]:
        """Read how runs ended."""
        if ids:
            found = yield runs.ENDINGS.fetch(tenant, list(ids))
            self.endings.update((row[0], (row[1], row[2])) for row in found)

    def write(self) -> Generator[Ask, Rows, None]:
        """Write every change."""
        yield from self._keep_timelines_short()
        writes: tuple[tuple[Statement, Sequence[Values]], ...] = (
            (runs.DROP_KEY, self.old_keys),
            (graphs.SUPERSEDE, self.superseded),
            (runs.INSERT, self.inserts),
            (runs.KEEP_KEY, self.new_keys),
            (graphs.BEGIN, self.begins),
            (graphs.RESUME, self.resumes),
            (runs.END, self.ends),
            (runs.END_KEY, self.ended_keys),
            (runs.PUT_BACK, self.put_backs),
            (runs.REPLAY, self.replays),
            (runs.START, self.starts),
            (runs.MARK_READY, self.readies),
            (runs.MOVE, self.moves),
            *self.gathered,
            (runs.LEASE, self.leases),
            (runs.SENT, self.sent),
            (runs.RELEASE, self.releases),
            (runs.REMEMBER, self.notes),
            (graphs.KEEP_WAIT, self.new_waits),
            (graphs.MEET, self.met),
            (graphs.FORGET_WAITS, self.waited),
            (graphs.TELL, list(self.news)),
            (graphs.FORGET_NEWS, self.old_news),
            (publishing.KEEP_EVENT, self.events),
            (publishing.KEEP_START, self.event_starts),
            (firing.KEEP_FIRE, self.fires),
            (firing.ADVANCE, self.advances),
        )
        for statement, values in writes:
            if values:
                yield statement.write(values)
        if self.parts:
            yield bulk.COUNT.write([(*counts, *of) for of, counts in sorted(self.parts.items())])
        if self.uses:
            yield from lanes.keep_uses(self.uses)
        if self.pauses:
            yield limits.PAUSE_KEY.write(sorted(self.pauses))
