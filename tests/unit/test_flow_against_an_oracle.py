"""The picture of what waits against a slow and obvious one, over random histories.

The oracle (`flow_truth`) keeps every run in lists and counts all of them anew; the picture holds only the heads of its
lanes, and what it dropped is read back from the oracle, as from a database.
"""

from dataclasses import replace
from typing import Any, Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hurlbat_dispatcher.domain.budgets import Budget
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Started, Waiting
from hurlbat_dispatcher.domain.policies import Draws, GroupDraw, RateDraw, StaticLimit, Strategy
from hurlbat_dispatcher.domain.slots import Slots
from hurlbat_dispatcher.domain.terms import RuleTerms, TaskTerms, Terms
from tests.unit.flow_truth import MINUTE, Job, Truth

HORIZON: Final = 3
WORKERS: Final = {"a": 2, "b": 3, "c": 9}
X, Y, ONE, TWO, CAP = (
    GroupDraw("r", "x"),
    GroupDraw("r", "y"),
    GroupDraw("q", "1"),
    GroupDraw("q", "2"),
    GroupDraw("cap", "z"),
)
LANES: Final[dict[int, tuple[str, Draws]]] = {
    1: ("one", Draws()),
    2: ("one", Draws(worker="b")),
    3: ("two", Draws((X,))),
    4: ("two", Draws((Y,))),
    5: ("two", Draws((X, ONE))),
    6: ("two", Draws((CAP,), worker="a", only=True)),
    7: ("three", Draws((ONE,), (RateDraw("k", 1),))),
    8: ("three", Draws((TWO,), (RateDraw("k", 2),))),
    9: ("three", Draws((), (RateDraw("k", 3),))),
    10: ("four", Draws(cost=5)),
    11: ("four", Draws((X,), cost=2)),
    12: ("five", Draws((), (RateDraw("d", 1, 3, 1_000),))),
    13: ("five", Draws((ONE,), (RateDraw("d", 2, 5, 1_000),))),
    14: ("five", Draws((CAP,), (RateDraw("k", 1), RateDraw("e", 1, 2, 640)))),
    15: ("none", Draws((X,))),
}
SERVED: Final = [(), ("a",), ("b", "c"), ("c",), ("a", "b", "c")]
RULES: Final = {
    "r": Strategy.GROUP_ROUND_ROBIN,
    "q": Strategy.GROUP_ROUND_ROBIN,
    "cap": Strategy.CANCEL_NEWEST,
}
FIRST: Final = Terms(
    {
        "one": TaskTerms((("a", 0), ("b", 0))),
        "two": TaskTerms((("a", 0), ("c", 1))),
        "three": TaskTerms((("b", 0), ("c", 0))),
        "four": TaskTerms((("c", 0),)),
        "five": TaskTerms((("a", 0), ("b", 1), ("c", 1))),
        "none": TaskTerms(),
    },
    {name: RuleTerms(2, strategy) for name, strategy in RULES.items()},
    {"k": StaticLimit("k", 4, 2_000)},
)


class Histories(RuleBasedStateMachine):
    """Random calls, each followed by what turns do: open what is due, admit, and read on where lanes are hungry."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000_000
        self.made = 0
        self.starts = 0
        self.truth = Truth(dict(LANES))
        self.probes: dict[str, set[int]] = {name: set() for name in WORKERS}
        self.picture = self._picture()
        self.turns = 0
        self.span = 2_000
        self.sound = True

    def _picture(self) -> Picture:
        picture = Picture(HORIZON)
        for name, slots in WORKERS.items():
            picture.worker(name, slots).serving = True
        return picture

    @initialize()
    def begin(self) -> None:
        self._learn(FIRST)

    # -- runs come and go --------------------------------------------------------------------------------------------

    @rule(
        lane=st.sampled_from(sorted(LANES)),
        count=st.integers(1, 8),
        priorities=st.lists(st.integers(1, 3), min_size=1, max_size=4),
        ago=st.sampled_from([0, 0, 0, 700, 90_000]),
    )
    def submit(self, lane: int, count: int, priorities: list[int], ago: int) -> None:
        for n in range(count):
            self.made += 1
            self._wait(lane, f"{self.made:06}", priorities[n % len(priorities)], self.now - ago)

    @precondition(lambda self: self.truth.waiting)
    @rule(data=st.data(), count=st.integers(1, 4))
    def cancel_waiting(self, data: Any, count: int) -> None:
        for _ in range(count):
            if self.truth.waiting:
                job = data.draw(st.sampled_from(self.truth.waiting))
                self.truth.waiting.remove(job)
                self.picture.drop(self._lane(job.lane), _waiting(job), self.now)

    @precondition(lambda self: self.truth.running)
    @rule(data=st.data())
    def cancel_the_next_after_an_end(self, data: Any) -> None:
        """Both in one turn, so that who came forward is gone before the admission."""
        self._release(data.draw(st.sampled_from(self.truth.running)))
        lanes = [lane for lane in self.picture.lanes.values() if lane.place is lane.pool.ring and lane.heap]
        if lanes:
            lane = data.draw(st.sampled_from(sorted(lanes, key=lambda lane: lane.id)))
            for job in self.truth.in_lane(lane.id):
                self.truth.waiting.remove(job)
                self.picture.drop(lane, _waiting(job), self.now)

    @precondition(lambda self: self.truth.running)
    @rule(data=st.data(), count=st.integers(1, 5), unsent=st.sampled_from([False, False, False, True]))
    def end(self, data: Any, count: int, unsent: bool) -> None:
        for _ in range(count):
            if self.truth.running:
                self._release(data.draw(st.sampled_from(self.truth.running)), unsent=unsent)

    @precondition(lambda self: self.truth.running)
    @rule(data=st.data(), later=st.sampled_from([0, 0, 300, 2_500]))
    def retry(self, data: Any, later: int) -> None:
        job = data.draw(st.sampled_from(self.truth.running))
        self._release(job)
        again = Job(job.id, job.lane, self.now + later - MINUTE * job.priority, job.priority, self.now + later)
        self.truth.pending.append(again)

    # -- the terms change --------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(sorted(RULES)), most=st.sampled_from([None, 1, 2, 3, 5]))
    def change_a_rule(self, name: str, most: int | None) -> None:
        rules = {**self.truth.terms.rules}
        rules.pop(name, None)
        if most is not None:
            rules[name] = RuleTerms(most, RULES[name])
        self._learn(replace(self.truth.terms, rules=rules))

    @rule(most=st.sampled_from([None, 0, 1, 3, 4, 8]), duration=st.sampled_from([2_000, 2_000, 2_000, 500]))
    def change_a_limit(self, most: int | None, duration: int) -> None:
        limits = {} if most is None else {"k": StaticLimit("k", most, duration)}
        known = self.truth.terms.limits.get("k")
        if limits and self.span != duration:
            self.truth.respan("static:k", self.span, duration, self.now, sure=known is not None)
            self.span = duration
        self._learn(replace(self.truth.terms, limits=limits))

    @rule(name=st.sampled_from(["static:k", "dynamic:d"]), wait=st.sampled_from([None, 0, 0, 400, 3_000]))
    def pause_a_key(self, name: str, wait: int | None) -> None:
        pauses = {**self.truth.terms.pauses, name: None if wait is None else self.now + wait}
        self._learn(replace(self.truth.terms, pauses=pauses))

    @rule(task=st.sampled_from(["two", "three", "five"]), paused=st.booleans())
    def pause_a_task(self, task: str, paused: bool) -> None:
        known = self.truth.terms.tasks
        self._learn(replace(self.truth.terms, tasks={**known, task: known[task]._replace(paused=paused)}))

    @rule(
        task=st.sampled_from(["one", "two", "three", "four"]), workers=st.sampled_from(SERVED), liked=st.integers(0, 3)
    )
    def serve_elsewhere(self, task: str, workers: tuple[str, ...], liked: int) -> None:
        known = self.truth.terms.tasks
        scored = tuple((name, int(n == liked)) for n, name in enumerate(workers))
        self._learn(replace(self.truth.terms, tasks={**known, task: known[task]._replace(workers=scored)}))

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(worker=st.sampled_from(sorted(WORKERS)), serving=st.sampled_from([True, True, False]))
    def pause_a_worker(self, worker: str, serving: bool) -> None:
        slots = self.picture.slots[worker]
        slots.serving = serving
        self.picture.opened(slots)

    @rule(worker=st.sampled_from(sorted(WORKERS)), slots=st.integers(1, 9))
    def change_slots(self, worker: str, slots: int) -> None:
        self.picture.opened(self.picture.worker(worker, slots))

    @rule(worker=st.sampled_from(sorted(WORKERS)), wait=st.integers(1, 5_000))
    def push_back(self, worker: str, wait: int) -> None:
        slots = self.picture.slots[worker]
        slots.pushed_back(self.now, wait)
        self.picture.shut(slots)

    @rule(worker=st.sampled_from(sorted(WORKERS)))
    def lose_sight(self, worker: str) -> None:
        slots = self.picture.slots[worker]
        slots.unreachable(self.now)
        self.picture.shut(slots)

    @rule(worker=st.sampled_from(sorted(WORKERS)), count=st.integers(1, 3))
    def answer(self, worker: str, count: int) -> None:
        slots = self.picture.slots[worker]
        if slots.probing:
            self.probes[worker].clear()
        slots.answered(count, self.now)
        self.picture.opened(slots)

    # -- time --------------------------------------------------------------------------------------------------------

    @rule(passed=st.sampled_from([1, 10, 100, 700, 2_000, 70_000]))
    def wait(self, passed: int) -> None:
        self.now += passed

    @rule()
    def wake_by_alarm(self) -> None:
        alarm = self.picture.alarm()
        if alarm is not None:
            self.now = max(self.now, alarm)

    @rule()
    def tidy(self) -> None:
        self.picture.tidy(self.now)

    @rule()
    def read_anew(self) -> None:
        """Rebuild the picture from the rows, as after a turn that failed."""
        old, self.picture = self.picture, self._picture()
        self.picture.read_at = self.now
        for name, slots in old.slots.items():
            fresh = self.picture.worker(name, slots.window.slots)
            fresh.serving, fresh.window, fresh.probing = slots.serving, slots.window, slots.probing
            fresh.not_before, fresh.failures, fresh.probes = slots.not_before, slots.failures, slots.probes
            self.picture.shut(fresh)
        self.picture.learn(self.truth.terms, self.now)
        self.picture.cold = dict(old.cold)
        for (name, span), rate in old.rates.items():
            marks = [(mark.bucket, mark.last, mark.units) for mark in rate.marks if mark.last + span > self.now]
            if marks:
                self.picture.cold[name, span] = marks
        for job in self.truth.running:
            slots = self.picture.slots[job.worker or ""]
            self.picture.occupy(job.id, slots, self._lane(job.lane), 1, "me", job.started_at)
        for lane_id in {job.lane: None for job in self.truth.waiting}:
            self._read(self._lane(lane_id), None)
        self.truth.unsure()

    # -- what must be so ---------------------------------------------------------------------------------------------

    @invariant()
    def everything_that_can_start_does(self) -> None:
        self.turns += 1
        self.sound = False
        self._settle(most=1 if self.turns % 2 else 1 << 30)
        for job in self.truth.heads():
            assert not self._able(job.lane), f"{job} could start"
        alarm = self.picture.alarm()
        assert alarm is None or alarm > self.now, "it would be woken at once, for ever"
        self.sound = True

    @invariant()
    def the_counts_are_true(self) -> None:
        picture, truth = self.picture, self.truth
        assert {run_id: one.slots.worker for run_id, one in picture.running.items()} == {
            job.id: job.worker for job in truth.running
        }
        assert sum(picture.sending.values()) == len(truth.running)
        for name, slots in picture.slots.items():
            assert slots.used == truth.at_worker(name) <= max(WORKERS.values())
        for (rule_id, value), group in picture.groups.items():
            if rule_id in truth.terms.rules:
                assert group.used == truth.in_group(rule_id, value), group.name
        for _, draws in LANES.values():
            for draw in draws.rates:
                rate = picture.rates.get((draw.name, truth.span(draw) or 0))
                if rate is not None and rate.known:
                    least, most = (truth.started_within(draw, self.now, blurred=blurred) for blurred in (False, True))
                    assert least <= rate.counted(self.now) <= most, rate.name

    @invariant()
    def every_lane_stands_in_one_place(self) -> None:
        for lane in self.picture.lanes.values():
            if lane.head() is None:
                assert lane.place is None
                continue
            assert lane.place is not None
            assert lane in list(lane.place)
            lines = [line for need in lane.needs for line in need.budget.lines.values()]
            assert [place is lane.place for place in (lane.pool.ring, *lines)].count(True) == 1
            assert len(lane.heap) <= 2 * HORIZON + 8

    @invariant()
    def who_reserves_waits(self) -> None:
        for slots in self.picture.slots.values():
            if slots.reserved is not None:
                assert slots.reserved.reserved is slots
                assert slots.reserved.ring.first() is not None
        for budget in self._budgets():
            if budget.reserved is not None:
                assert budget.reserved.place is not None
                assert budget in [need.budget for need in budget.reserved.needs]

    def teardown(self) -> None:
        """Let everything be served and end: each run starts, and nothing is in use or reserved."""
        if not self.sound or not self.truth.terms.tasks:
            return  # what was found is told, and not what comes of it
        self.now += 1_000_000
        tasks = {name: TaskTerms(terms.workers or (("c", 0),)) for name, terms in FIRST.tasks.items()}
        self._learn(replace(self.truth.terms, tasks=tasks, limits={"k": StaticLimit("k", 3, self.span)}, pauses={}))
        for name, slots in self.picture.slots.items():
            slots.serving = True
            slots.not_before = 0
            slots.back()
            self.probes[name].clear()
            self.picture.worker(name, 9)
            slots.window.pin(9)
            self.picture.opened(slots)
        rounds = 0
        while self.truth.waiting or self.truth.running or self.truth.pending:
            rounds += 1
            assert rounds < 50 + 2 * self.made, "somebody starves"
            self._settle(1 << 30)
            self.now += 1_000
            for job in list(self.truth.running):
                self._release(job)
        self._settle(1 << 30)
        self.now += 1_000_000
        self.picture.tidy(self.now)
        assert [slots.used for slots in self.picture.slots.values()] == [0, 0, 0]
        assert [slots.reserved for slots in self.picture.slots.values()] == [None] * 3
        assert (self.picture.running, self.picture.sending, self.picture.lanes) == ({}, {}, {})
        assert (self.picture.groups, self.picture.gates, list(self.picture.hungry)) == ({}, {}, [])
        assert [rate.name for rate in self.picture.rates.values()] == []

    # -- a turn ------------------------------------------------------------------------------------------------------

    def _settle(self, most: int) -> None:
        """Do as many turns as the picture asks for."""
        for job in [job for job in self.truth.pending if job.due <= self.now]:
            self.truth.pending.remove(job)
            self._wait(job.lane, job.id, job.priority, job.due)
        for _ in range(2_000):
            if self.picture.outdated:
                self.read_anew()
            self.picture.clock(self.now)
            before = self._reserved()
            able = [] if most > 1 else [job for job in self.truth.heads() if self._able(job.lane)]
            started = self.picture.admit(self.now, most)
            assert len(started) <= most
            for start in started:
                self._note(start, able, before)
            hungry = list(self.picture.hungry.values())
            for lane in hungry:
                self._read(lane, lane.horizon)
            if not (hungry or self.picture.unfinished):
                return
        raise AssertionError("it never comes to rest")

    def _note(self, start: Started, able: list[Job], before: dict[Budget | Slots, object]) -> None:
        """Check one start, and take it over into what is true."""
        truth, lane = self.truth, start.lane
        _, draws = LANES[lane.id]
        first = truth.in_lane(lane.id)[0]
        assert start.run_id == first.id, "the first of its lane starts first"
        why = truth.why_not(lane.id, self.now, surely=False)
        assert why is None, why
        eligible = dict(self._eligible(lane.id))
        assert start.slots.worker in eligible
        assert self._fits(start.slots.worker, draws.cost), "no start beyond a worker's slots"
        if able:
            free = [name for name in eligible if self._fits(name, draws.cost) and self._mine(name, lane, before)]
            assert eligible[start.slots.worker] == max(eligible[name] for name in free), "the best liked takes it"
            self._check_turns(first, [job for job in able if self._still(job.lane, before)])
        truth.waiting.remove(first)
        truth.running.append(first)
        self.starts += 1
        first.worker, first.started_at, first.start = start.slots.worker, self.now, self.starts
        for draw in draws.rates:
            truth.use(draw, first, self.now)
        truth.begin(lane.id, self.now)
        if start.slots.probing:
            self.probes[start.slots.worker].add(first.start)

    def _check_turns(self, first: Job, able: list[Job]) -> None:
        """Nobody who could start as well has waited for longer, by age and priority."""
        mine = self.truth.turn(first.lane).low - MINUTE * first.priority
        for job in able:
            turn = self.truth.turn(job.lane)
            theirs = turn.high - MINUTE * self._least(job.lane)
            assert mine <= theirs or turn is self.truth.turn(first.lane), f"{first} went before {job}"

    def _least(self, lane: int) -> int:
        turn = self.truth.turn(lane)
        return min(job.priority for job in self.truth.heads() if self.truth.turn(job.lane) is turn)

    def _able(self, lane: int) -> bool:
        if self.truth.why_not(lane, self.now, surely=True) is not None:
            return False
        known = self._lane(lane)
        if any(need.budget.reserved not in (None, known) for need in known.needs):
            return False
        cost = LANES[lane][1].cost
        return any(self._fits(name, cost) and self._mine(name, known, {}) for name, _ in self._eligible(lane))

    def _still(self, lane: int, before: dict[Budget | Slots, object]) -> bool:
        """Tell whether nothing of what a lane needs was reserved meanwhile."""
        known = self._lane(lane)
        places: list[Budget | Slots] = [need.budget for need in known.needs]
        places += [slots for slots, _ in known.pool.workers]
        reserved = self._reserved()
        return all(reserved.get(place) == before.get(place) for place in places)

    def _mine(self, worker: str, lane: Lane, before: dict[Budget | Slots, object]) -> bool:
        slots = self.picture.slots[worker]
        return before.get(slots, slots.reserved) in (None, lane.pool) and slots.reserved in (None, lane.pool)

    def _fits(self, worker: str, cost: int) -> bool:
        """Say by the rules' own words whether so many slots may be taken of a worker."""
        slots, used = self.picture.slots[worker], self.truth.at_worker(worker)
        if not slots.serving or self.now < slots.not_before:
            return False
        if slots.probing:
            probed = any(job.start in self.probes[worker] for job in self.truth.running)
            return not probed and used + cost <= slots.window.slots
        alone = cost > 1 and used == 0 and cost <= slots.window.slots
        return alone or used + cost <= slots.window.size

    def _eligible(self, lane: int) -> list[tuple[str, int]]:
        task, draws = LANES[lane]
        workers = self.truth.terms.tasks[task].workers
        if draws.only:
            return [one for one in workers if one[0] == draws.worker]
        return [(name, score + 1_000 * (name == draws.worker)) for name, score in workers]

    # -- small things ------------------------------------------------------------------------------------------------

    def _learn(self, terms: Terms) -> None:
        self.truth.terms = terms
        self.truth.unsure()
        self.picture.learn(terms, self.now)

    def _lane(self, lane: int) -> Lane:
        return self.picture.lane(lane, *LANES[lane])

    def _wait(self, lane: int, run_id: str, priority: int, due: int) -> None:
        job = Job(run_id, lane, due - MINUTE * priority, priority, due)
        if self.truth.waits_for_first(lane):
            self.truth.begin(lane, self.now)
        self.truth.waiting.append(job)
        self.picture.add(self._lane(lane), _waiting(job), self.now)

    def _release(self, job: Job, *, unsent: bool = False) -> None:
        self.truth.running.remove(job)
        if unsent:
            self.truth.unuse(job)
        slots = self.picture.release(job.id, self.now, unsent=unsent)
        assert slots is not None
        assert slots.worker == job.worker
        assert self.picture.release(job.id, self.now) is None, "once"

    def _read(self, lane: Lane, after: Waiting | None) -> None:
        jobs = [job for job in self.truth.in_lane(lane.id) if after is None or job.order > after[:2]][:HORIZON]
        self.picture.refill(lane, [_waiting(job) for job in jobs], more=len(jobs) == HORIZON)

    def _budgets(self) -> list[Budget]:
        return [*self.picture.groups.values(), *self.picture.rates.values()]

    def _reserved(self) -> dict[Budget | Slots, object]:
        found: dict[Budget | Slots, object] = {budget: budget.reserved for budget in self._budgets()}
        found.update((slots, slots.reserved) for slots in self.picture.slots.values())
        return found


def _waiting(job: Job) -> Waiting:
    return Waiting(job.rank, job.id, job.priority)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40)
