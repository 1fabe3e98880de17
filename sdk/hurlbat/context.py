"""What a task may know of its attempt, and tell of it while it runs."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from hurlbat.errors import Cancelled
from hurlbat.payloads import printable
from hurlbat.wire import HeartbeatLine, Line, LogLine, ProgressLine

Level = Literal["debug", "info", "warning", "error"]


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
    def trigger(self) -> Mapping[str, Any] | None:
        """What started the run, if nobody submitted it."""
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
    def trigger(self) -> Mapping[str, Any] | None:
        """What started the run, by its `type`, or None where somebody submitted it.

        `event` has `event` (its id), `key`, `scope`, `filter` and `payload`; `schedule` has `schedule`, `due_at` and
        `manual`; `failure` has `run` and `task`.
        """
        return self._attempt.trigger

    @property
    def filter_payload(self) -> Any:
        """The payload of the filter that was true for the event that started the run, or None where none did."""
        trigger = self._attempt.trigger
        return None if trigger is None else trigger.get("payload")

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

    def __repr__(self) -> str:
        return f"Context(run_id={self.run_id!r}, task={self.task!r}, attempt={self.attempt})"


def _level(number: int) -> str:
    for least, name in ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info")):
        if number >= least:
            return name
    return "debug"
