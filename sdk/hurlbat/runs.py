"""A run as the server tells of it, and what a caller may say with a submit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

from hurlbat.jsontext import Member

ReplayFrom = Literal["failed", "start"] | Sequence[str]
"""What of a workflow is run again: nodes that did not end well, all, or these; and the nodes after them."""
FINAL_STATES = frozenset({"completed", "failed", "cancelled", "skipped"})


class SubmitOptions(TypedDict, total=False):
    """What may be said with any submit; durations are in seconds."""

    metadata: Mapping[str, Any]
    """Attached to the run and shown to its task."""
    priority: int
    """Higher goes first; 1 is low, 2 medium, 3 high."""
    idempotency_key: str
    """A second submit of the same task with this key is answered with the first one's run."""
    idempotency_ttl: float
    """How long the key holds; without it, until the run ends."""
    ttl: float
    """Cancel the run if it has not started by then."""
    parent: str | None
    """The id of the run that this one belongs to. Inside a task it is the task's own run, unless None is given."""
    child_key: str
    """Among all children of the parent there is one of this key, over all attempts of the parent; it is found again."""


class RunOptions(SubmitOptions, total=False):
    """What may be said with a submit that may have to wait for its time."""

    delay: float
    """Start so many seconds later."""
    run_at: datetime
    """Start at this time, which needs a zone."""


class RunFilter(TypedDict, total=False):
    """Chooses runs: those for which all of it is true."""

    task: str
    """They are of this task."""
    state: str | Sequence[str]
    """They are in this state, or in one of these."""
    created_after: datetime
    """They were made then, or later."""
    created_before: datetime
    """They were made before."""
    ids: Sequence[str]
    """They are among these."""


class RunQuery(TypedDict, total=False):
    """Chooses runs for a list: those for which all of it is true; None says nothing."""

    task: str | None
    """They are of this task."""
    state: str | None
    """They are in this state."""
    delayed: bool | None
    """They wait for their time."""
    parent: str | None
    """They are children of this run, or nodes of it."""
    root: str | None
    """They all came of this run."""
    kind: Literal["task", "workflow", "node"] | None
    """They are of this kind."""
    created_after: datetime | None
    """They were made then, or later."""
    created_before: datetime | None
    """They were made before."""
    cursor: str | None
    """They come after the page that named this as its next."""
    limit: int | None
    """So many at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it stood when the server told of it. Times are RFC 3339, `output_text` is the output's raw JSON."""

    id: str
    task: str
    state: str
    attempt: int = 0
    tries: int = 0
    max_attempts: int = 1
    input: Any = field(default=None, repr=False)
    output: Any = field(default=None, repr=False)
    output_text: str = field(default="null", repr=False)
    error: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    priority: int = 2
    worker: str | None = None
    reason: str | None = None
    cancelled_by: str | None = None
    """What cancelled it: `request`, `task`, `parent`, `node`, `condition`, `concurrency` or `ttl`."""
    idempotency_key: str | None = None
    parent: str | None = None
    trigger: Mapping[str, Any] | None = None
    """What started it, if nobody submitted it: an event, a schedule, a workflow, or the failure of another run."""
    kind: str = "task"
    """`task`, `workflow`, or `node` of a workflow."""
    root: str | None = None
    """The run that all of it came of, if that is another one."""
    node: str | None = None
    """Which node of its parent it is, if that is a workflow."""
    was_node: str | None = None
    """Which node it was, before a replay of the workflow made another run for that."""
    child_key: str | None = None
    nodes: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """Of a workflow that was looked at alone, its nodes in their order, with `name`, `state` and `run` among others."""
    created_at: str | None = None
    due_at: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    timeline: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def finished(self) -> bool:
        """Whether the run has reached a final state."""
        return self.state in FINAL_STATES


_FIELDS = frozenset(Run.__dataclass_fields__) - {"output_text", "timeline", "nodes", "error", "metadata"}


def run_from(members: Mapping[str, Member]) -> Run:
    """Return the run that the members of a JSON object tell of; what this version does not know is left out."""
    known = {name: member.value for name, member in members.items() if name in _FIELDS}
    output, error = members.get("output"), members.get("error")
    timeline, nodes, metadata = members.get("timeline"), members.get("nodes"), members.get("metadata")
    return Run(
        **known,
        output_text=output.text if output else "null",
        error=error.value if error else None,
        metadata=metadata.value if metadata and metadata.value else {},
        timeline=tuple(timeline.value) if timeline and timeline.value else (),
        nodes=tuple(nodes.value) if nodes and nodes.value else (),
    )
