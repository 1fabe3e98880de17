"""What a turn has at hand besides the database: the registry, the picture, and who this server is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from hurlbat_dispatcher.clock import Chance, Clock, SystemClock
from hurlbat_dispatcher.domain.flow import Lane, Picture, Waiting
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.domain.workers import SERVING, WorkerState
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.secrecy import LeaseTokens
from hurlbat_dispatcher.store.runs import RunRow

LEAP_MS: Final = 5_000
"""A clock that is ahead of what has passed by more than this was set ahead."""


@dataclass(slots=True)
class Desk:
    """Shared by all turns of one server. `epoch` is None while another server owns the lanes; `lease` is in ms."""

    me: str
    registry: Registry
    chance: Chance
    lease: int
    report_base: str
    lease_tokens: LeaseTokens
    picture: Picture = field(default_factory=Picture)
    epoch: int | None = None
    last_now: int = 0
    """The latest time that a turn had, in ms: no later one has an earlier."""
    draining: bool = False
    clock: Clock = field(default_factory=SystemClock)
    asked: float = 0.0
    """When the turn began, by our monotonic clock."""
    leap: int = 0
    """By how many ms the time has jumped ahead since the leases were last moved along."""
    peers: tuple[str, ...] = ()
    """The other servers that may be given work, when they were last read."""
    moment: int | None = None
    """When something is due next (ms), as far as is known."""
    may_start: Callable[[], bool] = field(default=lambda: True)
    """Whether this server's own lease is good, so that it could send what it starts."""
    orphans_at: int | None = None
    """When the lease of another server may be over, in ms."""
    _heard_at: float = 0.0
    _asked_at: float = 0.0
    _doubts_until: float = 0.0

    @property
    def owns(self) -> bool:
        """Tell whether this server starts runs."""
        return self.epoch is not None

    def tell_time(self, said: int) -> int:
        """Return now (ms), given what the database's clock said.

        A clock that was set back does not stop the time: until it has caught up, our own monotonic clock tells it. One
        that was set ahead leaves a `leap`; what passed at most is from the last question to this answer.
        """
        at = self.clock.monotonic()
        ahead = said - self.last_now - int((at - self._asked_at) * 1000)
        if self.last_now and ahead > LEAP_MS:
            self.leap += ahead
            self._doubts_until = at + self.lease / 1000
        self._asked_at = self.asked
        if said >= self.last_now:
            self.last_now, self._heard_at = said, at
        else:
            passed = int((at - self._heard_at) * 1000)
            self.last_now += passed
            self._heard_at += passed / 1000
        return self.last_now

    @property
    def doubts_leases(self) -> bool:
        """Tell whether other servers may not have had the time to renew their leases since the clock was set ahead."""
        return self.clock.monotonic() < self._doubts_until

    def refresh(self, now: int) -> None:
        """Take the workers and tasks as they are registered now."""
        picture = self.picture
        for worker in self.registry.workers.values():
            slots = picture.worker(worker.name, worker.slots)
            serving = worker.state in SERVING or worker.state is WorkerState.UNREACHABLE
            if serving and not slots.serving:
                slots.not_before = 0
            slots.serving = serving
            if worker.state is not WorkerState.UNREACHABLE:
                slots.back()
            elif not slots.probing:
                slots.unreachable(now)
                picture.shut(slots)
            picture.opened(slots)
        for name, slots in picture.slots.items():
            if name not in self.registry.workers:
                slots.serving = False
        for lane_id, name in self.registry.lanes.items():
            picture.lane(lane_id, name, self._workers_of(name))
        picture.forget([name for name in picture.slots if name not in self.registry.workers])

    def small(self, worker: str) -> bool:
        """Tell whether a worker is given less than it has slots for, so that good signs of it count."""
        slots = self.picture.slots.get(worker)
        return slots is not None and (slots.probing or slots.window.size < slots.window.slots)

    def lane(self, lane_id: int, task: str) -> Lane:
        """Return the lane of a task's waiting runs."""
        return self.picture.lanes.get(lane_id) or self.picture.lane(lane_id, task, self._workers_of(task))

    def release(self, run_id: str, attempt: int | None = None) -> None:
        """Give the run's slot back, where this server counts, and if it is this attempt that holds it."""
        self.picture.release(run_id, attempt)

    def forget_waiting(self, row: RunRow) -> None:
        """Take a waiting run out of its lane, where this server has it."""
        lane = self.picture.lanes.get(row.lane) if self.owns else None
        if row.ready and lane is not None:
            self.picture.drop(lane, Waiting(row.rank, row.id, row.priority))

    def _workers_of(self, task: str) -> tuple[str, ...]:
        found: Task | None = self.registry.tasks.get(task)
        return tuple(name for name in found.workers if name in self.picture.slots) if found else ()
