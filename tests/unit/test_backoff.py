"""How long a failed attempt waits."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.backoff import MAX_SECONDS, clamp, wait_after
from hurlbat_dispatcher.clock import Chance
from hurlbat_dispatcher.domain.runs import Backoff

YEAR = 31_536_000.0


def waits(backoff: Backoff, count: int) -> list[float]:
    return [wait_after(backoff, tries, Chance(1)) for tries in range(1, count + 1)]


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff(jitter=False), [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]),
        (Backoff(initial=0.5, factor=3, max=10, jitter=False), [0.5, 1.5, 4.5, 10, 10]),
        (Backoff(initial=20, max=10, jitter=False), [10, 10]),
        (Backoff(initial=0, jitter=False), [0, 0, 0]),
        (Backoff("fixed", initial=7, jitter=False), [7, 7, 7]),
        (Backoff("fixed", initial=7, max=3, jitter=False), [7, 7]),
        (Backoff("list", delays=(5, 1, 60), jitter=False), [5, 1, 60, 60, 60]),
        (Backoff("list", delays=(5,), jitter=False), [5, 5]),
    ],
)
def test_a_strategy_says_how_long(backoff: Backoff, expected: list[float]) -> None:
    assert waits(backoff, len(expected)) == expected


STRATEGIES: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(["fixed", "exponential", "list"]),
        "initial": st.floats(0, YEAR),
        "factor": st.floats(1, 100),
        "max": st.floats(0, YEAR),
        "delays": st.lists(st.floats(0, YEAR), min_size=1, max_size=5).map(tuple),
    }
)


@given(values=STRATEGIES, tries=st.integers(1, 1001), seed=st.integers(0, 1 << 32))
def test_jitter_is_between_half_and_all_and_no_wait_is_above_a_year(
    values: dict[str, Any], tries: int, seed: int
) -> None:
    whole = wait_after(Backoff(**values, jitter=False), tries, Chance(seed))
    drawn = wait_after(Backoff(**values, jitter=True), tries, Chance(seed))
    assert 0.0 <= whole <= MAX_SECONDS == YEAR
    assert whole / 2 <= drawn <= whole


@given(st.floats(allow_nan=False))
def test_any_wait_is_brought_within_bounds(seconds: float) -> None:
    assert 0.0 <= clamp(seconds) <= YEAR
