"""The lines of keyed budgets: who waits there, who comes forward when there is room, and who has a right to it."""

from collections.abc import Iterable
from heapq import heappush
from typing import Final

from hurlbat_dispatcher.domain.budgets import Budget, Gate, LineKey, Need, Rate, size_of
from hurlbat_dispatcher.domain.lanes import Lane, Pool, Started
from hurlbat_dispatcher.domain.rotation import Ring
from hurlbat_dispatcher.domain.shapes import Shapes
from hurlbat_dispatcher.domain.slots import Slots

PATIENCE: Final = 8
"""How often a lane is held or passed over, or others take slots before it, until it reserves what it needs."""
SOON_MS: Final = 1_000
"""A lane whose rate limit opens later than this keeps nothing but that limit for itself: others would wait long.

Nor is anything kept for longer than this while no worker could take the lane's runs.
"""
MANY_LINES: Final = 16
"""Lines of a budget that are told apart by the very units; beyond, those of like size share one."""


class Lines(Shapes):
    """The part of the picture that holds lanes back, and brings them forward again."""

    def __init__(self) -> None:
        super().__init__()
        self._insisting: dict[Lane, int] = {}
        """Lanes that have reserved something, and since when (ms) no worker could take their runs; 0: one can."""
        self._to_alarm: dict[Rate, None] = {}
        """Rate limits that need to know when they open."""
        self._timers: list[tuple[int, int, Rate]] = []

    def gained(self, budget: Budget, now: int) -> None:
        """Let the next come forward at a budget that has gained room."""
        lane = budget.reserved
        if lane is None:
            self._nominate(budget, now)
        elif lane.place is not None and lane.place.line is not None:
            self._enter(lane)
        if isinstance(budget, Rate) and budget.lines:
            self._to_alarm[budget] = None

    def _short_of(self, lane: Lane, now: int) -> Need | None:
        """Return what holds the lane, if anything does."""
        for need in lane.needs:
            budget = need.budget
            if budget.reserved is not None and budget.reserved is not lane:
                return need
            if not budget.room(now, need.units, need.limit):
                return need
        return None

    def _park(self, lane: Lane, need: Need, now: int) -> None:
        """Let a lane wait for the budget that holds it."""
        lines = need.budget.lines
        key = LineKey(lane.pool, need.units, need.limit)
        line = lines.get(key)
        if line is None and len(lines) >= MANY_LINES:
            key = LineKey(lane.pool, size_of(need.units), 0)
            line = lines.get(key)
        if line is None:
            line = lines[key] = Ring(need)
        line.enter(lane)
        lane.pool.ring.left(lane.rotation)
        self._passed(lane, now)
        if isinstance(need.budget, Rate):
            self._to_alarm[need.budget] = None

    def _follow(self, lane: Lane, now: int) -> None:
        """Let those come forward that wait behind a lane which was just looked at, where there is room for them."""
        for budget, _, _ in lane.needs:
            if budget.lines:
                if budget.reserved is None:
                    self._nominate(budget, now, lane.pool)
                if isinstance(budget, Rate) and budget.lines:
                    self._to_alarm[budget] = None  # whoever filled it: one with a line always has an alarm

    def _nominate(self, budget: Budget, now: int, pool: Pool | None = None) -> None:
        """Bring the best lane of each line, or of those in one pool, back to the ring; more follow from there."""
        came = False
        held: list[Lane] = []
        for key in [key for key in budget.lines if pool is None or key.pool is pool]:
            line = budget.lines[key]
            first = line.first()
            if first is None:
                del budget.lines[key]
            elif _has_room(budget, first[2], now):
                came = True
                self._enter(first[2])
                if line.first() is None:
                    del budget.lines[key]
            else:
                held.append(first[2])
        if came:
            for lane in held:
                self._passed(lane, now)

    def _set_alarms(self, now: int) -> None:
        """See to it that rate limits with lines are looked at when there is room for one of those who wait."""
        for rate in self._to_alarm:
            firsts = [first[2] for line in rate.lines.values() if (first := line.first()) is not None]
            lanes = firsts if rate.reserved is None else [rate.reserved]
            needs = dict.fromkeys(need[1:] for lane in lanes for need in lane.needs if need.budget is rate)
            opens = (rate.opens_at(now, units, limit) for units, limit in needs)
            at = min((moment for moment in opens if moment is not None and moment > now), default=None)
            if at is not None and (not rate.timer or at < rate.timer):
                rate.timer = at
                self._seq += 1
                heappush(self._timers, (at, self._seq, rate))
        self._to_alarm.clear()

    # -- reservations of keyed budgets -------------------------------------------------------------------------------

    def _passed(self, lane: Lane, now: int) -> None:
        """Count that a lane had to wait where others came forward; too often is enough."""
        lane.bounces += 1
        if lane.bounces >= PATIENCE:
            self._insist(lane, now)

    def _insist(self, lane: Lane, now: int) -> None:
        """Reserve for a lane what it may reserve now, and nothing else."""
        claims = self._claims(lane, now)
        if claims:
            full = not any(slots.takes(lane.pool.cost, now) for slots, _ in lane.pool.workers)
            self._insisting[lane] = (self._insisting.get(lane) or now) if full else 0
        else:
            self._insisting.pop(lane, None)
            lane.bounces = 0
        for budget, _, _ in lane.needs:
            if budget in claims:
                budget.reserved = lane
            elif budget.reserved is lane:
                budget.reserved = None
                self.gained(budget, now)

    def _claims(self, lane: Lane, now: int) -> list[Budget]:
        """Return what a lane may reserve: all of its budgets or none, so that two never wait for each other.

        Where a rate limit opens late, nothing but that: with it the others of that limit wait, and nobody else.
        """
        pool = lane.pool
        able = [slots for slots, _ in pool.workers if _may_take(slots, pool.cost, now)]
        if lane.place is None or not able:
            return []
        since = self._insisting.get(lane) or now
        if now - since >= SOON_MS and not any(slots.takes(pool.cost, now) for slots in able):
            return []
        late: list[Budget] = []
        for budget, units, limit in lane.needs:
            if budget.reserved not in (None, lane) or (isinstance(budget, Gate) and budget.shut):
                return []
            if isinstance(budget, Rate) and not budget.room(now, units, limit):
                at = budget.opens_at(now, units, limit)
                if at is None or now < budget.paused_until:
                    return []
                if at > now + SOON_MS:
                    late.append(budget)
        return late[:1] if late else [need.budget for need in lane.needs if not isinstance(need.budget, Gate)]

    def _give_way(self, lane: Lane, now: int) -> None:
        """Give up what a lane has reserved."""
        self._insisting.pop(lane, None)
        lane.bounces = 0
        for budget in [budget for budget, _, _ in lane.needs if budget.reserved is lane]:
            budget.reserved = None
            self.gained(budget, now)

    # -- reservations of slots ---------------------------------------------------------------------------------------

    def _passed_over(self, pool: Pool, later: Iterable[Started], now: int) -> None:
        """Count the slots that others took before a pool that should have been next; too many are enough."""
        mine = {slots for slots, _ in pool.workers}
        pool.passed += sum(one.lane.pool.cost for one in later if one.slots in mine)
        if pool.reserved is not None and not _may_take(pool.reserved, pool.cost, now):
            self._let_go(pool)
        if pool.passed >= PATIENCE and pool.reserved is None:
            free = [
                (slots.window.slots - slots.used, -place, slots)
                for place, (slots, _) in enumerate(pool.workers)
                if slots.reserved is None and _may_take(slots, pool.cost, now)
            ]
            if free:
                pool.reserved = max(free, key=lambda one: one[:2])[2]
                pool.reserved.reserved = pool

    def _let_go(self, pool: Pool) -> None:
        slots, pool.reserved = pool.reserved, None
        pool.passed = 0
        if slots is not None and slots.reserved is pool:
            slots.reserved = None
            self.opened(slots)


def _may_take(slots: Slots, cost: int, now: int) -> bool:
    """Tell whether a worker takes runs of this cost now, or before long, when it has room."""
    return slots.serving and not slots.probing and slots.not_before <= now + SOON_MS and cost <= slots.window.slots


def _has_room(budget: Budget, lane: Lane, now: int) -> bool:
    """Tell whether a budget has room for the runs of a lane."""
    return any(budget.room(now, units, limit) for known, units, limit in lane.needs if known is budget)
