"""Lanes and pools: what waits, in the order of its start, and the workers that may take it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop
from typing import NamedTuple

from hurlbat_dispatcher.domain.budgets import Group, Need
from hurlbat_dispatcher.domain.policies import Draws
from hurlbat_dispatcher.domain.rotation import Ring, Rotation
from hurlbat_dispatcher.domain.slots import Slots

PoolKey = tuple[tuple[tuple[str, int], ...], int]
"""What makes a pool: its workers, by how well each is liked, and the slots that a run takes there."""


class Waiting(NamedTuple):
    """A run in its lane, in the order of its start."""

    rank: int
    run_id: str
    priority: int


@dataclass(slots=True, eq=False)
class Pool:
    """The workers that may take a lane's runs, by how well each is liked, and the lanes that wait for their slots."""

    workers: tuple[tuple[Slots, int], ...]
    cost: int = 1
    ring: Ring = field(default_factory=Ring)
    rotations: dict[str, Rotation] = field(default_factory=dict)
    passed: int = 0
    """How many slots others took while these should have been next."""
    reserved: Slots | None = None

    def choose(self, now: int) -> Slots | None:
        """Return the best liked worker with room, of those the least loaded, or None."""
        best: Slots | None = None
        best_score = best_cap = 0
        for slots, score in self.workers:
            if best is not None and score < best_score:
                continue
            if slots.reserved is not None and slots.reserved is not self:
                continue
            if not slots.takes(self.cost, now):
                continue
            cap = slots.used + max(slots.room(now), self.cost)
            if best is None or score > best_score or slots.used * best_cap < best.used * cap:
                best, best_score, best_cap = slots, score, cap
        return best


@dataclass(slots=True, eq=False)
class Lane:
    """Waiting runs of one task that draw on the same budgets. `more`: others, beyond `horizon`, are stored only.

    It stands in one place: its pool's ring, the line of the one budget that holds it, or (empty) nowhere.
    """

    id: int
    task: str
    draws: Draws
    pool: Pool
    rotation: Rotation
    needs: tuple[Need, ...] = ()
    ranks: tuple[Group, ...] = ()
    """Its groups whose strategy ranks their runs, and cancels some."""
    heap: list[Waiting] = field(default_factory=list)
    gone: set[Waiting] = field(default_factory=set)
    more: bool = False
    horizon: Waiting | None = None
    place: Ring | None = None
    entry: tuple[int, str] | None = None
    bounces: int = 0
    """How often it was held by a keyed budget since it last started."""
    running: int = 0
    reach: int = 0
    """How many of its runs are to be in memory, where that is more than of others."""

    def head(self) -> Waiting | None:
        """Return the run that starts next, without taking it."""
        while self.heap and self.heap[0] in self.gone:
            self.gone.discard(heappop(self.heap))
        return self.heap[0] if self.heap else None


class Flight(NamedTuple):
    """An attempt that holds its budgets, and the server that sends it. `started_at` is in ms."""

    slots: Slots
    attempt: int
    sender: str
    lane: Lane
    needs: tuple[Need, ...]
    cost: int
    started_at: int


class Started(NamedTuple):
    """A run that starts now, and the worker that takes it."""

    run_id: str
    lane: Lane
    slots: Slots


def settle(
    lanes: Iterable[Lane], key_for: Callable[[str, Draws], PoolKey]
) -> tuple[dict[Pool, PoolKey], dict[Pool, None]]:
    """Return what pools are to be where they stand, so that most lanes need not move; and those of which some must.

    A pool becomes what most of its lanes want; of two that would become the same, the one with more such lanes does.
    """
    keys: dict[tuple[str, str | None, bool, int], PoolKey] = {}
    wanted: dict[Pool, dict[PoolKey, int]] = {}
    for lane in lanes:
        draws = lane.draws
        kind = (lane.task, draws.worker, draws.only, draws.cost)
        key = keys.get(kind)
        if key is None:
            key = keys[kind] = key_for(lane.task, draws)
        counts = wanted.setdefault(lane.pool, {})
        counts[key] = counts.get(key, 0) + 1
    largest: dict[PoolKey, tuple[int, Pool]] = {}
    for pool, counts in wanted.items():
        key = max(counts, key=counts.__getitem__)
        if key not in largest or counts[key] > largest[key][0]:
            largest[key] = counts[key], pool
    stay = {pool: key for key, (_, pool) in largest.items()}
    return stay, {pool: None for pool, counts in wanted.items() if pool not in stay or len(counts) > 1}
