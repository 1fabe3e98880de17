"""How much a worker gets done under its window, when its limit is not known, and when it moves.

A discrete-event model of a worker that does `knee` attempts at a time, and has always more waiting for it: beyond its
knee it refuses, or it slows down for all, or it slows down until they time out. Time is virtual, and the sending is
that of the engine's own `Slots`.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush

import pytest

from hurlbat_dispatcher.domain.slots import Slots
from hurlbat_dispatcher.domain.workers import Window

NEVER = float("inf")
REFUSAL_MS = 10.0


class Beyond(StrEnum):
    """What a worker does with more than its knee."""

    FAILS = "fails"
    """It answers 502, or 503 without a mark, at once."""
    PUSHES_BACK = "pushes back"
    """It answers 503 with `Retry-After: 1`, at once."""
    SLOWS = "slows"
    """All of them take longer, in proportion; nothing fails."""
    TIMES_OUT = "times out"
    """The same, and what takes longer than it would at twice the knee runs into its timeout."""


@dataclass(slots=True)
class World:
    """A worker behind its slots. `work` (ms) is what an attempt takes, half more or less, while there is room."""

    beyond: Beyond
    knee: int
    work: float
    slots: Slots
    now: float = 0.0
    ended: list[float] = field(default_factory=list)
    refused: int = 0
    steps: int = 0
    _random: random.Random = field(default_factory=lambda: random.Random(4))
    _begun: dict[int, float] = field(default_factory=dict)
    """When each attempt began that the worker is busy with."""
    _done: float = 0.0
    """What each of them would have been given of the worker's time, had it been there from the start."""
    _ends: list[tuple[float, int]] = field(default_factory=list)
    _timeouts: list[tuple[float, int]] = field(default_factory=list)
    _refusals: list[tuple[float, float]] = field(default_factory=list)
    _serial: int = 0

    def until(self, end: float) -> None:
        """Let everything happen that happens before then (ms)."""
        while True:
            while self.slots.room(int(self.now)) > 0:
                self._start()
            self._forget_the_gone()
            speed = self._speed()
            moments = {
                "end": self.now + (self._ends[0][0] - self._done) / speed if self._ends else NEVER,
                "timeout": self._timeouts[0][0] if self._timeouts else NEVER,
                "refusal": self._refusals[0][0] if self._refusals else NEVER,
                "gate": float(self.slots.not_before) if self.slots.not_before > self.now else NEVER,
            }
            what = min(moments, key=lambda name: moments[name])
            at = min(moments[what], end)
            self._done += (at - self.now) * speed
            self.now = at
            if moments[what] >= end:
                return
            self.steps += 1
            self._happen(what)

    def goodput(self, since: float) -> float:
        """Return how much was done since then, as a share of what is possible with this knee."""
        return sum(at >= since for at in self.ended) / ((self.now - since) * self.knee / self.work)

    def _start(self) -> None:
        self.slots.used += 1
        refuses = self.beyond in (Beyond.FAILS, Beyond.PUSHES_BACK)
        work = self.work * self._random.uniform(0.5, 1.5)
        if refuses and len(self._begun) >= self.knee:
            heappush(self._refusals, (self.now + REFUSAL_MS, self.now))
            return
        self._serial += 1
        self._begun[self._serial] = self.now
        heappush(self._ends, (self._done + work, self._serial))
        if self.beyond is Beyond.TIMES_OUT:
            heappush(self._timeouts, (self.now + 3 * self.work, self._serial))

    def _happen(self, what: str) -> None:
        now = int(self.now)
        match what:
            case "end":
                del self._begun[heappop(self._ends)[1]]
                self.ended.append(self.now)
                self.slots.answered(1, now)
            case "timeout":
                began = self._begun.pop(heappop(self._timeouts)[1])
                self.refused += 1
                self.slots.shrink(now, int(self.now - began))
            case "refusal":
                _, began = heappop(self._refusals)
                self.refused += 1
                age = int(self.now - began) + 1
                if self.beyond is Beyond.PUSHES_BACK:
                    self.slots.pushed_back(now, 1_000, age)
                else:
                    self.slots.shrink(now, age)
            case _:
                return
        self.slots.used -= 1

    def _speed(self) -> float:
        return min(1.0, self.knee / len(self._begun)) if self._begun else 1.0

    def _forget_the_gone(self) -> None:
        for heap in (self._ends, self._timeouts):
            while heap and heap[0][1] not in self._begun:
                heappop(heap)


def world(beyond: Beyond, knee: int, slots: int, work: float, pinned: int | None = None) -> World:
    window = Window(slots)
    window.pin(pinned)
    return World(beyond, knee, work, Slots("w", window, serving=True))


@pytest.mark.parametrize("beyond", Beyond)
@pytest.mark.parametrize(("knee", "slots"), [(1, 10), (3, 1000), (10, 10), (10, 200), (50, 1000), (200, 1000)])
def test_nine_tenths_of_what_is_possible_are_done_wherever_the_knee_is(beyond: Beyond, knee: int, slots: int) -> None:
    work = 40.0 * knee  # 25 a second
    there = world(beyond, knee, slots, work)
    there.until(100_000 + 30 * work)
    found = there.now
    if beyond is not Beyond.SLOWS:  # there much is under way first, up to its slots
        assert there.goodput(0) > 0.85  # from a cold start
    there.until(found + 100_000)
    assert there.goodput(found) > 0.9
    assert there.refused < len(there.ended) / 4


@pytest.mark.parametrize("limit", [5, 10, 11, 20, 30])
@pytest.mark.parametrize("beyond", Beyond)
def test_no_fixed_limit_does_more_than_the_knee_allows(beyond: Beyond, limit: int) -> None:
    there = world(beyond, knee=10, slots=100, work=400, pinned=limit)
    there.until(15_000)
    assert there.goodput(0) < 1.02


@pytest.mark.parametrize("beyond", Beyond)
@pytest.mark.parametrize(("before", "after"), [(50, 5), (5, 50), (10, 1), (1, 10), (20, 18), (18, 20)])
def test_it_recovers_after_the_knee_moved(beyond: Beyond, before: int, after: int) -> None:
    work = 500.0
    there = world(beyond, before, 200, work)
    there.until(40_000)
    there.knee = after
    there.until(40_000 + 90 * work)
    recovered = there.now
    there.until(recovered + 60_000)
    assert there.goodput(recovered) > 0.9


def test_a_worker_that_only_slows_down_is_never_held_below_its_slots() -> None:
    there = world(Beyond.SLOWS, knee=10, slots=300, work=100)
    there.until(20_000)
    assert (there.slots.window.size, there.refused) == (300, 0)


def test_a_failure_in_a_thousand_answers_costs_less_than_a_tenth() -> None:
    rolls = random.Random(7)
    window = Window(100)
    slots = Slots("w", window, serving=True)
    now, done, rounds = 0, 0, 400
    for _ in range(rounds):  # a round of what fits, all of it answered a second later
        slots.used = window.size
        now += 1_000
        for _ in range(slots.used):
            if rolls.random() < 0.001:
                slots.shrink(now, 1_000)
            else:
                done += 1
                slots.answered(1, now)
    assert done > 0.9 * 100 * rounds
