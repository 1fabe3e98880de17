"""Whose turn it is: keys take turns, priority and age weigh, and who needs much or two scarce things is not starved."""

import random
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.lines import PATIENCE
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, GroupDraw, RateDraw, StaticLimit, Strategy
from hurlbat_dispatcher.domain.runs import AGE_MS, rank
from hurlbat_dispatcher.domain.terms import RuleTerms, TaskTerms, Terms

TASKS = ("t", "u", "v")


class Stage:
    """A picture with some workers that serve all tasks, and lanes by what they draw on."""

    def __init__(
        self,
        workers: Mapping[str, int] | None = None,
        rules: Mapping[str, int] | None = None,
        limits: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.picture = Picture()
        self.now = 1_000_000
        self.made = 0
        workers = workers or {"w": 1}
        for name, slots in workers.items():
            self.picture.worker(name, slots).serving = True
        self.terms = Terms(
            {task: TaskTerms(tuple((name, 0) for name in workers)) for task in TASKS},
            {name: RuleTerms(most, Strategy.GROUP_ROUND_ROBIN) for name, most in (rules or {}).items()},
            {key: StaticLimit(key, most, duration) for key, (most, duration) in (limits or {}).items()},
        )
        self.picture.learn(self.terms, self.now)
        self._lanes: dict[tuple[str, Draws], Lane] = {}

    def wait(self, name: str, draws: Draws = PLAIN, *, task: str = "t", count: int = 1, priority: int = 2) -> Lane:
        """Let so many runs wait, whose ids begin with a name."""
        lane = self._lanes.get((task, draws))
        if lane is None:
            lane = self._lanes[task, draws] = self.picture.lane(len(self._lanes), task, draws)
        for _ in range(count):
            self.made += 1
            self.picture.add(lane, Waiting(rank(self.now, priority), f"{name}{self.made:05}", priority), self.now)
        return lane

    def admit(self) -> list[str]:
        """Return the names of those that start now."""
        self.picture.clock(self.now)
        started = [start.run_id for start in self.picture.admit(self.now)]
        while self.picture.unfinished:
            started += [start.run_id for start in self.picture.admit(self.now)]
        return started

    def one_by_one(self, count: int, step: int = 1) -> list[str]:
        """Return who starts, where each ends before the next."""
        order = []
        for _ in range(count):
            [run_id] = self.admit()
            order.append(run_id)
            self.picture.release(run_id, self.now)
            self.now += step
        return [run_id[:-5] for run_id in order]

    def others_before(self, names: set[str], feed: "dict[str, tuple[Draws, str]]", seed: int) -> int:
        """Return how many others start before all of these names have, with no end of them; attempts end by chance."""
        chance, others = random.Random(seed), 0
        for _ in range(400):
            for kind, (draws, task) in feed.items():
                self.wait(kind, draws, task=task, count=2)
            for run_id in self.admit():
                names = names - {run_id[:-5]}
                others += run_id[:-5] in feed
            if not names:
                return others
            if self.picture.running:
                self.picture.release(chance.choice(sorted(self.picture.running)), self.now)
            self.now += chance.randint(1, 20)
        raise AssertionError(f"{names} starve: {others} others have started")


def group(rule: str, value: str) -> Draws:
    """Return draws on one concurrency group."""
    return Draws((GroupDraw(rule, value),))


# -- turns -------------------------------------------------------------------------------------------------------------


def test_lanes_of_equal_priority_take_turns_though_all_began_to_wait_at_once() -> None:
    stage = Stage()
    for task in TASKS:
        stage.wait(task, task=task, count=4)
    assert stage.one_by_one(12, step=0) == ["t", "u", "v"] * 4


def test_a_key_with_many_runs_that_came_first_takes_no_more_turns_than_others() -> None:
    stage = Stage(rules={"r": 9})
    stage.wait("big", group("r", "big"), count=100)
    stage.one_by_one(3)
    for value in "abc":
        stage.wait(value, group("r", value), count=3)
    order = stage.one_by_one(12)
    assert Counter(order) == {"big": 3, "a": 3, "b": 3, "c": 3}
    assert all(order[n] != order[n + 1] for n in range(11))


def test_the_lanes_of_one_key_share_its_turns() -> None:
    stage = Stage(rules={"r": 9, "q": 9})
    for n in range(5):
        stage.wait("many", Draws((GroupDraw("r", "many"), GroupDraw("q", str(n)))), count=4)
    stage.wait("one", group("r", "one"), count=4)
    assert stage.one_by_one(8) == ["many", "one"] * 4


def test_a_key_that_was_full_for_long_does_not_catch_up() -> None:
    stage = Stage({"w": 2}, rules={"r": 1})
    stage.wait("full", group("r", "full"), count=50)
    stage.wait("free", group("r", "free"), count=50)
    [held, first] = stage.admit()
    assert (held[:-5], first[:-5]) == ("full", "free")
    for _ in range(20):  # one key holds its only place, the other goes on
        stage.picture.release(first, stage.now)
        stage.now += 1_000
        [first] = stage.admit()
        assert first.startswith("free")
    stage.picture.release(held, stage.now)
    stage.picture.release(first, stage.now)
    order = []
    for _ in range(6):
        order += [run_id[:-5] for run_id in stage.admit()]
        stage.now += 1
        for run_id in list(stage.picture.running):
            stage.picture.release(run_id, stage.now)
    assert order.count("full") == order.count("free") == 6


@settings(max_examples=40)
@given(
    keys=st.integers(2, 6),
    slots=st.integers(1, 5),
    runs=st.integers(1, 6),
    seed=st.integers(0, 1 << 16),
    step=st.integers(0, 30),
)
def test_a_key_that_can_start_does_so_within_as_many_starts_as_there_are_keys(
    keys: int, slots: int, runs: int, seed: int, step: int
) -> None:
    chance = random.Random(seed)
    stage = Stage({"w": slots}, rules={"r": 100})
    left = Counter({str(key): runs * chance.randint(1, 4) for key in range(keys)})
    for value, count in chance.sample(sorted(left.items()), len(left)):
        stage.wait(value, group("r", value), count=count)
    began = dict.fromkeys(left, (0, keys))
    starts = 0
    while +left:
        started = stage.admit()
        for run_id in started:
            starts += 1
            value = run_id[:-5]
            since, able = began[value]
            assert starts - since <= able, f"{value} waited for {starts - since} starts with {able} keys"
            left[value] -= 1
            began[value] = (starts, len(+left))
        stage.now += step
        for run_id in chance.sample(sorted(stage.picture.running), chance.randint(1, len(stage.picture.running))):
            stage.picture.release(run_id, stage.now)


# -- priority and age --------------------------------------------------------------------------------------------------


def test_a_lane_with_a_higher_priority_goes_first_until_the_others_have_aged() -> None:
    stage = Stage()
    stage.wait("low", priority=1)
    stage.wait("high", task="u", count=5)
    assert stage.one_by_one(6, AGE_MS // 3) == ["high"] * 4 + ["low", "high"]


def test_a_newcomer_with_a_higher_priority_goes_before_those_that_wait_long() -> None:
    stage = Stage()
    stage.wait("busy", task="v")
    [busy] = stage.admit()
    for name, task, priority in (("one", "t", 2), ("two", "u", 2), ("urgent", "u", 3)):
        stage.now += 10
        stage.wait(name, task=task, priority=priority)
    assert stage.admit() == []
    stage.picture.release(busy, stage.now)
    assert stage.one_by_one(3) == ["urgent", "one", "two"]


def test_a_newcomer_with_a_higher_priority_goes_before_the_others_of_a_full_group() -> None:
    stage = Stage({"w": 5}, rules={"r": 1, "q": 9})
    stage.wait("busy", group("r", "x"))
    [busy] = stage.admit()
    for n in range(3):
        stage.wait(f"low{n}-", Draws((GroupDraw("r", "x"), GroupDraw("q", str(n)))), priority=1)
        assert stage.admit() == []
    stage.wait("high", Draws((GroupDraw("r", "x"), GroupDraw("q", "2"))), priority=3)
    assert stage.admit() == []
    stage.picture.release(busy, stage.now)
    assert stage.one_by_one(4) == ["high", "low0-", "low1-", "low2-"]


def test_who_was_brought_forward_does_not_go_before_a_newcomer_with_a_higher_priority() -> None:
    """The worker is full, so one that came forward still waits when the other comes."""
    stage = Stage({"w": 2}, rules={"r": 1, "q": 9})
    lanes = [Draws((GroupDraw("r", "x"), GroupDraw("q", str(n)))) for n in range(3)]
    stage.wait("busy", group("r", "x"))
    [busy] = stage.admit()
    for n, draws in enumerate(lanes):
        stage.wait(f"low{n}-", draws, priority=1)
    assert stage.admit() == []
    stage.wait("long", task="u")
    [long] = stage.admit()
    stage.wait("next", task="v")
    stage.picture.release(busy, stage.now)
    assert stage.one_by_one(1) == ["next"]
    stage.wait("next", task="v")
    assert stage.admit() != []
    stage.wait("high", lanes[2], priority=3)
    stage.wait("mid", task="v", priority=2)
    stage.picture.release(long, stage.now)
    assert [run_id[:-5] for run_id in stage.admit()] == ["high"]


def test_priority_counts_across_tasks_that_need_different_slots_of_one_worker() -> None:
    stage = Stage({"w": 2})
    stage.wait("small", task="t", count=4, priority=1)
    stage.wait("large", Draws(cost=2), task="u", count=2, priority=3)
    order = []
    for _ in range(4):
        order += [run_id[:-5] for run_id in stage.admit()]
        stage.now += 1
        for run_id in list(stage.picture.running):
            stage.picture.release(run_id, stage.now)
    assert order == ["large", "large", "small", "small", "small", "small"]


# -- which worker ------------------------------------------------------------------------------------------------------


def test_the_least_loaded_worker_takes_the_next_run() -> None:
    stage = Stage({"small": 2, "large": 8})
    stage.wait("run", count=10)
    taken = [start.slots.worker for start in stage.picture.admit(stage.now)]
    assert (taken.count("small"), taken.count("large")) == (2, 8)
    assert taken[:5].count("large") == 4


def test_a_worker_that_is_liked_better_is_filled_first() -> None:
    stage = Stage({"a": 2, "b": 2})
    tasks = {**stage.terms.tasks, "t": TaskTerms((("a", 1), ("b", 5)))}
    stage.picture.learn(Terms(tasks), stage.now)
    stage.wait("run", count=4)
    assert [start.slots.worker for start in stage.picture.admit(stage.now)] == ["b", "b", "a", "a"]


# -- nobody starves ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_who_needs_many_slots_starts_within_a_bounded_number_of_starts_of_others(seed: int) -> None:
    stage = Stage({"w": 9})
    stage.wait("one", count=20)
    stage.admit()
    stage.wait("large", Draws(cost=5), task="u")
    assert stage.others_before({"large"}, {"one": (PLAIN, "t")}, seed) <= 20


@pytest.mark.parametrize("seed", range(8))
def test_who_needs_many_units_starts_within_a_bounded_number_of_starts_of_others(seed: int) -> None:
    stage = Stage({"w": 50}, limits={"k": (10, 500)})
    one = Draws((), (RateDraw("k", 1),))
    stage.wait("one", one, count=20)
    stage.admit()
    stage.wait("large", Draws((), (RateDraw("k", 5),)), task="u")
    assert stage.others_before({"large"}, {"one": (one, "t")}, seed) <= 60


@pytest.mark.parametrize("seed", range(8))
def test_who_needs_two_scarce_keys_starts_within_a_bounded_number_of_starts_of_others(seed: int) -> None:
    stage = Stage({"w": 50}, rules={"r": 2, "q": 2})
    a, b = group("r", "a"), group("q", "b")
    stage.wait("one", a, count=5)
    stage.wait("two", b, count=5, task="u")
    stage.admit()
    stage.wait("both", Draws((*a.groups, *b.groups)), task="v")
    assert stage.others_before({"both"}, {"one": (a, "t"), "two": (b, "u")}, seed) <= 60


@pytest.mark.parametrize("seed", range(4))
def test_two_that_need_the_same_two_keys_in_another_order_both_start(seed: int) -> None:
    stage = Stage({"w": 50}, rules={"r": 1, "q": 1})
    a, b = group("r", "a"), group("q", "b")
    stage.wait("one", a, count=5)
    stage.wait("two", b, count=5, task="u")
    stage.admit()
    feed = {"one": (a, "t"), "two": (b, "u")}
    stage.wait("first", Draws((*a.groups, *b.groups)), task="v")
    stage.wait("second", Draws((*b.groups, *a.groups)), task="v")
    assert stage.others_before({"first", "second"}, feed, seed) <= 60


@pytest.mark.parametrize("seed", range(4))
def test_who_needs_slots_and_a_key_starts_within_a_bounded_number_of_starts_of_others(seed: int) -> None:
    stage = Stage({"w": 9}, rules={"r": 1})
    held = group("r", "a")
    stage.wait("held", held, count=5)
    stage.wait("one", count=20, task="u")
    stage.admit()
    stage.wait("large", Draws(held.groups, cost=5), task="v")
    assert stage.others_before({"large"}, {"held": (held, "t"), "one": (PLAIN, "u")}, seed) <= 120


def test_what_was_reserved_is_free_again_when_nobody_wants_it_any_more() -> None:
    stage = Stage({"w": 9})
    stage.wait("one", count=200)
    large = stage.wait("large", Draws(cost=9), task="u")
    chance = random.Random(1)
    started = stage.admit()
    slots = stage.picture.slots["w"]
    while slots.reserved is None:
        stage.picture.release(started.pop(chance.randrange(len(started))), stage.now)
        stage.now += 1
        started += stage.admit()
        assert stage.made - len(started) < 300
    stage.picture.release(started.pop(), stage.now)
    assert stage.admit() == []
    stage.picture.drop(large, large.heap[0], stage.now)
    assert len(stage.admit()) == 1
    assert (stage.picture.slots["w"].reserved, slots.used) == (None, 9)


# -- nobody is forgotten -----------------------------------------------------------------------------------------------


def both(value: str) -> Draws:
    """Return draws on the group x that all share, and on one of its own."""
    return Draws((GroupDraw("r", "x"), GroupDraw("q", value)))


def test_when_who_came_forward_is_cancelled_the_next_one_comes() -> None:
    stage = Stage({"w": 9}, rules={"r": 1, "q": 9})
    stage.wait("held", both("0"))
    [held] = stage.admit()
    second = stage.wait("second", both("1"))
    stage.wait("third", both("2"))
    assert stage.admit() == []
    stage.picture.release(held, stage.now)
    stage.picture.drop(second, second.heap[0], stage.now)
    assert [run_id[:-5] for run_id in stage.admit()] == ["third"]


def test_who_comes_forward_in_another_pool_during_an_admission_is_looked_at_in_it() -> None:
    stage = Stage({"w": 9, "v": 9}, rules={"r": 1})
    tasks = {"t": TaskTerms((("w", 0),)), "u": TaskTerms((("v", 0),))}
    stage.picture.learn(Terms(tasks, stage.terms.rules), stage.now)
    one = stage.wait("held", group("r", "x"))
    stage.admit()
    stage.wait("one", group("r", "x"))
    stage.wait("two", group("r", "x"), task="u")
    assert stage.admit() == []
    for _ in range(PATIENCE):
        stage.picture._passed(one, stage.now)
    rules = {"r": RuleTerms(3, Strategy.GROUP_ROUND_ROBIN)}
    stage.picture.learn(Terms(tasks, rules), stage.now)
    assert len(stage.admit()) == 2


def test_who_insists_and_waits_for_another_budget_lets_no_alarm_ring_for_what_is_open() -> None:
    stage = Stage({"w": 9}, rules={"r": 1}, limits={"k": (5, 10_000)})
    rate = RateDraw("k", 1)
    stage.wait("held", Draws((GroupDraw("r", "x"),), (rate,)))
    [held] = stage.admit()
    lane = stage.wait("insists", Draws((GroupDraw("r", "x"),), (rate,)))
    assert stage.admit() == []
    for _ in range(PATIENCE):
        stage.picture._passed(lane, stage.now)
    stage.wait("other", Draws((), (rate,)))
    assert stage.admit() == []
    assert stage.picture.alarm() is None
    stage.picture.release(held, stage.now)
    assert [run_id[:-5] for run_id in stage.admit()] == ["insists", "other"]


def test_who_insisted_gives_way_when_it_has_started() -> None:
    stage = Stage({"w": 9}, rules={"r": 2, "q": 1})
    for n in range(2):
        stage.wait("held", both(f"held{n}"))
    held = stage.admit()
    lane = stage.wait("insists", both("1"), count=2)
    assert stage.admit() == []
    for _ in range(PATIENCE):
        stage.picture._passed(lane, stage.now)
    stage.wait("other", both("2"))
    for run_id in held:
        stage.picture.release(run_id, stage.now)
    assert [run_id[:-5] for run_id in stage.admit()] == ["insists", "other"]
    assert [budget.reserved for budget in stage.picture.groups.values() if budget.reserved] == []


def test_only_one_of_many_comes_forward_for_one_place() -> None:
    stage = Stage({"w": 9}, rules={"r": 1, "q": 9}, limits={"k": (1, 1_000)})
    lanes = [stage.wait("run", Draws((GroupDraw("q", str(n)),), (RateDraw("k", 1),))) for n in range(100)]
    assert len(stage.admit()) == 1
    stage.now += 1_000
    stage.picture.clock(stage.now)
    assert sum(lane.place is lane.pool.ring for lane in lanes) == 1
    assert len(stage.admit()) == 1
    assert max(lane.bounces for lane in lanes) <= 1


def test_what_started_while_a_rule_was_not_in_force_counts_when_it_is_again() -> None:
    stage = Stage({"w": 9}, rules={"r": 1})
    stage.picture.learn(Terms(stage.terms.tasks), stage.now)
    stage.wait("run", group("r", "x"))
    [run_id] = stage.admit()
    stage.picture.learn(stage.terms, stage.now)
    stage.wait("next", group("r", "x"))
    assert stage.admit() == []
    stage.picture.release(run_id, stage.now)
    assert len(stage.admit()) == 1
