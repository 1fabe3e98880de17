"""What gathers submits into one run: debounce and batches. Durations are in ms."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_BATCH_MS: Final = 10_000
"""How long a batch waits for more, where its task does not say."""


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
