"""What a task may know of its attempt, and tell of it while it runs."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, get_args, overload

from hurlbat.errors import Cancelled, ConfigError
from hurlbat.payloads import printable
from hurlbat.wire import HeartbeatLine, Line, LogLine, ProgressLine

if TYPE_CHECKING:
    from hurlbat.workflow import Node

O = TypeVar("O")  # noqa: E741 -- the output
D = TypeVar("D")

Level = Literal["debug", "info", "warning", "error"]

_NONE: Final[Any] = object()
"""Where no default is given."""


class Attempt(Protocol):
    """The attempt behind a context: what it is, and where its lines go."""

    stop_reason: str | None
    """Why it shall stop, once it shall."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def task(self) -> str:
        """The task's name."""
        ...

    @property
    def attempt(self) -> int:
        """Which start of the run this is."""
        ...

    @property
    def max_attempts(self) -> int:
        """How many charged starts the run may have."""
        ...

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller attached to the run."""
        ...

    @property
    def input(self) -> Any:
        """The input, as the task takes it."""
        ...

    @property
    def state(self) -> Any:
        """What the lifespan of the tasks has given."""
        ...

    @property
    def trigger(self) -> Mapping[str, Any] | None:
        """What started the run, if nobody submitted it."""
        ...

    @property
    def parents(self) -> Mapping[str, Any] | None:
        """The outputs of the parents of a workflow's node, by their names."""
        ...

    @property
    def deadline(self) -> datetime:
        """When the execution timeout ends it."""
        ...

    def tell(self, line: Line) -> None:
        """Send a line, from whichever thread."""
        ...


class Context:
    """The attempt that a task is running in. A task gets it by a parameter with this annotation.

    Every method returns at once and may be called from async and from sync functions.
    """

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @property
    def run_id(self) -> str:
        """The run's id; the same for all its attempts, so it makes a good idempotency key for what the task does."""
        return self._attempt.run_id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._attempt.task

    @property
    def attempt(self) -> int:
        """Which start of the run this is, from 1."""
        return self._attempt.attempt

    @property
    def max_attempts(self) -> int:
        """How many charged starts the run may have."""
        return self._attempt.max_attempts

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller attached to the run."""
        return self._attempt.metadata

    @property
    def input(self) -> Any:
        """The input as the task gets it, read by its type; as JSON has it where the task takes none."""
        return self._attempt.input

    @property
    def state(self) -> Any:
        """What the lifespan of the tasks yields, `Hurlbat(lifespan=…)`; None without one."""
        return self._attempt.state

    @property
    def trigger(self) -> Mapping[str, Any] | None:
        """What started the run, by its `type`, or None where somebody submitted it.

        `event` has `event` (its id), `key`, `scope`, `filter` and `payload`; `schedule` has `schedule`, `due_at` and
        `manual`; `failure` has `run` and `task`; `workflow` has `workflow`, `run`, `node`, `parents` and `conditions`.
        """
        return self._attempt.trigger

    @property
    def filter_payload(self) -> Any:
        """The payload of the filter that was true for the event that started the run, or None where none did."""
        trigger = self._attempt.trigger
        return None if trigger is None else trigger.get("payload")

    @property
    def workflow_run_id(self) -> str | None:
        """The id of the workflow's run that this run is a node of, or None."""
        return self._in_workflow.get("run")

    @property
    def parents(self) -> Mapping[str, Any]:
        """The outputs of a node's parents by their names, as JSON has them; null of one that was skipped."""
        return self._attempt.parents or {}

    @property
    def conditions(self) -> list[Mapping[str, Any]]:
        """What came true of what a node waited for: `{sleep}`, `{expression}`, or `{event, id, payload}` each."""
        return list(self._in_workflow.get("conditions") or ())

    @overload
    def output(self, parent: "Node[Any, O]") -> O: ...
    @overload
    def output(self, parent: "Node[Any, O]", default: D) -> O | D: ...
    @overload
    def output(self, parent: str, default: Any = ...) -> Any: ...
    def output(self, parent: "Node[Any, Any] | str", default: Any = _NONE) -> Any:
        """Return the output of a parent in the workflow, by its type; of one given by its name, as JSON has it.

        One that has none, as it was skipped, raises `ConfigError` unless a default is given, and so does who is no
        parent. An output that is not of its type raises `PayloadError`.
        """
        name, state = self._parent(parent)
        if state != "completed":
            if default is _NONE:
                raise ConfigError(f"the node {name} has no output, as it is {state}; a default may be given for that")
            return default
        output = self.parents.get(name)
        return output if isinstance(parent, str) else parent.read(output)

    def was_skipped(self, parent: "Node[Any, Any] | str") -> bool:
        """Tell whether a parent in the workflow was skipped. Raises `ConfigError` for who is no parent."""
        return self._parent(parent)[1] == "skipped"

    @property
    def deadline(self) -> datetime:
        """When the execution timeout ends this attempt, in UTC."""
        return self._attempt.deadline

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled or its time is over. Sync functions should look at it now and then."""
        return self._attempt.stop_reason is not None

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if the run was cancelled or its time is over."""
        if self._attempt.stop_reason is not None:
            raise Cancelled(self._attempt.stop_reason)

    def heartbeat(self) -> None:
        """Say that the attempt is alive. This also happens by itself, every few seconds, while the process lives."""
        self._attempt.tell(HeartbeatLine())

    def log(self, message: object, level: Level | int = "info") -> None:
        """Write a line into the run's timeline. A level of `logging` will do as well."""
        name = _level(level) if isinstance(level, int) else level
        if name not in get_args(Level):
            raise ValueError(f"the level of a line is one of {', '.join(get_args(Level))}, not {level!r}")
        self._attempt.tell(LogLine(self.run_id, self.attempt, name, printable(str(message))))

    def progress(self, value: float | None = None, message: str | None = None) -> None:
        """Say how far the task has come: from 0 to 1, or None where only the message tells."""
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"progress is from 0 to 1, not {value!r}")
        self._attempt.tell(ProgressLine(self.run_id, self.attempt, value, message and printable(message)))

    @property
    def _in_workflow(self) -> Mapping[str, Any]:
        trigger = self._attempt.trigger
        return trigger if trigger is not None and trigger.get("type") == "workflow" else {}

    def _parent(self, parent: "Node[Any, Any] | str") -> tuple[str, str]:
        """Return what a parent is called and how it ended."""
        here = self._in_workflow
        if not here:
            raise ConfigError(f"this run of {self.task} belongs to no workflow, so it has no parents")
        name = parent if isinstance(parent, str) else getattr(parent, "node", None)
        if name is None:
            raise ConfigError(f"{parent!r} is no node; give what task(…) or add(…) of the workflow returned, or a name")
        of = here.get("workflow") if isinstance(parent, str) else parent.workflow
        known = here.get("parents") or {}
        if of != here.get("workflow") or name not in known:
            said = ", ".join(known) or "it has none"
            raise ConfigError(f"{parent!r} is no parent of the node {here.get('node')}; its parents: {said}")
        return name, known[name]["state"]

    def __repr__(self) -> str:
        return f"Context(run_id={self.run_id!r}, task={self.task!r}, attempt={self.attempt})"


def _level(number: int) -> str:
    for least, name in ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info")):
        if number >= least:
            return name
    return "debug"
