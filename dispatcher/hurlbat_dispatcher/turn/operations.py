"""What can be asked of a turn. Each operation is decided alone; a turn carries as many as there are waiting."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hurlbat_dispatcher.domain.bulk import Part
from hurlbat_dispatcher.domain.outcome import Answer
from hurlbat_dispatcher.domain.runs import CancelledBy, Run, Submission, Task
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT

Reply = asyncio.Future[Any]
Attempt = tuple[str, int]
"""A run's id and the number of its attempt."""


class Entry(NamedTuple):
    """A submission that was checked: the id it will have, and its task.

    `draws` is what it draws on in JSON, `lane` the digest of that, `digest` the one of what was asked for. `gather`
    identifies what it gathers with among all of its task; None where it is a run of its own.
    """

    id: str
    tenant: int
    submission: Submission
    task: Task
    draws: str
    lane: str
    digest: str
    gather: str | None = None
    root: str | None = None


class Placed(NamedTuple):
    """What became of a submission: the run, and whether it is new. `run_id` names one that was there before."""

    run: Run | None
    run_id: str
    created: bool


class AttemptEnd(NamedTuple):
    """The end of one attempt. `report` is the digest of a final report by the reporting API.

    `delivery` is by what it was sent, where that is recorded.
    """

    run_id: str
    attempt: int
    answer: Answer
    report: str | None = None
    delivery: str | None = None


class EventStart(NamedTuple):
    """One who listens to an event: the task, its filter in words, what came of it and why.

    `entry` is there where a run is to start; the outcome is then `started`, unless the turn refuses it.
    """

    task: str
    filter: str | None
    outcome: str
    entry: Entry | None = None
    reason: str | None = None


class Publication(NamedTuple):
    """An event that was checked, and who listens. Payload and metadata are raw JSON, `digest` tells contents apart."""

    id: str
    tenant: int
    key: str
    scope: str | None
    payload: str
    metadata: str
    priority: int | None
    digest: str
    replay_of: str | None
    starts: Sequence[EventStart]


class Published(NamedTuple):
    """What became of an event: whether it is new."""

    id: str
    created: bool


@dataclass(slots=True, eq=False)
class Operation:
    """Something that a turn does; `reply` gets what came of it after the commit."""

    reply: Reply | None = field(default=None, kw_only=True)
    tenant: int = field(default=DEFAULT_TENANT, kw_only=True)
    clashes: int = field(default=0, kw_only=True)
    """How often it was put off because another transaction was in its way."""

    @property
    def entries_count(self) -> int:
        """Return how many submissions it carries, about: they may be refused when too many wait."""
        return 0


@dataclass(slots=True, eq=False)
class Submit(Operation):
    """Start runs, now or later. Replies a list of `Placed` or `Problem`, in order."""

    entries: Sequence[Entry]

    @property
    def entries_count(self) -> int:
        """Return how many submissions it carries."""
        return len(self.entries)


@dataclass(slots=True, eq=False)
class Publish(Operation):
    """Store events, and start the runs of those who listen. Replies a list of `Published` or `Problem`, in order."""

    events: Sequence[Publication]

    @property
    def entries_count(self) -> int:
        """Return how many rows it makes, about."""
        return sum(1 + len(event.starts) for event in self.events)


@dataclass(slots=True, eq=False)
class Fire(Operation):
    """Start a run of a schedule now, by hand. Replies `Placed`, or a `Problem`."""

    schedule: str


@dataclass(slots=True, eq=False)
class End(Operation):
    """Apply the ends of attempts. Replies None, or a `Problem` for a single report that came too late.

    `worker` and `good` tell how many signs there are that the worker is in good health: runs that began, or that ended
    without having said that they began. There may be such signs and no end.
    """

    ends: Sequence[AttemptEnd]
    worker: str | None = None
    good: int = 0
    again: bool = field(default=False, kw_only=True)
    """Whether it may be stored already, by a commit of which nobody knows."""


@dataclass(slots=True, eq=False)
class Detach(Operation):
    """Give attempts (run id, attempt) a lease of their own, as nobody is connected to them any longer.

    `begun` says of runs how long ago (ms) their handlers began, `delivery` by what they were sent.
    """

    attempts: Sequence[tuple[str, int]]
    begun: Mapping[str, int] = field(default_factory=dict)
    delivery: str | None = field(default=None, kw_only=True)


@dataclass(slots=True, eq=False)
class Beat(Operation):
    """Renew the lease of one attempt. Replies whether the run was cancelled; a `Problem` when the lease is over."""

    run_id: str
    attempt: int


@dataclass(slots=True, eq=False)
class Note(Operation):
    """Remember log lines and progress: (run id, attempt, kind, detail)."""

    notes: Sequence[tuple[str, int, str, dict[str, Any]]]


@dataclass(slots=True, eq=False)
class Cancel(Operation):
    """Cancel a run. Replies None, or a `Problem`."""

    run_id: str
    reason: str
    part: Part | None = field(default=None, kw_only=True)
    by: CancelledBy = field(default=CancelledBy.REQUEST, kw_only=True)


@dataclass(slots=True, eq=False)
class Displace(Operation):
    """Cancel a run for a concurrency rule, which could not be done in the turn that decided it."""

    run_id: str
    detail: Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Replay(Operation):
    """Let a run that ended start again. Replies None, or a `Problem`.

    Of a workflow only the nodes that did not end well and those below them run anew, or these `nodes` and those below
    them, or `everything`.
    """

    run_id: str
    part: Part | None = field(default=None, kw_only=True)
    nodes: Sequence[str] = field(default=(), kw_only=True)
    everything: bool = field(default=False, kw_only=True)


@dataclass(slots=True, eq=False)
class Move(Operation):
    """Let a run that waits for its time start at another, or in so many ms, perhaps with another priority.

    Replies None, or a `Problem`.
    """

    run_id: str
    due_at: int | None
    priority: int | None = None
    delay: int | None = None


@dataclass(slots=True, eq=False)
class Stopped(Operation):
    """Give back the slots of cancelled attempts (run id, attempt): the worker confirmed, or the stream ended.

    `delivery` is by what they were sent, where that is known.
    """

    attempts: Sequence[tuple[str, int]]
    delivery: str | None = field(default=None, kw_only=True)


@dataclass(slots=True, eq=False)
class Take(Operation):
    """Send these runs, which the owner of the lanes has started for this server, as far as that is still so."""

    run_ids: Sequence[str]


@dataclass(slots=True, eq=False)
class Recall(Operation):
    """Settle the attempts that live on this server's lease, and that it does not hold in its hands.

    What it never `took` is sent now: word of the start was lost, or the outcome of the start's own commit was never
    learned. Of what it took and that started `before` then (ms), word of the end was lost: it is rescued, charged.
    `in_hand` are those that wait, are with a worker, or whose end is on its way. The writer says both when the turn is
    made: what was known before may not be true any more.
    """

    before: int | None = None
    in_hand: frozenset[Attempt] = frozenset()
    took: frozenset[Attempt] = frozenset()


@dataclass(slots=True, eq=False)
class Freed(Operation):
    """Another server has committed that these attempts (run id, attempt) gave their budgets back.

    Those that are `unsent` were no start; these runs are `over` for good; those that are `back` wait again, and may
    have had an attempt that counts.
    """

    attempts: Sequence[Attempt]
    unsent: frozenset[Attempt] = frozenset()
    over: Sequence[str] = ()
    back: Sequence[tuple[str, int, bool]] = ()


@dataclass(slots=True, eq=False)
class Signal(Operation):
    """What a delivery told of its worker: that it cannot be reached, is in trouble, or has no room for so many ms.

    `rest` (ms) is a pause that is no fault of the worker's. `sent_at` is when the delivery was sent (monotonic);
    `relayed`, that another server has told it.
    """

    worker: str
    unreachable: bool = False
    trouble: bool = False
    pushed_back: int | None = None
    rest: int | None = None
    sent_at: float | None = None
    relayed: bool = False


@dataclass(slots=True, eq=False)
class Look(Operation):
    """See how a lane stands after this turn. Replies a `Holding`; None when nothing waits in it, or it is not ours."""

    lane: int


@dataclass(slots=True, eq=False)
class Refresh(Operation):
    """The registry has changed."""


@dataclass(slots=True, eq=False)
class Tick(Operation):
    """A moment has come: runs are due, leases are over. `sweep` also recounts what is in flight."""

    sweep: bool = False
