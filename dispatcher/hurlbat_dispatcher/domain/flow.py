"""Admission: which of the waiting runs start now. A picture in memory of what waits and what is used, and no I/O.

A run starts when every budget that it draws on has room, and takes them all at once: a worker's slots, a place in each
of its concurrency groups, units of its rate limits. A *lane* is all waiting runs of one task that draw on the same; a
*pool* is what lanes share: the workers that may take them, and the slots that each run takes there. Lanes wait in the
ring of their pool, by turns, and one that a keyed budget holds stands in a line of that budget until it has room; then
it nominates the next in line. Runs never move one by one, so a million that cannot start cost nothing.

A lane that was held too often reserves its keyed budgets, all at once, and a pool that was passed over too often
reserves a worker: so who needs much, or two scarce things, starts within a bounded number of starts of others.

Only the first runs of a lane are in memory; the rest stays in the database, and `hungry` lanes ask for more. Sets are
never iterated: order must repeat for a simulator.
"""

from heapq import heapify, heappop, heappush, nsmallest
from typing import Final

from hurlbat_dispatcher.domain.budgets import Group, Rate
from hurlbat_dispatcher.domain.lanes import Flight, Lane, Pool, Started, Waiting
from hurlbat_dispatcher.domain.lines import SOON_MS, Lines
from hurlbat_dispatcher.domain.runs import AGE_MS
from hurlbat_dispatcher.domain.slots import Slots
from hurlbat_dispatcher.domain.terms import Terms

HORIZON: Final = 256
"""Runs of a lane that are held in memory, where there are few lanes."""
MOST_HELD: Final = 200_000
"""Runs that are held in memory, about, in all lanes together."""
LEAST_HELD: Final = 16
MAX_LOOKS: Final = 4_000
"""Lanes that are looked at in one turn; the next goes on."""


class Picture(Lines):
    """Everything that admission needs. Same calls, same answers."""

    def __init__(self, horizon: int = HORIZON) -> None:
        super().__init__()
        self.most_held = horizon
        self.running: dict[str, Flight] = {}
        self.sending: dict[str, int] = {}
        """How many attempts in flight each server sends."""
        self.hungry: dict[int, Lane] = {}
        self.unfinished = False
        """More could be looked at than one turn does."""
        self._shut: dict[Slots, None] = {}

    @property
    def horizon(self) -> int:
        """Return how many runs of a lane are held in memory."""
        lanes = len(self.lanes) or 1
        return min(self.most_held, max(LEAST_HELD, MOST_HELD // lanes))

    def reach(self, lane: Lane) -> int:
        """Return how many runs of this lane are held in memory: more where it ran dry while it could have started."""
        return max(self.horizon, lane.reach)

    def learn(self, terms: Terms, now: int) -> None:
        """Take other terms; what is in flight counts in groups whose rule was not in force when it started, too."""
        before = self.terms.rules
        super().learn(terms, now)
        if terms.rules.keys() - before.keys():
            for run_id, flight in self.running.items():
                more = [
                    need for need in flight.lane.needs if isinstance(need.budget, Group) and need not in flight.needs
                ]
                for budget, units, _ in more:
                    budget.take(now, units)
                self.running[run_id] = flight._replace(needs=(*flight.needs, *more))

    # -- time --------------------------------------------------------------------------------------------------------

    def shut(self, slots: Slots) -> None:
        """Watch a worker whose gate opens by itself at `not_before`."""
        self._shut[slots] = None

    def clock(self, now: int) -> None:
        """Open the gates and the rate limits whose time has come."""
        for slots in [slots for slots in self._shut if slots.not_before <= now]:
            del self._shut[slots]
            self.opened(slots)
        while self._timers and self._timers[0][0] <= now:
            rate = heappop(self._timers)[2]
            rate.timer = 0
            self.gained(rate, now)
        for lane in list(self._insisting):
            self._insist(lane, now)
        self._set_alarms(now)

    def alarm(self) -> int | None:
        """Return the next moment at which something opens by itself."""
        moments = [slots.not_before for slots in self._shut if slots.serving]
        moments += [since + SOON_MS for since in self._insisting.values() if since]
        if self._timers:
            moments.append(self._timers[0][0])
        return min(moments, default=None)

    # -- runs come and go --------------------------------------------------------------------------------------------

    def add(self, lane: Lane, run: Waiting, now: int) -> None:
        """Let a run wait that is due."""
        if lane.more and lane.horizon is not None and run > lane.horizon:
            return
        if run in lane.gone:
            lane.gone.discard(run)
        else:
            heappush(lane.heap, run)
        if len(lane.heap) > 2 * self.reach(lane):
            self._trim(lane)
        if lane.place is None:
            self._wait(lane, now)
        elif lane.head() == run:
            if lane.place.line is not None and self._short_of(lane, now) is None:
                self._enter(lane)  # another has come forward, and this one goes first now
            else:
                lane.place.enter(lane)
            self._stir(lane)

    def drop(self, lane: Lane, run: Waiting, now: int) -> None:
        """Forget a waiting run, e.g. one that was cancelled."""
        if lane.more and lane.horizon is not None and run > lane.horizon:
            return
        lane.gone.add(run)
        if lane.place is None or lane.entry != (run.rank, run.run_id):
            return
        self._stir(lane)
        if lane.head() is None:
            self._leave(lane, now)
            self._follow(lane, now)  # it may have come forward, and then the next one has to
        else:
            lane.place.enter(lane)

    def refill(self, lane: Lane, runs: list[Waiting], *, more: bool) -> None:
        """Take the next runs of a lane from the database, in the order of their rank."""
        known = set(lane.heap)
        lane.heap.extend(run for run in runs if run not in known)
        heapify(lane.heap)
        lane.more = more
        lane.horizon = runs[-1] if more and runs else None
        self.hungry.pop(lane.id, None)
        head = lane.head()
        if head is not None and lane.place is None:
            # one that was met for the first time waits since its head was due
            self._wait(lane, head.rank + AGE_MS * head.priority if not lane.rotation.since else lane.rotation.since)

    def occupy(self, run_id: str, slots: Slots, lane: Lane, attempt: int, sender: str, started_at: int = 0) -> None:
        """Count an attempt that is in flight already. What it took of rate limits is counted there."""
        flight = self.running.get(run_id)
        if flight is None:
            self._take(run_id, slots, lane, attempt, sender, started_at)
            for need in lane.needs:
                if not isinstance(need.budget, Rate):
                    need.budget.take(started_at, need.units)
        elif flight.attempt != attempt:
            self.sent_by(run_id, attempt, sender)

    def sent_by(self, run_id: str, attempt: int, sender: str) -> None:
        """Know which attempt of a run holds its budgets, and who sends it."""
        flight = self.running[run_id]
        self.running[run_id] = flight._replace(attempt=attempt, sender=sender)
        self.sending[flight.sender] -= 1
        self.sending[sender] = self.sending.get(sender, 0) + 1

    def release(self, run_id: str, now: int, attempt: int | None = None, *, unsent: bool = False) -> Slots | None:
        """Give back all that the run's attempt took, once; None when it holds nothing, or another attempt does.

        `unsent`: it was no start, and its units are given back, too.
        """
        flight = self.running.get(run_id)
        if flight is None or attempt not in (None, flight.attempt):
            return None
        del self.running[run_id]
        slots, _, sender, lane, needs, cost, started_at = flight
        self.sending[sender] -= 1
        if not self.sending[sender]:
            del self.sending[sender]
        slots.used -= cost
        lane.running -= 1
        slots.probes.discard(run_id)
        if needs:
            for budget, units, _ in needs:
                budget.give(units)
                if unsent and isinstance(budget, Rate):
                    budget.undo(started_at, units)
                    self.note_use(budget)
            for budget, _, _ in needs:
                if budget.lines:
                    self.gained(budget, now)
        self.opened(slots)
        return slots

    # -- the decision ------------------------------------------------------------------------------------------------

    def admit(self, now: int, most: int = 1 << 30) -> list[Started]:
        """Start all that can start, whose turn it is first; each takes its budgets here and now."""
        started: list[Started] = []
        passed: dict[Pool, int] = {}
        looks = 0
        ready: list[tuple[int, int, Pool]] = []
        while len(started) < most and looks < MAX_LOOKS:
            if not ready:  # at first, and for those who have come forward meanwhile
                for pool in list(self._active):
                    self._line_up(ready, pool)
                if not ready:
                    break
            key, stamp, pool = heappop(ready)
            first = pool.ring.first()
            if first is None or first[:2] != (key, stamp):
                self._line_up(ready, pool)
                continue
            chosen = pool.choose(now)
            if chosen is None:
                del self._active[pool]
                if pool.cost > 1:
                    passed.setdefault(pool, len(started))
                continue
            looks += 1
            lane = first[2]
            short = self._short_of(lane, now) if lane.needs else None
            if short is None:
                one = self._start(lane, chosen, now)
                if one is not None:
                    started.append(one)
            else:
                self._park(lane, short, now)
            if lane.needs:
                self._follow(lane, now)
            self._line_up(ready, pool)
        self.unfinished = bool(self._active)
        for pool, count in passed.items():
            self._passed_over(pool, started[count:], now)
        if self._to_alarm:
            self._set_alarms(now)
        return started

    def _line_up(self, ready: list[tuple[int, int, Pool]], pool: Pool) -> None:
        first = pool.ring.first()
        if first is not None:
            heappush(ready, (first[0], first[1], pool))
            return
        self._active.pop(pool, None)
        if pool.reserved is not None:
            self._let_go(pool)

    def _start(self, lane: Lane, slots: Slots, now: int) -> Started | None:
        run = heappop(lane.heap)
        fresh = run.run_id not in self.running  # else another server cancelled and replayed it, so it stood here twice
        if fresh:
            self._take(run.run_id, slots, lane, 0, "", now)
            for budget, units, _ in lane.needs:
                budget.take(now, units)
                if isinstance(budget, Rate):
                    self.note_use(budget)
            if slots.probing:
                slots.probes.add(run.run_id)
            if lane.ranks:
                self.began(run.run_id)
            self._seq += 1
            lane.rotation.begin(now, self._seq)
            lane.bounces = 0
        if lane.more and len(lane.heap) < self.reach(lane) // 4:
            self.hungry[lane.id] = lane
        if lane.head() is None:
            self._leave(lane, now)
        else:
            lane.pool.ring.enter(lane)
        if fresh:  # only now: others come forward, and are compared with where this lane stands
            if lane in self._insisting:
                self._give_way(lane, now)
            if lane.pool.cost > 1:
                lane.pool.passed = 0
                if lane.pool.reserved is not None:
                    self._let_go(lane.pool)
        return Started(run.run_id, lane, slots) if fresh else None

    def _take(self, run_id: str, slots: Slots, lane: Lane, attempt: int, sender: str, started_at: int) -> None:
        cost = lane.pool.cost
        self.running[run_id] = Flight(slots, attempt, sender, lane, lane.needs, cost, started_at)
        self.sending[sender] = self.sending.get(sender, 0) + 1
        slots.used += cost
        lane.running += 1

    # -- inside ------------------------------------------------------------------------------------------------------

    def _trim(self, lane: Lane) -> None:
        lane.heap = nsmallest(self.reach(lane), (run for run in lane.heap if run not in lane.gone))
        lane.gone.clear()
        lane.horizon = lane.heap[-1]
        lane.more = True

    def _wait(self, lane: Lane, since: int) -> None:
        """Let a lane stand in the ring that stood nowhere."""
        rotation = lane.rotation
        rotation.waiting += 1
        if rotation.waiting == 1:
            self._seq += 1
            rotation.begin(since, self._seq)
        self._enter(lane)

    def _leave(self, lane: Lane, now: int) -> None:
        """Let a lane stand nowhere that has nothing left in memory."""
        place, lane.place = lane.place, None
        lane.entry = None
        lane.rotation.waiting -= 1
        if place is not None:
            place.left(lane.rotation)
        if lane in self._insisting:
            self._give_way(lane, now)
        if lane.more:
            lane.reach = min(self.most_held, 2 * self.reach(lane))
            self.hungry[lane.id] = lane
