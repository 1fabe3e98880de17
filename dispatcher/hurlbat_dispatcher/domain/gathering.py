"""What gathers submits into one run: debounce and batches. Durations and times are in ms.

A *gathering* is one run and the time in which it takes in what is submitted with the same key. It is over when its
time is, when a batch is full, or when its run is no longer one that waits for its time; the next submit begins another.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

DEFAULT_BATCH_MS: Final = 10_000
"""How long a batch waits for more, where its task does not say."""
BRACKETS: Final = len("[]")
COMMA: Final = len(",")


class GatherKind(StrEnum):
    """How the submits of one key become one run."""

    TRAILING = "trailing"
    """The newest replaces the others, and starts when none has come for a while."""
    LEADING = "leading"
    """The first starts at once, and those that follow are left out."""
    BATCH = "batch"
    """One run has the list of all inputs."""


@dataclass(frozen=True, slots=True)
class Gather:
    """Gathers the submits of a task for each value of `key`, an expression.

    `period` is how long it waits: after the newest for a debounce, after the first for a batch. `size` is how many a
    batch holds at most, `max_wait` how long a trailing debounce may be put off.
    """

    kind: GatherKind
    period: int
    key: str | None = None
    max_wait: int | None = None
    size: int = 1

    def name(self, value: str, lane: str) -> str:
        """Return what identifies a gathering among all of its task: its kind, and the key's value.

        A batch gathers only what draws on the same budgets: the digest of its `lane` is part of it.
        """
        return f"{self.kind}:{lane}:{value}" if self.kind is GatherKind.BATCH else f"{self.kind}:{value}"


class Gathered(NamedTuple):
    """A run and what it has gathered: how many submits, in how many bytes of its input.

    `first_at` is when the first came, `until` when it takes no more (ms).
    """

    run: str
    submits: int
    bytes: int
    first_at: int
    until: int


def begin(gather: Gather, run: str, size: int, now: int) -> Gathered:
    """Return a new gathering, with one submit whose input has so many bytes."""
    return Gathered(run, 1, size + BRACKETS, now, now + gather.period)


def takes(gather: Gather, gathered: Gathered, now: int) -> bool:
    """Tell whether a gathering is not over: by its time, and by the number of its submits."""
    return now < gathered.until and (gather.kind is not GatherKind.BATCH or gathered.submits < gather.size)


def has_room(gather: Gather, gathered: Gathered, size: int, most: int) -> bool:
    """Tell whether an input of so many bytes fits into the run's own, of which there may be `most`."""
    return gather.kind is not GatherKind.BATCH or gathered.bytes + COMMA + size <= most


def add(gather: Gather, gathered: Gathered, size: int, now: int) -> Gathered:
    """Return the gathering with one submit more, whose input has so many bytes."""
    submits = gathered.submits + 1
    match gather.kind:
        case GatherKind.LEADING:
            return gathered._replace(submits=submits, until=now + gather.period)
        case GatherKind.TRAILING:
            until = now + gather.period
            if gather.max_wait is not None:
                until = max(now, min(until, gathered.first_at + gather.max_wait))
            return gathered._replace(submits=submits, until=until)
        case GatherKind.BATCH:
            until = now if submits >= gather.size else gathered.until
            return gathered._replace(submits=submits, bytes=gathered.bytes + COMMA + size, until=until)


def due_at(gather: Gather, gathered: Gathered) -> int:
    """Return when the run of a gathering is due."""
    return gathered.first_at if gather.kind is GatherKind.LEADING else gathered.until
