"""What the picture is made of: workers, pools, lanes and budgets, by the terms that are in force."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TypeVar

from hurlbat_dispatcher.domain.budgets import Budget, Gate, Group, Member, Need, Rate
from hurlbat_dispatcher.domain.lanes import Lane, Pool, PoolKey, settle
from hurlbat_dispatcher.domain.policies import Draws, RateDraw, Strategy
from hurlbat_dispatcher.domain.rotation import Rotation
from hurlbat_dispatcher.domain.slots import Slots
from hurlbat_dispatcher.domain.terms import RANKING, TaskTerms, Terms
from hurlbat_dispatcher.domain.workers import Window

K = TypeVar("K")
B = TypeVar("B", bound=Budget)
WANTED = 1_000_000
"""How well a sticky run likes its worker: better than by any labels."""


class Shapes:
    """The parts, and how they hang together."""

    def __init__(self) -> None:
        self.terms = Terms()
        self.slots: dict[str, Slots] = {}
        self.pools: dict[PoolKey, Pool] = {}
        self.lanes: dict[int, Lane] = {}
        self.groups: dict[tuple[str, str], Group] = {}
        self.rates: dict[tuple[str, int], Rate] = {}
        """Rate limits that are in use, by name and duration (ms)."""
        self.gates: dict[str, Gate] = {}
        self.members: dict[str, Member] = {}
        self.cold: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        """What a former server let through, of rate limits that were not met yet: (bucket, last start, units)."""
        self.read_at = 0
        """When that was read; what no longer counted then was not."""
        self.changed_rates: dict[Rate, None] = {}
        """Whose counts are to be stored."""
        self.outdated = False
        """Runs must be ranked that are not in memory: the picture is to be read anew."""
        self._active: dict[Pool, None] = {}
        self._spans: dict[str, int] = {}
        self._seq = 0

    # -- workers -----------------------------------------------------------------------------------------------------

    def worker(self, name: str, slots: int) -> Slots:
        """Return the worker's budget, made when first met, with its slots as they are now."""
        budget = self.slots.get(name)
        if budget is None:
            budget = self.slots[name] = Slots(name, Window(slots))
        elif budget.window.slots != slots:
            budget.window.resize(slots)
        return budget

    def opened(self, slots: Slots) -> None:
        """Look again at all lanes that could use this worker."""
        for pool in slots.pools:
            self._active[pool] = None

    # -- terms -------------------------------------------------------------------------------------------------------

    def learn(self, terms: Terms, now: int) -> None:
        """Take other terms: lanes move to where they wait now, and what has gained room is looked at."""
        before, self.terms = self.terms, terms
        for slots in self.slots.values():
            self.opened(slots)
        if before == terms:
            return
        for group in self.groups.values():
            self._rule(group)
        for rate in list(self.rates.values()):
            self._limit(rate)
        rules_changed = before.rules.keys() != terms.rules.keys() or any(
            before.rules[name].strategy != rule.strategy for name, rule in terms.rules.items()
        )
        durations_changed = any(
            key not in before.limits or before.limits[key].duration != limit.duration
            for key, limit in terms.limits.items()
        ) or any(key not in terms.limits for key in before.limits)
        torn = self._rehang() if before.tasks != terms.tasks else {}
        paused = {name for name, task in before.tasks.items() if task.paused}
        paused ^= {name for name, task in terms.tasks.items() if task.paused}
        for lane in list(self.lanes.values()):
            if rules_changed or durations_changed or lane.pool in torn or lane.task in paused:
                self._reshape(lane)
        for budget in (*self.groups.values(), *self.rates.values()):
            if budget.lines:
                self.gained(budget, now)

    def gained(self, budget: Budget, now: int) -> None:
        """Let the next come forward at a budget that has gained room."""
        raise NotImplementedError

    # -- lanes -------------------------------------------------------------------------------------------------------

    def lane(self, lane_id: int, task: str, draws: Draws) -> Lane:
        """Return the lane, made when first met."""
        lane = self.lanes.get(lane_id)
        if lane is None:
            pool = self._pool_for(task, draws)
            lane = self.lanes[lane_id] = Lane(lane_id, task, draws, pool, Rotation())
            lane.rotation = self._rotation_for(lane)
            self._refer(lane, self._needs_of(lane))
        return lane

    def _reshape(self, lane: Lane) -> None:
        """Let a lane wait for what it needs by the terms of now. Attempts in flight give back what they took."""
        pool, needs = self._pool_for(lane.task, lane.draws), self._needs_of(lane)
        rotation = self._rotation_for(lane, pool)
        if pool is lane.pool and needs == lane.needs and rotation is lane.rotation:
            return
        place = lane.place
        if place is not None:
            lane.place = None
            lane.rotation.waiting -= 1
            place.left(lane.rotation)
            rotation.waiting += 1
            if rotation.waiting == 1:
                self._seq += 1
                rotation.begin(lane.rotation.since, self._seq)
        for budget, _, _ in lane.needs:
            if budget.reserved is lane:
                budget.reserved = None
        lane.pool, lane.rotation = pool, rotation
        self._refer(lane, needs)
        if place is not None:
            self._enter(lane)

    def _refer(self, lane: Lane, needs: tuple[Need, ...]) -> None:
        for need in needs:
            need.budget.lanes += 1
        for need in lane.needs:
            need.budget.lanes -= 1
        lane.needs = needs
        groups = [need.budget for need in needs if isinstance(need.budget, Group)]
        lane.ranks = tuple(group for group in groups if group.strategy in RANKING)

    def _needs_of(self, lane: Lane) -> tuple[Need, ...]:
        needs: list[Need] = []
        if self.terms.tasks.get(lane.task, TaskTerms()).paused:
            gate = self.gates.get(lane.task)
            if gate is None:
                gate = self.gates[lane.task] = Gate(f"task:{lane.task}")
            needs.append(Need(gate))
        for rule, value in lane.draws.groups:
            if rule in self.terms.rules:
                needs.append(Need(self._group(rule, value)))
        needs.extend(Need(self._rate(draw), draw.units, draw.limit) for draw in lane.draws.rates)
        return tuple(needs)

    def _rotation_for(self, lane: Lane, pool: Pool | None = None) -> Rotation:
        name = f"task:{lane.task}"
        for rule, value in lane.draws.groups:
            known = self.terms.rules.get(rule)
            if known is not None and known.strategy is Strategy.GROUP_ROUND_ROBIN:
                name = f"{rule}={value}"
                break
        rotations = (pool or lane.pool).rotations
        found = rotations.get(name)
        if found is None:
            found = rotations[name] = Rotation()
        return found

    def _key_for(self, task: str, draws: Draws) -> PoolKey:
        workers = self.terms.tasks.get(task, TaskTerms()).workers
        if draws.worker is not None:
            if draws.only:
                workers = tuple(one for one in workers if one[0] == draws.worker)
            else:
                workers = tuple((name, score + WANTED * (name == draws.worker)) for name, score in workers)
        return tuple(one for one in workers if one[0] in self.slots), draws.cost

    def _pool_for(self, task: str, draws: Draws) -> Pool:
        key = self._key_for(task, draws)
        pool = self.pools.get(key)
        if pool is None:
            pool = self.pools[key] = Pool((), draws.cost)
            self._hang(pool, key)
        return pool

    def _rehang(self) -> dict[Pool, None]:
        """Give pools other workers where they stand; return those of which some lanes must move."""
        stay, torn = settle(self.lanes.values(), self._key_for)
        taken = set(stay.values())
        for key, pool in list(self.pools.items()):
            if pool in stay:
                if stay[pool] != key:
                    del self.pools[key]
            elif pool in torn or key in taken:
                self._drop_pool(key, pool)
        for pool, key in stay.items():
            if key not in self.pools:
                self.pools[key] = pool
                self._hang(pool, key)
            self._active[pool] = None
        return torn

    def _hang(self, pool: Pool, key: PoolKey) -> None:
        """Let these workers, and no others, be those of a pool."""
        for slots, _ in pool.workers:
            slots.pools.pop(pool, None)
        pool.workers = tuple((self.slots[name], score) for name, score in key[0])
        for slots, _ in pool.workers:
            slots.pools[pool] = None
        kept = pool.reserved
        if kept is not None and pool not in kept.pools:
            pool.reserved = kept.reserved = None
            pool.passed = 0
            self.opened(kept)

    def _enter(self, lane: Lane) -> None:
        """Put the lane into its pool's ring, from where the next look decides."""
        place, ring = lane.place, lane.pool.ring
        ring.enter(lane)
        if place is not None and place is not ring:
            place.left(lane.rotation)
        self._active[lane.pool] = None

    def _stir(self, lane: Lane) -> None:
        """Look again at a lane's pool."""
        self._active[lane.pool] = None

    # -- budgets -----------------------------------------------------------------------------------------------------

    def _group(self, rule: str, value: str) -> Group:
        group = self.groups.get((rule, value))
        if group is None:
            group = self.groups[rule, value] = Group(f"{rule}={value}", rule=rule, value=value)
            self._rule(group)
        return group

    def _rule(self, group: Group) -> None:
        """Let a group keep what its rule says now."""
        rule = self.terms.rules.get(group.rule)
        group.cap = None if rule is None else rule.max_runs
        if rule is not None and rule.strategy is not group.strategy:
            if rule.strategy in RANKING and (group.used or group.lines or group.lanes):
                self.outdated = True
            group.strategy = rule.strategy

    def _rate(self, draw: RateDraw) -> Rate:
        limit = self.terms.limits.get(draw.key) if draw.is_static else None
        span = draw.duration if not draw.is_static else 0 if limit is None else limit.duration
        rate = self.rates.get((draw.name, span))
        if rate is None:
            rate = self.rates[draw.name, span] = Rate(draw.name, span=span, forgotten=self.read_at - span)
            for bucket, last, units in self.cold.pop((draw.name, span), ()):
                rate.restore(bucket, last, units)
            self._limit(rate)
        if draw.is_static and self._spans.get(draw.name) != span:
            self._change_span(rate)
        return rate

    def _change_span(self, rate: Rate) -> None:
        """Let a static rate limit count, too, what was started while its key had another duration."""
        before = self._spans.get(rate.name)
        self._spans[rate.name] = rate.span
        if before is not None:
            known = self.rates.get((rate.name, before))
            if known is not None and known is not rate:
                rate.inherit([(mark.last, mark.units) for mark in known.marks], known.forgotten)
        else:  # a former server may have known others, which have the same starts; the longest remembers most of them
            for span in sorted((span for name, span in self.cold if name == rate.name), reverse=True):
                uses = self.cold[rate.name, span]
                rate.inherit([(last, units) for _, last, units in uses], self.read_at - span)
        if rate.marks:
            self.note_use(rate)

    def _limit(self, rate: Rate) -> None:
        """Let a rate limit keep what is said of it now."""
        kind, _, key = rate.name.partition(":")
        if kind == "static":
            limit = self.terms.limits.get(key)
            rate.known = limit is not None and limit.duration == rate.span
            rate.most = limit.most if limit is not None else None
        pause = self.terms.pauses.get(rate.name, 0)
        rate.pause(pause)

    def pause(self, name: str, until: int) -> None:
        """Pause a rate limit by its name until then (ms)."""
        self.terms = replace(self.terms, pauses={**self.terms.pauses, name: until})
        for (known, _), rate in self.rates.items():
            if known == name:
                rate.pause(until)

    def note_use(self, rate: Rate) -> None:
        """Have the counts of a rate limit stored."""
        self.changed_rates[rate] = None

    # -- runs that are ranked ----------------------------------------------------------------------------------------

    def join(self, lane: Lane, run_id: str, priority: int, joined_at: int, *, started: bool, running: bool) -> None:
        """Let a run live in the groups of its lane that rank their runs."""
        if lane.ranks:
            member = Member(run_id, priority, joined_at, started, running, lane.ranks)
            self.members[run_id] = member
            for group in lane.ranks:
                group.members[run_id] = member
                if group.ranking is not None:
                    group.ranking.forget(run_id)
            self._ranked(member)

    def began(self, run_id: str) -> None:
        """Know that a ranked run has started."""
        member = self.members.get(run_id)
        if member is not None:
            member.earlier = member.started
            member.started = member.running = True
            self._ranked(member)

    def backed_off(self, run_id: str, *, started: bool) -> None:
        """Know that a ranked run waits again, and whether a start of it counts."""
        member = self.members.get(run_id)
        if member is not None:
            member.earlier = member.earlier or started  # for good: late word of an attempt before takes it not back
            member.started, member.running = member.earlier, False
            self._ranked(member)

    def ended(self, run_id: str) -> None:
        """Know that a ranked run lives no longer."""
        member = self.members.pop(run_id, None)
        if member is not None:
            for group in member.groups:
                group.members.pop(run_id, None)
                if group.ranking is not None:
                    group.ranking.forget(run_id)

    @staticmethod
    def _ranked(member: Member) -> None:
        """Let the rankings know how a member is now."""
        for group in member.groups:
            if group.ranking is not None:
                group.ranking.note(member)

    # -- forgetting --------------------------------------------------------------------------------------------------

    def forget(self, workers: Iterable[str]) -> None:
        """Forget workers that nothing is in flight at, and pools that no lane is in."""
        for name in workers:
            if not self.slots[name].used:
                del self.slots[name]
        used = {id(lane.pool) for lane in self.lanes.values()}
        for key, pool in list(self.pools.items()):
            if id(pool) not in used and any(slots.worker not in self.slots for slots, _ in pool.workers):
                self._drop_pool(key, pool)

    def _drop_pool(self, key: PoolKey, pool: Pool) -> None:
        del self.pools[key]
        self._active.pop(pool, None)
        for slots, _ in pool.workers:
            slots.pools.pop(pool, None)
            if slots.reserved is pool:
                slots.reserved = None

    def tidy(self, now: int, wanted: Collection[int] = ()) -> None:
        """Forget lanes in which nothing waits or runs, and budgets and pools that nothing refers to.

        Lanes that are `wanted` stay: somebody is about to join them.
        """
        for lane in [one for one in self.lanes.values() if one.place is None and not one.more and not one.running]:
            if lane.id not in wanted:
                del self.lanes[lane.id]
                self._refer(lane, ())
        for lane in self.lanes.values():
            lane.reach //= 2
            if not lane.heap:
                lane.gone.clear()
        for rate in self.rates.values():
            rate.used(now)
        _drop_idle(self.groups)
        _drop_idle(self.rates)
        _drop_idle(self.gates)
        used = {id(lane.pool) for lane in self.lanes.values()}
        waiting = {id(lane.rotation) for lane in self.lanes.values()}
        for key, pool in list(self.pools.items()):
            if id(pool) not in used:
                self._drop_pool(key, pool)
            else:
                pool.rotations = {name: one for name, one in pool.rotations.items() if id(one) in waiting}


def _drop_idle(budgets: dict[K, B]) -> None:
    for key, budget in list(budgets.items()):
        for name in [name for name, line in budget.lines.items() if line.first() is None]:
            del budget.lines[name]
        if budget.idle:
            del budgets[key]
