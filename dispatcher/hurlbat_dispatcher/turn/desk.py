"""What a turn has at hand besides the database: the registry, the picture, and who this server is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hurlbat_dispatcher.clock import Chance, Clock, Ids, SystemClock
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.graph import Graph
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.policies import read_draws
from hurlbat_dispatcher.domain.terms import terms_of
from hurlbat_dispatcher.domain.workers import FIRST_WINDOW, NOWHERE, SERVING, WorkerState
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.secrecy import LeaseTokens
from hurlbat_dispatcher.store.lanes import LaneRow
from hurlbat_dispatcher.store.runs import RunRow

MOST_LANES: Final = 100_000
"""Lanes whose numbers are remembered; then all are forgotten, and looked for again."""
ENDLESS: Final = 1 << 40
"""Slots of where workflows run."""
LEAP_MS: Final = 5_000
"""A clock that is ahead of what has passed by more than this was set ahead."""


class KnownLane(NamedTuple):
    """The number of a lane, and about when it was last used (ms)."""

    id: int
    used_at: int


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
    lane_ids: dict[tuple[str, str], KnownLane] = field(default_factory=dict)
    """Lanes by their task and the digest of what they draw on."""
    _rows: dict[int, LaneRow] = field(default_factory=dict)
    epoch: int | None = None
    last_now: int = 0
    """The latest time that a turn had, in ms: no later one has an earlier."""
    draining: bool = False
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=lambda: Ids(SystemClock(), Chance()))
    """Makes the ids of runs that the turn itself comes upon."""
    most_input: int = 1 << 20
    """Bytes that the input of a batch may have."""
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
    graphs: dict[tuple[int, str, int], Graph] = field(default_factory=dict)
    """Graphs of workflows, by tenant, task and version, as far as they were read."""
    schedules_at: int = 0
    """Nobody wakes for a schedule before this time (ms): some that are due cannot be fired yet."""
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
        """Take the workers, tasks and limits as they are registered now."""
        picture, registry = self.picture, self.registry
        for worker in registry.workers.values():
            slots = picture.worker(worker.name, worker.slots)
            slots.window.pin(worker.pinned)
            serving = worker.state in SERVING or worker.state is WorkerState.UNREACHABLE
            if serving and not slots.serving:
                slots.not_before = 0
                slots.window.restart(FIRST_WINDOW)
            slots.serving = serving
            if worker.state is not WorkerState.UNREACHABLE:
                slots.back()
            elif not slots.probing:
                slots.unreachable(now)
                picture.shut(slots)
        for name, slots in picture.slots.items():
            if name not in registry.workers:
                slots.serving = False
        nowhere = picture.worker(NOWHERE, ENDLESS)
        nowhere.window.pin(ENDLESS)
        nowhere.serving = True
        tasks = [*registry.tasks.values(), *registry.removed.values()]
        picture.learn(terms_of(tasks, registry.workers, registry.limits, registry.pauses), now)
        picture.forget([name for name in picture.slots if name not in registry.workers and name != NOWHERE])

    def small(self, worker: str) -> bool:
        """Tell whether a worker is given less than it has slots for, so that good signs of it count."""
        slots = self.picture.slots.get(worker)
        return slots is not None and (slots.probing or slots.window.learns)

    def know_lane(self, row: LaneRow) -> None:
        """Remember the number of a lane."""
        self.lane_ids[row.task, row.digest] = KnownLane(row.id, row.used_at)
        self._rows[row.id] = row

    def open_lane(self, row: LaneRow) -> Lane:
        """Return the lane of a row that was read."""
        return self.picture.lane(row.id, row.task, read_draws(row.draws))

    def lane(self, lane_id: int) -> Lane:
        """Return a lane that this turn knows (see `turn.knowing`)."""
        return self.picture.lanes.get(lane_id) or self.open_lane(self._rows[lane_id])

    def crowded(self, more: int) -> bool:
        """Tell whether the numbers of so many lanes more are too many to remember."""
        return bool(self.lane_ids) and len(self.lane_ids) + more > MOST_LANES

    def forget_lanes(self) -> None:
        """Forget the numbers of lanes: what was just made may have been taken back."""
        self.lane_ids.clear()
        self._rows.clear()

    def release(self, run_id: str, attempt: int | None = None, *, unsent: bool = False) -> None:
        """Give the run's budgets back, where this server counts, and if it is this attempt that holds them."""
        self.picture.release(run_id, self.last_now, attempt, unsent=unsent)

    def forget_waiting(self, row: RunRow) -> None:
        """Take a waiting run out of its lane, where this server has it."""
        lane = self.picture.lanes.get(row.lane) if self.owns else None
        if row.ready and lane is not None:
            self.picture.drop(lane, Waiting(row.rank, row.id, row.priority), self.last_now)
