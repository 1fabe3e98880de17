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
