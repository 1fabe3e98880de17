"""Rate limits against a list of all starts: too much never starts in any window, and what may start nearly does."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.budgets import NEVER, SUB_WINDOWS, Rate
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Waiting
from hurlbat_dispatcher.domain.policies import Draws, RateDraw, StaticLimit
from hurlbat_dispatcher.domain.terms import TaskTerms, Terms

SPANS = st.sampled_from([10, 63, 64, 100, 1_000, 1_001, 60_000, 86_400_000])


def most_in_any_window(starts: Sequence[tuple[int, int]], span: int) -> int:
    """Return the most units that started in any window of this length, which does not contain its end."""
    return max((sum(units for at, units in starts if left <= at < left + span) for left, _ in starts), default=0)


@settings(max_examples=150)
@given(
    span=SPANS,
    limit=st.integers(1, 12),
    steps=st.lists(st.tuples(st.floats(0, 1.2), st.integers(1, 4), st.integers(1, 6)), max_size=60),
)
def test_in_no_window_start_more_units_than_the_limit(
    span: int, limit: int, steps: list[tuple[float, int, int]]
) -> None:
    rate, now = Rate("k", span=span, most=limit), 1_700_000_000_123
    starts: list[tuple[int, int]] = []
    for part, units, tries in steps:
        now += int(part**3 * span)
        for _ in range(tries):
            exactly = sum(one for at, one in starts if at > now - span)
            roughly = sum(one for at, one in starts if at > now - span - max(1, span // SUB_WINDOWS))
            assert exactly <= rate.counted(now) <= roughly
            if rate.room(now, units, 0):
                rate.take(now, units)
                starts.append((now, units))
            else:
                assert roughly + units > limit, "it had room"
                opens = rate.opens_at(now, units, 0)
                assert (opens is None) == (units > limit)
                if opens is not None:
                    then, before = deepcopy(rate), deepcopy(rate)  # a look at a time forgets what is over by then
                    assert then.room(opens, units, 0)
                    assert not before.room(opens - 1, units, 0)
                break
        assert len(rate.marks) <= SUB_WINDOWS + 2
    assert most_in_any_window(starts, span) <= limit


@pytest.mark.parametrize(("span", "limit", "units"), [(1_000, 20, 1), (1_000, 100, 7), (10_000, 64, 1), (60_000, 5, 1)])
def test_a_saturated_limit_gives_at_least_nineteen_twentieths(span: int, limit: int, units: int) -> None:
    rate, now, begin = Rate("k", span=span, most=limit), 1_700_000_000_123, 1_700_000_000_123
    started = 0
    while now < begin + 20 * span:
        while rate.room(now, units, 0):
            rate.take(now, units)
            started += units
        opens = rate.opens_at(now, units, 0)
        assert opens is not None
        assert opens > now
        now = opens
    assert started >= 0.95 * 20 * (limit - limit % units)


def test_starts_that_come_evenly_get_nearly_all_of_the_limit() -> None:
    rate, started = Rate("k", span=1_000, most=50), 0
    for now in range(1_700_000_000_000, 1_700_000_020_000, 7):
        if rate.room(now, 1, 0):
            rate.take(now, 1)
            started += 1
    assert 0.95 * 1_000 <= started <= 1_050


def test_a_window_does_not_contain_its_end() -> None:
    rate = Rate("k", span=1_000, most=1)
    rate.take(5_000, 1)
    assert not rate.room(5_999, 1, 0)
    assert rate.room(6_000, 1, 0)


def test_a_start_that_was_none_is_taken_back_from_its_own_time() -> None:
    rate = Rate("k", span=1_000, most=3)
    for at in (5_000, 5_500, 5_900):
        rate.take(at, 1)
    rate.undo(5_500, 1)
    assert rate.room(5_900, 1, 0)
    assert not rate.room(5_900, 2, 0)
    assert rate.opens_at(5_900, 2, 0) == 6_000
    assert rate.opens_at(5_900, 3, 0) == 6_900
    rate.undo(1_000, 1)  # long forgotten
    assert rate.counted(5_900) == 2


def test_what_is_asked_for_show_forgets_nothing() -> None:
    rate = Rate("k", span=1_000, most=3)
    rate.take(5_000, 2)
    assert (rate.counted(7_000), rate.counted(5_999), rate.spent) == (0, 2, 2)


def test_each_run_keeps_its_own_limit_of_a_shared_count() -> None:
    rate = Rate("dynamic:k", span=1_000)
    rate.take(5_000, 3)
    assert rate.room(5_000, 1, 4)
    assert not rate.room(5_000, 2, 4)
    assert not rate.room(5_000, 1, 3)
    assert rate.room(5_000, 5, 8)
    assert not rate.room(5_000, 1, 0)


def test_a_limit_that_changes_counts_what_has_started() -> None:
    rate = Rate("k", span=1_000, most=2)
    rate.take(5_000, 2)
    rate.most = 3
    assert rate.room(5_001, 1, 0)
    rate.most = 1
    assert not rate.room(5_001, 1, 0)
    assert rate.opens_at(5_001, 1, 0) == 6_000
    rate.most = 0
    assert (rate.room(9_000, 1, 0), rate.opens_at(9_000, 1, 0)) == (False, None)
    rate.most, rate.known = 5, False
    assert (rate.room(9_000, 1, 0), rate.opens_at(9_000, 1, 0)) == (False, None)


def test_a_pause_holds_until_its_end_or_until_it_is_resumed() -> None:
    rate = Rate("k", span=1_000, most=2)
    rate.pause(7_000)
    assert (rate.room(6_999, 1, 0), rate.room(7_000, 1, 0), rate.opens_at(5_000, 1, 0)) == (False, True, 7_000)
    rate.take(6_500, 2)
    assert rate.opens_at(6_600, 1, 0) == 7_500
    rate.pause(None)
    assert (rate.room(NEVER - 1, 1, 0), rate.opens_at(6_600, 1, 0)) == (False, None)
    rate.pause(0)
    assert rate.room(7_500, 2, 0)


def test_what_was_stored_counts_as_it_did() -> None:
    rate = Rate("k", span=1_000, most=9)
    for at in range(5_000, 5_900, 30):
        if rate.room(at, 1, 0):
            rate.take(at, 1)
    fresh = Rate("k", span=1_000, most=9)
    for mark in rate.marks:
        assert mark.bucket in rate.dirty
        fresh.restore(mark.bucket, mark.last, mark.units)
    for now in range(5_900, 7_200, 10):
        assert fresh.counted(now) == rate.counted(now)
        assert fresh.opens_at(now, 4, 0) == rate.opens_at(now, 4, 0)


def test_another_duration_inherits_what_is_known() -> None:
    short, long = Rate("k", span=1_000, most=4), Rate("k", span=5_000, most=4)
    for at in (5_000, 5_010, 5_600):
        short.take(at, 1)
    long.inherit([(mark.last, mark.units) for mark in short.marks])
    assert long.counted(5_600) == 3
    assert not long.room(5_600, 2, 0)
    assert long.counted(10_078 + 5_600) == 0


def test_a_limit_that_nobody_refers_to_is_idle_when_all_is_over() -> None:
    rate = Rate("k", span=1_000, most=4)
    rate.take(5_000, 1)
    found = [rate.idle]
    rate.used(6_000)
    found.append(rate.idle)
    rate.lanes = 1
    assert [*found, rate.idle] == [False, True, False]


def test_a_duration_that_comes_back_counts_what_was_started_in_the_other() -> None:
    picture = Picture()
    picture.worker("w", 50).serving = True
    now, started = 1_000_000, []
    lane = None
    for duration in (1_000, 2_000, 1_000):
        limit = StaticLimit("k", 3, duration)
        picture.learn(Terms({"t": TaskTerms((("w", 0),))}, limits={"k": limit}), now)
        lane = lane or picture.lane(1, "t", Draws((), (RateDraw("k", 1),)))
        for n in range(2):
            picture.add(lane, Waiting(now, f"{now}-{n}", 2), now)
        started += [(now, 1) for _ in picture.admit(now)]
        now += 100
    assert len(started) == 3


def test_what_starts_after_a_shorter_duration_forgot_counts_in_the_longer_one_that_comes_back() -> None:
    picture = Picture()
    picture.worker("w", 50).serving = True
    now = 1_000_000
    limit = StaticLimit("k", 9, 2_000)
    picture.learn(Terms({"t": TaskTerms((("w", 0),))}, limits={"k": limit}), now)
    lane = picture.lane(1, "t", Draws((), (RateDraw("k", 1),)))
    for n, (most, duration) in enumerate(((9, 2_000), (1, 500), (9, 2_000))):
        picture.learn(replace(picture.terms, limits={"k": StaticLimit("k", most, duration)}), now)
        picture.add(lane, Waiting(now, f"{n}", 2), now)
        picture.admit(now)
        now += 700
    assert picture.rates["static:k", 2_000].counted(now) == 2, "the first is 2,100 ms old"
    assert picture.rates["static:k", 2_000].counted(now - 101) == 3


def test_a_start_that_was_stored_under_two_durations_counts_once_in_a_third() -> None:
    picture = Picture()
    now = 1_000_000
    picture.read_at = now
    for span in (2_000, 500):
        picture.cold["static:k", span] = [(0, now - 100, 1)]
    picture.cold["static:k", 500].append((1, now - 50, 1))
    picture.learn(Terms({"t": TaskTerms()}, limits={"k": StaticLimit("k", 9, 1_000)}), now)
    picture.lane(1, "t", Draws((), (RateDraw("k", 1),)))
    assert picture.rates["static:k", 1_000].counted(now) == 2
