"""The rank and the expiry of runs, the gate of workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.runs import AGE_MS, expiry, rank
from hurlbat_dispatcher.domain.slots import Slots
from hurlbat_dispatcher.domain.workers import PROBE_MAX_MS, Window, probe_wait

MOMENTS = st.integers(0, 1 << 41)


# -- rank --------------------------------------------------------------------------------------------------------------


@given(due=MOMENTS, later=st.integers(1, 1 << 30), priority=st.integers(-1000, 1000))
def test_of_equal_priorities_the_older_goes_first(due: int, later: int, priority: int) -> None:
    assert rank(due, priority) < rank(due + later, priority)


@given(due=MOMENTS, priority=st.integers(-1000, 999))
def test_a_minute_of_waiting_is_worth_one_step_of_priority(due: int, priority: int) -> None:
    assert rank(due, priority + 1) == rank(due - AGE_MS, priority)


# -- expiry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ttl_at", "timeout", "tries", "expected"),
    [
        (None, None, 0, (None, None)),
        (500, None, 0, (500, "ttl")),
        (500, None, 1, (None, None)),
        (None, 30, 0, (230, "schedule_timeout")),
        (None, 30, 5, (230, "schedule_timeout")),
        (210, 30, 0, (210, "ttl")),
        (500, 30, 0, (230, "schedule_timeout")),
        (210, 30, 1, (230, "schedule_timeout")),
    ],
)
def test_a_run_must_have_started_by_its_ttl_or_its_schedule_timeout(
    ttl_at: int | None, timeout: int | None, tries: int, expected: tuple[int | None, str | None]
) -> None:
    assert expiry(created_at=100, due_at=200, ttl_at=ttl_at, schedule_timeout=timeout, tries=tries) == expected


def test_the_schedule_timeout_of_a_run_that_was_due_before_it_was_made_counts_from_its_making() -> None:
    found, _ = expiry(created_at=100, due_at=50, ttl_at=None, schedule_timeout=30, tries=0)
    assert found == 130


# -- the gate ----------------------------------------------------------------------------------------------------------


def gate(slots: int = 10) -> Slots:
    return Slots("w", Window(slots), serving=True)


def test_a_worker_that_is_not_to_be_sent_to_has_no_room() -> None:
    slots = gate()
    slots.serving = False
    assert slots.room(0) == 0


def test_a_worker_that_pushed_back_has_no_room_until_then() -> None:
    slots = gate()
    slots.pushed_back(1_000, 500)
    assert (slots.room(1_499), slots.room(1_500)) == (0, 5)
    slots.pushed_back(1_000, 100)  # a shorter wait does not open the gate sooner
    assert slots.room(1_499) == 0


def test_an_unreachable_worker_is_probed_one_by_one_each_time_later() -> None:
    slots = gate()
    now, waits = 0, []
    for _ in range(8):
        slots.unreachable(now)
        waits.append(slots.not_before - now)
        assert slots.room(slots.not_before - 1) == 0
        now = slots.not_before
        assert slots.room(now) == 1
    assert waits == [500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000, 5_000]


def test_many_failures_of_one_moment_are_one() -> None:
    slots = gate()
    for _ in range(20):
        slots.unreachable(0)
    assert slots.not_before == 500


def test_an_answer_opens_the_gate_and_the_window_begins_small() -> None:
    slots = gate()
    slots.unreachable(0)
    slots.answered(1, 0)
    assert (slots.probing, slots.failures, slots.room(0)) == (False, 0, 2)  # what was proven, and one more
    slots.answered(1, 0)
    assert slots.room(0) == 3


def test_who_takes_many_slots_waits_for_all_of_them() -> None:
    slots = gate()
    slots.used = 6
    assert (slots.takes(4, 0), slots.takes(5, 0)) == (True, False)


def test_who_takes_more_than_the_window_has_goes_to_a_worker_that_does_nothing_else() -> None:
    slots = gate()
    slots.window.size = 3
    assert (slots.takes(10, 0), slots.takes(11, 0)) == (True, False)
    slots.used = 1
    assert (slots.takes(2, 0), slots.takes(4, 0)) == (True, False)
    slots.used, slots.serving = 0, False
    assert not slots.takes(10, 0)
    slots.serving, slots.not_before = True, 5
    assert (slots.takes(10, 4), slots.takes(10, 5)) == (False, True)


def test_a_probe_may_take_many_slots_and_is_one_at_a_time() -> None:
    slots = gate()
    slots.unreachable(0)
    slots.used = 6
    now = slots.not_before
    assert (slots.takes(4, now), slots.takes(5, now)) == (True, False)
    slots.probes.add("probe")
    assert (slots.takes(1, now), slots.takes(4, now)) == (False, False)


@given(st.integers(1, 10_000))
def test_a_probe_never_waits_longer_than_the_most(failures: int) -> None:
    assert 0 < probe_wait(failures) <= PROBE_MAX_MS
