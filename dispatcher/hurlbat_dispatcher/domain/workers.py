"""Workers: their states, when they may be sent to, and how much at a time.

The window is the part of a worker's slots that is used now. It begins small, doubles while answers come until the first
trouble, then grows by one per window of answers, and halves on trouble (the additive-increase, multiplicative-decrease
of TCP congestion avoidance, RFC 5681, counted in attempts).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """How a worker speaks: the whole push protocol, or plain HTTP."""

    PROTOCOL = "protocol"
    PLAIN = "plain"


class WorkerState(StrEnum):
    """Whether a worker gets runs, and if not, why."""

    PENDING = "pending"
    READY = "ready"
    REJECTED = "rejected"
    UNVERIFIED = "unverified"
    UNREACHABLE = "unreachable"
    PAUSED = "paused"
    DISABLED = "disabled"


SERVING: Final = frozenset({WorkerState.READY, WorkerState.UNVERIFIED})
"""States in which a worker gets runs without reserve; an unreachable one gets single probing deliveries."""

FIRST_WINDOW: Final = 16
PROBE_FIRST_MS: Final = 500
PROBE_MAX_MS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker as it is shown. Times are ms since the epoch; `problem` is one sentence, or None."""

    name: str
    url: str
    mode: Mode
    slots: int
    state: WorkerState
    problem: str | None
    tasks: tuple[str, ...]
    labels: Mapping[str, str]
    max_batch: int
    manifest: str
    created_at: int
    updated_at: int
    last_seen_at: int | None = None
    window: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class Window:
    """How many attempts may be in flight at a worker, never more than its slots."""

    slots: int
    size: int = field(init=False)
    threshold: int = field(init=False)
    earned: int = 0

    def __post_init__(self) -> None:
        self.size = min(self.slots, FIRST_WINDOW)
        self.threshold = self.slots

    def resize(self, slots: int) -> None:
        """Take another number of slots."""
        grown = slots > self.slots and self.threshold >= self.slots
        self.slots = slots
        self.size = min(self.size, slots)
        self.threshold = slots if grown else min(self.threshold, slots)

    def grow(self, answers: int) -> None:
        """Count so many answers that came as they should."""
        if self.size >= self.slots:
            return
        if self.size < self.threshold:
            self.size = min(self.slots, self.size + answers)
            return
        self.earned += answers
        if self.earned >= self.size:
            self.earned = 0
            self.size += 1

    def shrink(self) -> None:
        """Halve, on trouble."""
        self.size = max(1, self.size // 2)
        self.threshold = self.size
        self.earned = 0

    def restart(self) -> None:
        """Begin small again, for a worker that comes back."""
        self.size = min(self.slots, 1)
        self.threshold = self.slots
        self.earned = 0


def probe_wait(failures: int) -> int:
    """Return the milliseconds before the next probing delivery, after so many that failed in a row."""
    return int(min(PROBE_MAX_MS, PROBE_FIRST_MS * 2 ** min(failures - 1, 10)))
