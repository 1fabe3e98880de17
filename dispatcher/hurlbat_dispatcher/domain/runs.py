"""Runs as the outside sees them: what is asked for, what is shown, and what a worker's task promises."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from hurlbat_dispatcher.domain.gathering import Gather
from hurlbat_dispatcher.domain.graph import Graph
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.policies import NO_FLOW, FlowPolicy

DEFAULT_PRIORITY: Final = 2
AGE_MS: Final = 60_000
"""Milliseconds of waiting that weigh as much as one step of priority."""
MAX_TIMELINE: Final = 1_000
"""Rows that are kept of one run's timeline, logs and progress among them; what comes after is dropped."""
CANCEL_HOLD_MS: Final = 5_000
"""How long the slot of a cancelled attempt is kept for a worker that does not confirm the stop."""


CHILDREN: Final = ""
"""Stands for the task in the keys of children, which hold among all of a parent's, whatever their tasks."""
FOR_EVER: Final = 1 << 62
"""Until when (ms) such a key holds; it goes with its run."""
MAX_METADATA_BYTES: Final = 65_536
"""Of a run's metadata in UTF-8, what it inherits among it."""


class RunKind(StrEnum):
    """What a run is: of a task by itself, of a workflow, or of a task as the node of a workflow's run."""

    TASK = "task"
    WORKFLOW = "workflow"
    NODE = "node"


class CancelledBy(StrEnum):
    """Who has cancelled a run."""

    REQUEST = "request"
    TASK = "task"
    """The task itself, while it ran."""
    PARENT = "parent"
    """It went with its parent, or with the workflow of which it is a node."""
    NODE = "node"
    """A node before it failed or was cancelled."""
    CONDITION = "condition"
    """Its `cancel_if` came true."""
    CONCURRENCY = "concurrency"
    TTL = "ttl"


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next attempt; seconds. See `hurlbat.policy.Backoff`."""

    strategy: str = "exponential"
    initial: float = 1.0
    factor: float = 2.0
    max: float = 300.0
    delays: tuple[float, ...] = ()
    jitter: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """A named function that workers serve, with the part of its policy that the engine acts on. Durations in ms."""

    name: str
    version: int = 1
    max_attempts: int = 1
    backoff: Backoff = Backoff()
    execution_timeout: int = 300_000
    schedule_timeout: int | None = None
    priority: int = DEFAULT_PRIORITY
    workers: tuple[str, ...] = ()
    flow: FlowPolicy = NO_FLOW
    paused: bool = False
    gather: Gather | None = None
    on_failure: str | None = None
    """The task that runs when a run of this one has finally failed."""
    graph: Graph | None = None
    """What its runs are made of, if it is a workflow."""
    ways: Mapping[str, Any] = field(default_factory=dict)
    """What else its policy says of how its runs come about, as it stands there."""

    @property
    def is_served(self) -> bool:
        """Tell whether a registered worker serves it; a workflow needs none."""
        return bool(self.workers) or self.graph is not None


class Submission(NamedTuple):
    """A request for a run. `input` and `metadata` are raw JSON; `run_at` is in ms, durations are in seconds."""

    task: str
    input: str = "null"
    metadata: str = "{}"
    priority: int | None = None
    run_at: int | None = None
    delay: float | None = None
    idempotency_key: str | None = None
    idempotency_ttl: float | None = None
    ttl: float | None = None
    parent: str | None = None
    trigger: str | None = None
    """What started it, if it was not submitted: raw JSON, see `domain.triggers`."""
    child_key: str | None = None
    """Its parent has one child of this key, however often it asks."""
    awaited: bool = False
    """The parent waits for its end."""

    @property
    def key(self) -> tuple[str, str] | None:
        """Return the task and the key by which a repeat of it is known, if it is."""
        if self.child_key is not None:
            return CHILDREN, f"{self.parent}:{self.child_key}"
        return None if self.idempotency_key is None else (self.task, self.idempotency_key)


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """Something that happened to a run: when (ms), what, in which attempt, and more that depends on the kind."""

    at: int
    kind: str
    attempt: int
    detail: Mapping[str, Any] = field(default_factory=dict)


class Run(NamedTuple):
    """A run as it is shown. Times are ms since the epoch; `input`, `output`, `error` and `metadata` are raw JSON."""

    id: str
    task: str
    state: RunState
    attempt: int
    tries: int
    max_attempts: int
    input: str
    metadata: str
    priority: int
    created_at: int
    due_at: int
    output: str | None = None
    error: str | None = None
    started_at: int | None = None
    finished_at: int | None = None
    expires_at: int | None = None
    worker: str | None = None
    reason: str | None = None
    idempotency_key: str | None = None
    parent: str | None = None
    trigger: str | None = None
    kind: RunKind = RunKind.TASK
    root: str | None = None
    node: str | None = None
    was_node: str | None = None
    """The node that it was until a replay of its workflow ran that anew."""
    task_version: int = 0
    child_key: str | None = None
    cancelled_by: str | None = None
    timeline: tuple[TimelineEntry, ...] = ()

    @property
    def is_final(self) -> bool:
        """Tell whether nothing more will happen to it, but by a replay."""
        return self.state in FINAL

    def weight(self) -> int:
        """Return how large it is without its timeline, about, in bytes."""
        return len(self.input) + len(self.metadata) + len(self.output or "") + len(self.error or "")


def rank(due_at: int, priority: int) -> int:
    """Return the place of a waiting run within its lane: lower starts first. Waiting ages it without rewriting."""
    return due_at - AGE_MS * priority


def was_charged(rank: int, priority: int, joined_at: int | None) -> bool:
    """Tell whether a run has had an attempt that counts since it joined its lane: its retry was due only after that."""
    return joined_at is not None and rank + AGE_MS * priority > joined_at


def expiry(
    *, created_at: int, due_at: int, ttl_at: int | None, schedule_timeout: int | None, tries: int
) -> tuple[int | None, str | None]:
    """Return when a waiting run must have started (ms), and whether by `ttl` or by `schedule_timeout`.

    A start that is not charged is none: the first one that is ends the `ttl`.
    """
    ends = []
    if ttl_at is not None and tries == 0:
        ends.append((ttl_at, "ttl"))
    if schedule_timeout is not None:
        ends.append((max(due_at, created_at) + schedule_timeout, "schedule_timeout"))
    return min(ends, default=(None, None))
