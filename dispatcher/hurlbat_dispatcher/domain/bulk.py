"""What is done to many runs at once: which runs are meant, and how far it is."""

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from hurlbat_dispatcher.domain.lifecycle import RunState


class OperationKind(StrEnum):
    """What is done to the runs."""

    CANCEL = "cancel"
    REPLAY = "replay"


class OperationState(StrEnum):
    """Whether there is more to do."""

    RUNNING = "running"
    DONE = "done"


CHANGEABLE: Final = {
    OperationKind.CANCEL: (RunState.QUEUED, RunState.RUNNING, RunState.SUSPENDED),
    OperationKind.REPLAY: (RunState.FAILED, RunState.CANCELLED, RunState.COMPLETED, RunState.SKIPPED),
}
"""The states of the runs to which it can be done."""
USUAL: Final = {
    OperationKind.CANCEL: CHANGEABLE[OperationKind.CANCEL],
    OperationKind.REPLAY: (RunState.FAILED,),
}
"""The states that are meant where a filter names none."""


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs are meant: those that are in line with everything that is said here.

    Created at `created_after` (ms) or later, and before `created_before` (ms).
    """

    task: str | None = None
    states: tuple[RunState, ...] = ()
    created_after: int | None = None
    created_before: int | None = None
    ids: tuple[str, ...] | None = None

    def to_json(self) -> str:
        """Return it as it is stored."""
        said = {
            "task": self.task,
            "states": self.states,
            "created_after": self.created_after,
            "created_before": self.created_before,
            "ids": self.ids,
        }
        return json.dumps({name: value for name, value in said.items() if value is not None})

    @classmethod
    def from_json(cls, text: str) -> "RunFilter":
        """Return what was stored."""
        said: dict[str, Any] = json.loads(text)
        ids = said.get("ids")
        return cls(
            said.get("task"),
            tuple(map(RunState, said["states"])),
            said.get("created_after"),
            said.get("created_before"),
            None if ids is None else tuple(ids),
        )


class Part(NamedTuple):
    """Says of the change of one run that it is part of an operation, and when it is not to be made after all.

    The run must still be in one of the `states`, and one that is replayed must have ended at `before` (ms) at the
    latest: one that ended since has had its replay.
    """

    operation: str
    states: frozenset[RunState]
    before: int

    def fits(self, state: str, finished_at: int | None) -> bool:
        """Tell whether the run is still one that is meant."""
        return state in self.states and (finished_at is None or finished_at <= self.before)
