"""Deliveries on their way, and what waits to be sent to each worker."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from hurlbat.wire import DeliveredRun
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.turn.operations import AttemptEnd

MAX_DELIVERY_CHARS: Final = 4_000_000
"""Payload of one delivery, at most; a run that is larger by itself goes alone."""

Key = tuple[str, int]
"""A run's id and the number of its attempt."""


@dataclass(slots=True, eq=False)
class Parcel:
    """A delivery on its way: which attempts have started, which have no end yet, which were cancelled."""

    target: Target
    waiting: dict[Key, DeliveredRun]
    delivery: str | None = None
    """What it is called, where it is recorded."""
    started: dict[Key, float] = field(default_factory=dict)
    """When each began, by the event loop's clock."""
    cancelled: set[Key] = field(default_factory=set)
    notes: dict[Key, int] = field(default_factory=dict)
    refused: list[AttemptEnd] = field(default_factory=list)
    """Ends that say more of the worker than of the runs; applied once the worker's budget knows of it."""
    sent: bool = False
    """Whether a byte of it may have been sent."""
    sent_at: float = 0.0
    """When it set out, by the event loop's clock."""
    sending: bool = False
    """Whether it counts among the worker's deliveries in their sending phase."""
    task: asyncio.Task[None] | None = None

    def ages(self) -> dict[str, int]:
        """Return how long ago (ms) the handlers of its runs began."""
        now = asyncio.get_running_loop().time()
        return {run_id: int((now - at) * 1000) for (run_id, _), at in self.started.items()}


@dataclass(slots=True, eq=False)
class Tray:
    """What waits to be sent to one worker."""

    queue: deque[DeliveredRun] = field(default_factory=deque)
    sending: int = 0
    lingering: asyncio.TimerHandle | None = None


def take(queue: deque[DeliveredRun], most: int) -> list[DeliveredRun]:
    """Take the next runs for one delivery: at most so many, and no more than may travel together."""
    batch: list[DeliveredRun] = []
    size = 0
    while queue and len(batch) < most:
        run = queue[0]
        size += len(run.input) + len(run.metadata) + len(run.trigger or "") + len(run.parents or "")
        if batch and size > MAX_DELIVERY_CHARS:
            break
        batch.append(queue.popleft())
    return batch
