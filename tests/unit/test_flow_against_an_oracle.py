"""The picture of what waits against a slow and obvious one, over random histories.

The oracle keeps every run in lists and looks at all of them; the picture holds only the heads of its lanes, and what it
dropped is read back from a database of the oracle's.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hurlbat_dispatcher.domain.flow import Lane, Picture, Slots, Started, Waiting
from hurlbat_dispatcher.domain.runs import AGE_MS, rank

WORKERS = {"a": 2, "b": 3, "c": 17}
LANES: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("one", ("a",)),
    2: ("two", ("a", "b")),
    3: ("three", ("a", "b")),
    4: ("four", ("b",)),
    5: ("five", ("c",)),
    6: ("none", ()),
}
HORIZON = 3


@dataclass
class Truth:
    """What is so: every waiting run by lane, every running one with its worker."""

    waiting: dict[int, list[Waiting]] = field(default_factory=lambda: {lane: [] for lane in LANES})
    running: dict[str, str] = field(default_factory=dict)

    def read(self, lane: Lane, after: Waiting | None) -> list[Waiting]:
        """Read the next heads of a lane, as the database does."""
        rows = sorted(run for run in self.waiting[lane.id] if after is None or run[:2] > after[:2])
        return rows[:HORIZON]


class Histories(RuleBasedStateMachine):
    """Random calls, each followed by what a turn does: admit, and read on where lanes are hungry."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000_000
        self.made = 0
        self.truth = Truth()
        self.probes: dict[str, set[str]] = {name: set() for name in WORKERS}
        self.picture = Picture(HORIZON)
        self.lane_workers = {lane: workers for lane, (_, workers) in LANES.items()}
        for name, slots in WORKERS.items():
            self.picture.worker(name, slots).serving = True
        self.lanes = {lane: self.picture.lane(lane, task, workers) for lane, (task, workers) in LANES.items()}

    # -- what happens --------------------------------------------------------------------------------------------------

    @rule(
        lane=st.sampled_from(sorted(LANES)),
        count=st.integers(1, 12),
        priorities=st.lists(st.integers(-2, 3), min_size=1),
    )
    def add(self, lane: int, count: int, priorities: list[int]) -> None:
        for n in range(count):
            self.made += 1
            priority = priorities[n % len(priorities)]
            run = Waiting(rank(self.now, priority), f"{self.made:06}", priority)
            self.truth.waiting[lane].append(run)
            self.picture.add(self.lanes[lane], run, self.now)

    @rule(lane=st.sampled_from(sorted(LANES)), ago=st.integers(0, 10_000))
    def add_one_that_was_due_before(self, lane: int, ago: int) -> None:
        self.made += 1
        run = Waiting(rank(self.now - ago, 2), f"{self.made:06}", 2)
        self.truth.waiting[lane].append(run)
        self.picture.add(self.lanes[lane], run, self.now)

    @rule(data=st.data())
    def drop(self, data: Any) -> None:
        lane = data.draw(st.sampled_from(sorted(LANES)))
        if self.truth.waiting[lane]:
            run = data.draw(st.sampled_from(self.truth.waiting[lane]))
            self.truth.waiting[lane].remove(run)
            self.picture.drop(self.lanes[lane], run)

    @precondition(lambda self: self.truth.running)
    @rule(data=st.data())
    def release(self, data: Any) -> None:
        run_id = data.draw(st.sampled_from(sorted(self.truth.running)))
        worker = self.truth.running.pop(run_id)
        slots = self.picture.release(run_id)
        assert slots is not None
        assert slots.worker == worker
        assert self.picture.release(run_id) is None  # once

    @rule(worker=st.sampled_from(sorted(WORKERS)), serving=st.booleans())
    def pause(self, worker: str, serving: bool) -> None:
        slots = self.picture.slots[worker]
        slots.serving = serving
        self.picture.opened(slots)

    @rule(worker=st.sampled_from(sorted(WORKERS)), slots=st.integers(1, 20))
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
        slots.answered(count)
        self.picture.opened(slots)

    @rule(
        lane=st.sampled_from([1, 2, 3, 4]), workers=st.sampled_from([(), ("a",), ("b",), ("a", "b"), ("a", "b", "c")])
    )
    def serve_elsewhere(self, lane: int, workers: tuple[str, ...]) -> None:
        self.lane_workers[lane] = workers
        self.picture.lane(lane, LANES[lane][0], workers)

    @rule(passed=st.integers(1, 200_000))
    def wait(self, passed: int) -> None:
        self.now += passed

    @rule()
    def wake_by_alarm(self) -> None:
        alarm = self.picture.alarm()
        if alarm is not None:
            self.now = max(self.now, alarm)

    @rule(most=st.integers(1, 3))
    def admit_a_few(self, most: int) -> None:
        self._turn(most)

    @rule()
    def read_anew(self) -> None:
        """Rebuild the picture from the rows, as after a turn that failed."""
        old, self.picture = self.picture, Picture(HORIZON)
        for name, slots in old.slots.items():
            fresh = self.picture.worker(name, slots.window.slots)
            fresh.serving, fresh.window, fresh.probing = slots.serving, slots.window, slots.probing
            fresh.not_before, fresh.failures, fresh.probes = slots.not_before, slots.failures, slots.probes
            self.picture.shut(fresh)
        for lane, (task, _) in LANES.items():
            self.lanes[lane] = self.picture.lane(lane, task, self.lane_workers[lane])
        for run_id, worker in self.truth.running.items():
            self.picture.occupy(run_id, self.picture.slots[worker], 1, "me")
        for known in self.lanes.values():
            rows = self.truth.read(known, None)
            self.picture.refill(known, rows, more=len(rows) == HORIZON)

    # -- what must be so -----------------------------------------------------------------------------------------------

    @invariant()
    def everything_that_can_start_does(self) -> None:
        while self._turn(1 << 30):
            pass
        for lane, runs in self.truth.waiting.items():
            if runs:
                full = [self.picture.slots[name].room(self.now) <= 0 for name in self.lane_workers[lane]]
                assert all(full), f"lane {lane} waits, and a worker of it has room"

    @invariant()
    def the_counts_are_true(self) -> None:
        for name, slots in self.picture.slots.items():
            assert slots.used == sum(worker == name for worker in self.truth.running.values())
            assert 1 <= slots.window.size <= slots.window.slots
        assert {run_id: one.slots.worker for run_id, one in self.picture.running.items()} == self.truth.running

    @invariant()
    def memory_is_bounded(self) -> None:
        for lane in self.lanes.values():
            assert len(lane.heap) <= 2 * HORIZON + HORIZON

    def teardown(self) -> None:
        """Let every worker serve and everything end: each run starts in its turn, and nothing is left."""
        self.now += 1_000_000
        for slots in self.picture.slots.values():
            slots.serving = True
            slots.back()
            self.picture.opened(slots)
        while self._turn(1 << 30) or self.truth.running:
            for run_id in list(self.truth.running):
                del self.truth.running[run_id]
                self.picture.release(run_id)
        assert [lane for lane, runs in self.truth.waiting.items() if runs and self.lane_workers[lane]] == []
        assert [slots.used for slots in self.picture.slots.values()] == [0, 0, 0]

    # -- a turn --------------------------------------------------------------------------------------------------------

    def _turn(self, most: int) -> list[Started]:
        self.picture.clock(self.now)
        caps = {name: slots.used + max(0, self._room(slots)) for name, slots in self.picture.slots.items()}
        started = self.picture.admit(self.now, most)
        assert len(started) <= most
        for start in started:
            waiting = self.truth.waiting[start.lane.id]
            run = min(waiting)
            assert start.run_id == run.run_id, "the lane's best run starts first"
            assert start.slots.worker in self.lane_workers[start.lane.id]
            waiting.remove(run)
            self.truth.running[start.run_id] = start.slots.worker
            if start.slots.probing:
                self.probes[start.slots.worker].add(start.run_id)
        for name, slots in self.picture.slots.items():
            assert slots.used <= caps[name], "no start beyond the cap"
        self._read_on()
        return started

    def _room(self, slots: Slots) -> int:
        """Say by the rules' own words how many may start at a worker."""
        if not slots.serving or self.now < slots.not_before:
            return 0
        if slots.probing:
            return int(
                not any(run in self.probes[slots.worker] for run in self.truth.running)
                and slots.used < slots.window.slots
            )
        return slots.window.size - slots.used

    def _read_on(self) -> None:
        for lane in list(self.picture.hungry.values()):
            rows = self.truth.read(lane, lane.horizon)
            self.picture.refill(lane, rows, more=len(rows) == HORIZON)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=150, stateful_step_count=40)


def test_lanes_of_equal_priority_take_turns() -> None:
    picture = Picture()
    slots = picture.worker("w", 1)
    slots.serving = True
    lanes = [picture.lane(n, str(n), ("w",)) for n in range(3)]
    for n, lane in enumerate(lanes):
        for k in range(4):
            picture.add(lane, Waiting(rank(k, 2), f"{n}{k}", 2), 100)
    order = _one_at_a_time(picture, 12)
    assert order == [f"{n}{k}" for k in range(4) for n in range(3)]


def test_a_lane_with_a_higher_priority_goes_first_until_the_others_have_aged() -> None:
    picture = Picture()
    picture.worker("w", 1).serving = True
    low, high = picture.lane(1, "low", ("w",)), picture.lane(2, "high", ("w",))
    picture.add(low, Waiting(rank(0, 1), "low", 1), 0)
    for k in range(5):
        picture.add(high, Waiting(rank(0, 2), f"high{k}", 2), 0)
    order, now = [], 0
    for _ in range(6):
        [start] = picture.admit(now)
        order.append(start.run_id)
        picture.release(start.run_id)
        now += AGE_MS // 3
    assert order == ["high0", "high1", "high2", "high3", "low", "high4"]


def test_a_newcomer_with_a_higher_priority_is_seen_behind_a_lane_that_waits_long() -> None:
    picture = Picture()
    slots = picture.worker("w", 1)
    slots.serving = True
    one, two = picture.lane(1, "one", ("w",)), picture.lane(2, "two", ("w",))
    picture.occupy("busy", slots, 1, "me")
    picture.add(one, Waiting(rank(0, 2), "one", 2), 0)
    picture.add(two, Waiting(rank(10, 2), "two", 2), 10)
    picture.add(two, Waiting(rank(20, 3), "urgent", 3), 20)
    assert picture.admit(30) == []
    picture.release("busy")
    assert _one_at_a_time(picture, 3, now=30) == ["urgent", "one", "two"]


def test_the_least_loaded_worker_takes_the_next_run() -> None:
    picture = Picture()
    for name, slots in (("small", 2), ("large", 8)):
        picture.worker(name, slots).serving = True
    lane = picture.lane(1, "task", ("small", "large"))
    for n in range(10):
        picture.add(lane, Waiting(n, str(n), 2), 0)
    taken = [start.slots.worker for start in picture.admit(0)]
    assert (taken.count("small"), taken.count("large")) == (2, 8)
    assert taken[:5].count("large") == 4


def _one_at_a_time(picture: Picture, count: int, now: int = 100) -> list[str]:
    order = []
    for n in range(count):
        [start] = picture.admit(now + n)
        order.append(start.run_id)
        picture.release(start.run_id)
    return order
