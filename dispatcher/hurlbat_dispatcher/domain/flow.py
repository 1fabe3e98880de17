"""Admission: which of the waiting runs start now. A picture in memory of what waits and what is used, and no I/O.

A *lane* is all waiting runs of one task that draw on the same budgets; they are interchangeable but for their order.
A *pool* is what lanes share: the slots of the workers that may take them. Its *ring* is a heap of lanes by their key,
which is when the lane last started or began to wait, aged by the priority of its head: among equal priorities that is
rotation. Only the first `HORIZON` runs of a lane are held in memory; the rest stays in the database, and `hungry`
lanes ask for more.

A lane stands in its pool's ring, or (empty, or empty and hungry) nowhere. Runs never move one by one, so a million
waiting runs that cannot start cost nothing. Sets are never iterated: order must repeat for a simulator.
"""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, nsmallest
from typing import Final, NamedTuple

from hurlbat_dispatcher.domain.runs import AGE_MS
from hurlbat_dispatcher.domain.workers import Window, probe_wait

HORIZON: Final = 256
SHRINK_EVERY_MS: Final = 1_000
"""A window halves at most once in this time: answers to what was sent together tell the same thing."""


class Waiting(NamedTuple):
    """A run in its lane, in the order of its start."""

    rank: int
    run_id: str
    priority: int


@dataclass(slots=True, eq=False)
class Slots:
    """The budget of one worker: attempts in flight against its window, behind a gate.

    The gate is shut while the worker is not to be sent to, half open (one probing delivery at a time) while it is
    unreachable, and shut until `not_before` after backpressure. Times are ms.
    """

    worker: str
    window: Window
    serving: bool = False
    probing: bool = False
    used: int = 0
    not_before: int = 0
    failures: int = 0
    shrunk_at: int = -(1 << 62)
    probes: set[str] = field(default_factory=set)
    """Attempts that went through the half open gate; what was in flight before does not count as one."""
    pools: "dict[tuple[str, ...], Pool]" = field(default_factory=dict)

    def room(self, now: int) -> int:
        """Return how many more attempts may start now."""
        if not self.serving or now < self.not_before:
            return 0
        if self.probing:
            return min(1 - len(self.probes), self.window.slots - self.used)
        return self.window.size - self.used

    def answered(self, count: int) -> None:
        """Count good answers; the first opens a gate that was half open."""
        self.back()
        self.window.grow(count)

    def back(self) -> None:
        """Open the gate of a worker that was away; its window begins small, so that nothing stampedes."""
        if self.probing:
            self.probing = False
            self.failures = 0
            self.probes.clear()
            self.not_before = 0
            self.window.restart()

    def unreachable(self, now: int) -> None:
        """Let one probing delivery through at a time, each later than the last."""
        if self.probing and now < self.not_before:
            return
        self.probing = True
        self.failures += 1
        self.not_before = now + probe_wait(self.failures)

    def shrink(self, now: int) -> None:
        """Halve the window, once for all that was on its way together."""
        if now - self.shrunk_at >= SHRINK_EVERY_MS:
            self.shrunk_at = now
            self.window.shrink()

    def pushed_back(self, now: int, wait: int) -> None:
        """Halve the window, and send nothing for so many ms."""
        self.shrink(now)
        self.rest(now, wait)

    def rest(self, now: int, wait: int) -> None:
        """Send nothing for so many ms."""
        self.not_before = max(self.not_before, now + wait)


@dataclass(slots=True, eq=False)
class Lane:
    """The waiting runs of one task, by rank. `more`: others, beyond `horizon`, are in the database only."""

    id: int
    task: str
    pool: "Pool"
    heap: list[Waiting] = field(default_factory=list)
    gone: set[Waiting] = field(default_factory=set)
    more: bool = False
    horizon: Waiting | None = None
    since: int = 0
    key: int = 0
    seq: int = 0
    waits: bool = False

    def head(self) -> Waiting | None:
        """Return the run that starts next, without taking it."""
        while self.heap and self.heap[0] in self.gone:
            self.gone.discard(heappop(self.heap))
        return self.heap[0] if self.heap else None


@dataclass(slots=True, eq=False)
class Pool:
    """The workers that may take a lane's runs, and the lanes that wait for them."""

    workers: tuple[Slots, ...]
    ring: list[tuple[int, int, Lane]] = field(default_factory=list)

    def choose(self, now: int) -> Slots | None:
        """Return the least loaded worker with room, or None."""
        best: Slots | None = None
        best_cap = 0
        for slots in self.workers:
            room = slots.room(now)
            cap = slots.used + room
            if room > 0 and (best is None or slots.used * best_cap < best.used * cap):
                best, best_cap = slots, cap
        return best

    def first(self) -> tuple[int, int, Lane] | None:
        """Return the best entry of the ring; entries of lanes that moved on are dropped."""
        while self.ring and not (self.ring[0][2].waits and self.ring[0][2].seq == self.ring[0][1]):
            heappop(self.ring)
        return self.ring[0] if self.ring else None


class Flight(NamedTuple):
    """An attempt that holds a slot, and the server that sends it."""

    slots: Slots
    attempt: int
    sender: str


class Started(NamedTuple):
    """A run that starts now, and the worker that takes it."""

    run_id: str
    lane: Lane
    slots: Slots


class Picture:
    """Everything that admission needs. Same calls, same answers."""

    def __init__(self, horizon: int = HORIZON) -> None:
        self.horizon = horizon
        self.slots: dict[str, Slots] = {}
        self.pools: dict[tuple[str, ...], Pool] = {}
        self.lanes: dict[int, Lane] = {}
        self.running: dict[str, Flight] = {}
        self.sending: dict[str, int] = {}
        """How many attempts in flight each server sends."""
        self.hungry: dict[int, Lane] = {}
        self._active: dict[Pool, None] = {}
        self._shut: dict[Slots, None] = {}
        self._seq = 0

    # -- what there is -----------------------------------------------------------------------------------------------

    def worker(self, name: str, slots: int) -> Slots:
        """Return the worker's budget, made when first met, with its slots as they are now."""
        budget = self.slots.get(name)
        if budget is None:
            budget = self.slots[name] = Slots(name, Window(slots))
        elif budget.window.slots != slots:
            budget.window.resize(slots)
        return budget

    def lane(self, lane_id: int, task: str, workers: tuple[str, ...]) -> Lane:
        """Return the lane, moved to the pool of the workers that serve its task now."""
        pool = self._pool(workers)
        lane = self.lanes.get(lane_id)
        if lane is None:
            lane = self.lanes[lane_id] = Lane(lane_id, task, pool)
        elif lane.pool is not pool:
            lane.pool = pool
            if lane.waits:
                self._enter(lane)
        return lane

    def forget(self, workers: list[str]) -> None:
        """Forget workers that nothing is in flight at, and pools that no lane is in."""
        for name in workers:
            if not self.slots[name].used:
                self._shut.pop(self.slots.pop(name), None)
        used = {id(lane.pool) for lane in self.lanes.values()}
        for names in [names for names in self.pools if any(name not in self.slots for name in names)]:
            pool = self.pools[names]
            if id(pool) not in used:
                del self.pools[names]
                self._active.pop(pool, None)
                for slots in pool.workers:
                    slots.pools.pop(names, None)

    def opened(self, slots: Slots) -> None:
        """Look again at all lanes that could use this worker."""
        for pool in slots.pools.values():
            if pool.ring:
                self._active[pool] = None

    def shut(self, slots: Slots) -> None:
        """Watch a worker whose gate opens by itself at `not_before`."""
        self._shut[slots] = None

    def clock(self, now: int) -> None:
        """Open the gates whose time has come."""
        for slots in [slots for slots in self._shut if slots.not_before <= now]:
            del self._shut[slots]
            self.opened(slots)

    def alarm(self) -> int | None:
        """Return the next moment at which a gate opens by itself."""
        return min((slots.not_before for slots in self._shut if slots.serving), default=None)

    # -- runs come and go --------------------------------------------------------------------------------------------

    def add(self, lane: Lane, run: Waiting, now: int) -> None:
        """Let a run wait that is due."""
        if lane.more and lane.horizon is not None and run > lane.horizon:
            return
        if run in lane.gone:
            lane.gone.discard(run)
        else:
            heappush(lane.heap, run)
        if len(lane.heap) > 2 * self.horizon:
            self._trim(lane)
        if not lane.waits:
            lane.since = now
            self._enter(lane)
        elif lane.heap[0] == run and lane.since - AGE_MS * run.priority < lane.key:
            self._enter(lane)

    def drop(self, lane: Lane, run: Waiting) -> None:
        """Forget a waiting run, e.g. one that was cancelled."""
        if not (lane.more and lane.horizon is not None and run > lane.horizon):
            lane.gone.add(run)

    def refill(self, lane: Lane, runs: list[Waiting], *, more: bool) -> None:
        """Take the next runs of a lane from the database, in the order of their rank."""
        if not lane.since and runs:  # met for the first time: it waits since its head was due
            lane.since = runs[0].rank + AGE_MS * runs[0].priority
        known = set(lane.heap)
        lane.heap.extend(run for run in runs if run not in known)
        heapify(lane.heap)
        lane.more = more
        lane.horizon = runs[-1] if more and runs else None
        self.hungry.pop(lane.id, None)
        if not lane.waits:
            self._enter(lane)

    def occupy(self, run_id: str, slots: Slots, attempt: int, sender: str) -> None:
        """Count an attempt that is in flight already."""
        flight = self.running.get(run_id)
        if flight is None:
            self.running[run_id] = Flight(slots, attempt, sender)
            slots.used += 1
            self.sending[sender] = self.sending.get(sender, 0) + 1
        elif flight.attempt != attempt:
            self.sent_by(run_id, attempt, sender)

    def sent_by(self, run_id: str, attempt: int, sender: str) -> None:
        """Know which attempt of a run holds its slot, and who sends it."""
        flight = self.running[run_id]
        self.running[run_id] = Flight(flight.slots, attempt, sender)
        self.sending[flight.sender] -= 1
        self.sending[sender] = self.sending.get(sender, 0) + 1

    def release(self, run_id: str, attempt: int | None = None) -> Slots | None:
        """Give back what the run's attempt took, once; None when it held nothing, or another attempt holds it now."""
        flight = self.running.get(run_id)
        if flight is None or attempt not in (None, flight.attempt):
            return None
        del self.running[run_id]
        slots, _, sender = flight
        self.sending[sender] -= 1
        if not self.sending[sender]:
            del self.sending[sender]
        slots.used -= 1
        slots.probes.discard(run_id)
        self.opened(slots)
        return slots

    # -- the decision ------------------------------------------------------------------------------------------------

    def admit(self, now: int, most: int = 1 << 30) -> list[Started]:
        """Start all that can start, best lane first, at most so many; each takes its slot here and now."""
        started: list[Started] = []
        ready = [(first[0], first[1], pool) for pool in list(self._active) if (first := self._first(pool)) is not None]
        heapify(ready)
        while ready and len(started) < most:
            key, seq, pool = heappop(ready)
            first = self._first(pool)
            if first is None:
                continue
            if first[:2] != (key, seq):
                heappush(ready, (first[0], first[1], pool))
                continue
            chosen = pool.choose(now)
            if chosen is None:
                del self._active[pool]
                continue
            heappop(pool.ring)
            lane = first[2]
            run = lane.head()
            if run is not None and run.run_id in self.running:
                heappop(lane.heap)  # another server cancelled and replayed it, so it stood here twice
            elif run is not None:
                heappop(lane.heap)
                self.occupy(run.run_id, chosen, 0, "")
                if chosen.probing:
                    chosen.probes.add(run.run_id)
                started.append(Started(run.run_id, lane, chosen))
                lane.since = now
                if lane.more and len(lane.heap) < self.horizon // 4:
                    self.hungry[lane.id] = lane
            self._enter(lane)
            following = self._first(pool)
            if following is not None:
                heappush(ready, (following[0], following[1], pool))
        return started

    def _first(self, pool: Pool) -> tuple[int, int, Lane] | None:
        first = pool.first()
        if first is None:
            self._active.pop(pool, None)
        return first

    # -- inside ------------------------------------------------------------------------------------------------------

    def _pool(self, workers: tuple[str, ...]) -> Pool:
        pool = self.pools.get(workers)
        if pool is None:
            pool = self.pools[workers] = Pool(tuple(self.slots[name] for name in workers))
            for slots in pool.workers:
                slots.pools[workers] = pool
        return pool

    def _trim(self, lane: Lane) -> None:
        lane.heap = nsmallest(self.horizon, (run for run in lane.heap if run not in lane.gone))
        lane.gone.clear()
        lane.horizon = lane.heap[-1]
        lane.more = True

    def _enter(self, lane: Lane) -> None:
        """Put the lane into its pool's ring, from where the next look decides. Its older entries die by their seq."""
        head = lane.head()
        self._seq += 1
        lane.seq = self._seq
        if head is None:
            lane.waits = False
            if lane.more:
                self.hungry[lane.id] = lane
            return
        lane.waits = True
        lane.key = lane.since - AGE_MS * head.priority
        heappush(lane.pool.ring, (lane.key, lane.seq, lane))
        self._active[lane.pool] = None
