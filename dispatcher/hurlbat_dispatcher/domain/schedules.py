"""The rules of schedules: which of the times that have come are fired, and which were missed."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

LATE_MS: Final = 60_000
"""A due time that is less than this past is merely late, and is fired; an older one was missed."""
MAX_MISSED: Final = 1_000
"""Missed times that are made up for at most: the newest."""


class Missed(StrEnum):
    """What is done for due times that nobody was there for."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Overlap(StrEnum):
    """What is done at a due time while an earlier run of the schedule is alive."""

    ALLOW = "allow"
    SKIP = "skip"
    CANCEL = "cancel"


class FireOutcome(StrEnum):
    """What came of a due time."""

    STARTED = "started"
    OVERLAP = "overlap"
    """Left out, as an earlier run was alive."""
    MISSED = "missed"
    FAILED = "failed"


class Source(StrEnum):
    """Who made a schedule: a person or program by the API, or a task's policy."""

    API = "api"
    TASK = "task"


class Schedule(NamedTuple):
    """A schedule as it is stored and shown. Times are ms since the epoch; input and metadata are raw JSON.

    It has an `expression` or a `run_at`. `next_at` is when it fires next, None while it is paused and when it never
    will; `last_at` is the newest due time that was fired, `last_run` the run that it started last, `problem` why its
    last due time started none.
    """

    name: str
    task: str
    source: Source
    expression: str | None
    timezone: str
    run_at: int | None
    input: str
    metadata: str
    priority: int | None
    missed: Missed
    overlap: Overlap
    paused: bool
    next_at: int | None
    last_at: int | None
    last_run: str | None
    problem: str | None
    created_at: int
    updated_at: int


class ScheduleFire(NamedTuple):
    """What came of a due time. `run` is what it started, `reason` why it did not. Times are ms since the epoch."""

    due_at: int
    manual: bool
    fired_at: int
    outcome: FireOutcome
    run: str | None
    reason: str | None


class Due(NamedTuple):
    """Due times (ms), oldest first: those to fire, and the newest that is not made up for, if any."""

    fired: tuple[int, ...]
    missed: int | None


def judge(times: Sequence[int], now: int, missed: Missed) -> Due:
    """Tell of the due times that have come, oldest first, which are fired and which were missed; all in ms."""
    late = [time for time in times if time > now - LATE_MS]
    old = list(times[: len(times) - len(late)])
    kept = {Missed.SKIP: 0, Missed.ONCE: 1, Missed.ALL: MAX_MISSED}[missed]
    made_up = old[len(old) - min(kept, len(old)) :]
    dropped = old[: len(old) - len(made_up)]
    return Due((*made_up, *late), dropped[-1] if dropped else None)
