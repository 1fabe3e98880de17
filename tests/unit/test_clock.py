"""Ids that grow, whatever the clock does; and chance that a seed repeats."""

import uuid
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.clock import AgreedClock, Chance, Ids, SystemClock


class Hand(SystemClock):
    """A clock that a test moves."""

    def __init__(self, now: int) -> None:
        self.now = now

    def now_ms(self) -> int:
        return self.now


@given(steps=st.lists(st.integers(-5_000, 5_000), min_size=1, max_size=50), seed=st.integers(0, 1 << 32))
def test_ids_grow_strictly_and_are_uuids_of_version_7(steps: list[int], seed: int) -> None:
    clock = Hand(1_700_000_000_000)
    ids = Ids(clock, Chance(seed))
    made = []
    for step in steps:
        clock.now += step
        made += [ids.new() for _ in range(3)]
    assert made == sorted(set(made))
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 7, uuid.RFC_4122)


def test_an_id_tells_the_millisecond_it_was_made_in() -> None:
    assert uuid.UUID(Ids(Hand(1_700_000_000_123), Chance(1)).new()).int >> 80 == 1_700_000_000_123


def test_ids_grow_in_a_millisecond_that_does_not_end() -> None:
    ids = Ids(Hand(1_700_000_000_000), Chance(1))
    made = [ids.new() for _ in range(200_000)]
    assert all(one < two for one, two in pairwise(made))


def test_a_counter_that_is_used_up_borrows_the_next_millisecond() -> None:
    ids = Ids(Hand(1_700_000_000_000), Chance(1))
    first = ids.new()
    ids._counter = (1 << 26) - 2
    made = [first, *(ids.new() for _ in range(4))]
    assert made == sorted(set(made))
    assert [uuid.UUID(text).int >> 80 for text in (made[1], made[-1])] == [1_700_000_000_000, 1_700_000_000_001]


def test_a_clock_that_goes_back_by_an_hour_takes_no_id_back() -> None:
    clock = Hand(1_700_003_600_000)
    ids = Ids(clock, Chance(1))
    before = ids.new()
    clock.now -= 3_600_000
    assert ids.new() > before


def test_the_same_seed_has_the_same_chance() -> None:
    one, two = Chance(7), Chance(7)
    assert [one.uniform(0, 1) for _ in range(9)] == [two.uniform(0, 1) for _ in range(9)]
    assert [one.bits(48) for _ in range(9)] == [two.bits(48) for _ in range(9)]
    assert Chance().bits(64) != Chance().bits(64)


class Host(Hand):
    """A host whose clocks the test turns by hand."""

    steady = 100.0

    def monotonic(self) -> float:
        return self.steady


def test_a_clock_that_has_agreed_goes_by_the_database_and_its_own_steady_clock() -> None:
    host = Host(1_000_000)
    clock = AgreedClock(host)
    assert clock.now_ms() == 1_000_000
    assert clock.agree(5_000_000, asked=99.9) == -4_000_000
    host.steady += 2.5
    host.now = 77  # set back; nobody minds
    assert clock.now_ms() == 5_002_500


def test_an_answer_that_took_long_does_not_set_the_clock_again() -> None:
    host = Host(1_000_000)
    clock = AgreedClock(host)
    clock.agree(5_000_000, asked=10.0)
    host.steady += 30.0
    clock.agree(5_000_001, asked=100.0)
    assert clock.now_ms() == 5_030_000
