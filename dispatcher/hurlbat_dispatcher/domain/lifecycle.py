"""The life of a run as a table: which event moves a run from which state to which. A missing entry is the error."""

from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """Where a run stands. "Scheduled", "retrying" and "delayed" are `queued` with a due time in the future."""

    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


class RunEvent(StrEnum):
    """What happens to a run, in the past tense."""

    STARTED = "started"
    SUCCEEDED = "succeeded"
    GAVE_UP = "gave_up"
    PUT_BACK = "put_back"
    SUSPENDED = "suspended"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    REPLAYED = "replayed"


FINAL: Final = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED})

TRANSITIONS: Final[dict[tuple[RunState, RunEvent], RunState]] = {
    (RunState.QUEUED, RunEvent.STARTED): RunState.RUNNING,
    (RunState.QUEUED, RunEvent.CANCELLED): RunState.CANCELLED,
    (RunState.QUEUED, RunEvent.EXPIRED): RunState.CANCELLED,
    (RunState.QUEUED, RunEvent.TIMED_OUT): RunState.FAILED,
    (RunState.QUEUED, RunEvent.SKIPPED): RunState.SKIPPED,
    (RunState.QUEUED, RunEvent.GAVE_UP): RunState.FAILED,
    (RunState.RUNNING, RunEvent.SUCCEEDED): RunState.COMPLETED,
    (RunState.RUNNING, RunEvent.GAVE_UP): RunState.FAILED,
    (RunState.RUNNING, RunEvent.PUT_BACK): RunState.QUEUED,
    (RunState.RUNNING, RunEvent.SUSPENDED): RunState.SUSPENDED,
    (RunState.RUNNING, RunEvent.CANCELLED): RunState.CANCELLED,
    (RunState.SUSPENDED, RunEvent.RESUMED): RunState.QUEUED,
    (RunState.SUSPENDED, RunEvent.CANCELLED): RunState.CANCELLED,
    (RunState.SUSPENDED, RunEvent.SKIPPED): RunState.SKIPPED,
    (RunState.SUSPENDED, RunEvent.GAVE_UP): RunState.FAILED,
    (RunState.COMPLETED, RunEvent.REPLAYED): RunState.QUEUED,
    (RunState.FAILED, RunEvent.REPLAYED): RunState.QUEUED,
    (RunState.CANCELLED, RunEvent.REPLAYED): RunState.QUEUED,
    (RunState.SKIPPED, RunEvent.REPLAYED): RunState.QUEUED,
}


class ImpossibleTransition(Exception):
    """The table has no such entry."""

    def __init__(self, state: RunState, event: RunEvent) -> None:
        super().__init__(f"a {state} run cannot be {event.replace('_', ' ')}")
        self.state = state
        self.event = event


def move(state: RunState, event: RunEvent) -> RunState:
    """Return the state after the event. Raises `ImpossibleTransition`."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ImpossibleTransition(state, event) from None
