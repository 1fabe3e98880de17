"""Lines of keyed budgets: what stands in them costs little, and reservations are given up where they help nobody."""

import pytest

from hurlbat_dispatcher.domain.budgets import Rate
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.lines import MANY_LINES, PATIENCE, SOON_MS
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, RateDraw, StaticLimit
from hurlbat_dispatcher.domain.runs import rank
from hurlbat_dispatcher.domain.terms import TaskTerms, Terms

NOW = 1_000_000


class Stage:
    """A picture, a clock, and runs by number."""

    def __init__(self, terms: Terms, **slots: int) -> None:
        self.picture, self.now, self.made = Picture(), NOW, 0
        for name, count in slots.items():
            worker = self.picture.worker(name, count)
            worker.serving = True
            worker.window.pin(count)
        self.picture.learn(terms, self.now)

    def add(self, lane: Lane, priority: int = 2) -> None:
        self.made += 1
        run = Waiting(rank(self.now, priority), f"{lane.task}{self.made:05}", priority)
        self.picture.add(lane, run, self.now)

    def turn(self, later: int = 0) -> list[str]:
        self.now += later
        self.picture.clock(self.now)
        return [one.run_id for one in self.picture.admit(self.now)]


def test_runs_that_need_as_many_different_units_cost_a_look_each(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = Terms({"t": TaskTerms((("w", 0),))}, {}, {"tokens": StaticLimit("tokens", 100_000, 60_000)})
    stage = Stage(terms, w=1000)
    asked = 0
    opens_at = Rate.opens_at

    def counted(rate: Rate, now: int, units: int, limit: int) -> int | None:
        nonlocal asked
        asked += 1
        return opens_at(rate, now, units, limit)

    monkeypatch.setattr(Rate, "opens_at", counted)
    for number in range(1_000):
        stage.add(stage.picture.lane(number, "t", Draws((), (RateDraw("tokens", 20_000 + number * 20),))))
    started = stage.turn()
    rate = stage.picture.rates["static:tokens", 60_000]
    assert 3 <= len(started) <= 5
    assert len(rate.lines) <= MANY_LINES + 2
    assert asked < 5_000
    for _ in range(20):
        started += stage.turn(60_000)
    assert len(started) > 60
    assert rate.spent <= 100_000


@pytest.mark.parametrize("away", ["full", "unreachable", "waits"])
def test_a_lane_keeps_nothing_from_others_while_no_worker_can_take_it(away: str) -> None:
    tasks = {"a": TaskTerms((("w1", 0),)), "b": TaskTerms((("w2", 0),)), "c": TaskTerms((("w1", 0),))}
    stage = Stage(Terms(tasks, {}, {"api": StaticLimit("api", 1, 1_000)}), w1=1, w2=10)
    picture, draws = stage.picture, Draws((), (RateDraw("api", 1),))
    mine, theirs, other = (
        picture.lane(number, task, of) for number, (task, of) in enumerate((("a", draws), ("b", draws), ("c", PLAIN)))
    )
    for _ in range(60):
        stage.add(theirs, 3)
    stage.turn()
    stage.add(mine, 1)
    for _ in range(3 * PATIENCE):
        stage.turn(500)
        if mine in picture._insisting:
            break
    assert picture.rates["static:api", 1_000].reserved is mine
    slots = picture.slots["w1"]
    if away == "full":
        stage.add(other, 9)
    elif away == "unreachable":
        slots.unreachable(stage.now)
        slots.probes.add("x")
        picture.shut(slots)
    else:
        slots.pushed_back(stage.now, 3_600_000)
        picture.shut(slots)
    stage.turn(0)
    alarm = picture.alarm()
    assert alarm is not None
    assert alarm <= stage.now + SOON_MS
    started = [run_id for _ in range(6) for run_id in stage.turn(500)]
    assert [run_id[0] for run_id in started] == ["b"] * len(started)
    assert len(started) >= 2


def test_a_clock_that_was_ahead_makes_no_two_counts_of_one_time() -> None:
    rate = Rate("static:k", span=6_400, most=9)
    for bucket in (10_000, 10_004):
        rate.restore(bucket, bucket * rate.width, 1)
    rate.take(10_000 * rate.width + 1, 1)
    assert [mark.bucket for mark in rate.marks] == [10_000, 10_004]
    assert rate.marks[-1].units == 2


def test_slots_are_reserved_only_where_they_can_be_had() -> None:
    tasks = {"big": TaskTerms((("away", 0), ("here", 0))), "small": TaskTerms((("here", 0),))}
    stage = Stage(Terms(tasks), away=9, here=9)
    away = stage.picture.slots["away"]
    away.unreachable(stage.now)
    away.probes.add("x")
    stage.picture.shut(away)
    big = stage.picture.lane(1, "big", Draws(cost=5))
    small = stage.picture.lane(2, "small", PLAIN)
    for _ in range(9):
        stage.add(small)
    assert len(stage.turn()) == 9
    stage.add(big)
    others = 0
    while others < 60:
        stage.add(small)
        stage.picture.release(next(iter(stage.picture.running)), stage.now)
        started = stage.turn(10)
        if any(run_id.startswith("big") for run_id in started):
            return
        others += len(started)
    pytest.fail("the run that takes five slots starves")
