"""The rules of a worker's window: its bounds, its pin, what makes it grow, and what makes it fall."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.workers import FIRST_WINDOW, HOLD, PAUSE_MS, QUIET_MS, Window

STEPS = st.lists(
    st.tuples(
        st.sampled_from(("grow", "shrink", "restart", "resize", "pin", "unpin")),
        st.integers(0, 300),
        st.integers(0, 5_000),
    ),
    max_size=80,
)


@given(slots=st.integers(1, 1000), steps=STEPS)
def test_it_is_at_least_one_and_never_beyond_its_slots_nor_moves_while_it_is_pinned(
    slots: int, steps: list[tuple[str, int, int]]
) -> None:
    window, pinned, now = Window(slots), None, 0
    for step, number, passed in steps:
        now += passed
        match step:
            case "grow":
                window.grow(number, now, min(number, window.size))
            case "shrink":
                window.shrink(now, now - number, passed)
            case "restart":
                window.restart()
            case "resize":
                slots = max(1, number)
                window.resize(slots)
            case "pin":
                pinned = max(1, number)
                window.pin(pinned)
            case _:
                pinned = None
                window.pin(None)
        assert 1 <= window.size <= slots == window.slots
        assert 1 <= window.sound <= slots
        assert window.pinned == pinned
        assert pinned is None or window.size == min(pinned, slots)


@given(slots=st.integers(2, 1000), steps=STEPS)
def test_whatever_happened_good_answers_bring_back_all_slots(slots: int, steps: list[tuple[str, int, int]]) -> None:
    window, now = Window(slots), 0
    for step, number, passed in steps:
        now += passed
        if step == "grow":
            window.grow(number, now, number)
        elif step == "shrink":
            window.shrink(now, now - number)
        elif step == "restart":
            window.restart()
    for _ in range(200):
        now += 60_000
        window.grow(window.size, now, window.size)
    assert window.size == slots


# -- growing -----------------------------------------------------------------------------------------------------------


def test_it_begins_small_and_doubles_with_each_round_of_answers() -> None:
    window = Window(100)
    sizes = [window.size]
    while window.size < 100:
        window.grow(window.size, 0, window.size)
        sizes.append(window.size)
    assert sizes == [FIRST_WINDOW, 32, 64, 100]


def test_more_slots_let_one_without_trouble_grow_fast() -> None:
    window = Window(16)
    window.resize(64)
    window.grow(16, 0, 16)
    assert window.size == 32


def test_more_slots_do_not_forget_trouble() -> None:
    window = Window(16)
    window.shrink(1_000, 900)
    window.resize(64)
    window.grow(30, 1_050, 8)
    assert window.size == 8


def test_growth_halves_the_distance_to_where_trouble_was() -> None:
    window = Window(100)
    window.grow(48, 0, 16)
    window.shrink(1_000, 990)
    sizes = [window.size]
    for n in range(5):
        window.grow(window.size, 2_000 + 1_000 * n, window.size)
        sizes.append(window.size)
    assert sizes == [32, 48, 56, 60, 62, 63]


def test_it_stands_twice_the_time_that_trouble_took_to_show_before_it_grows_on() -> None:
    window = Window(100)
    window.grow(48, 0, 16)
    window.shrink(10_000, 7_000)
    window.grow(32, 10_000 + PAUSE_MS + 5_999, 32)
    assert window.size == 32
    window.grow(1, 10_000 + PAUSE_MS + 6_000, 32)
    assert window.size == 48


def test_beyond_the_edge_its_steps_double() -> None:
    window = edged(sound=9, edge=10)
    sizes = [window.size]
    for n in range(5):
        window.grow(window.size, 10_000_000 * (n + 1), window.size)
        sizes.append(window.size)
    assert sizes == [9, 10, 12, 16, 24, 40]


def test_a_window_that_is_not_used_does_not_go_beyond_what_is_sound() -> None:
    window = edged(sound=9, edge=10)
    window.grow(1_000, 10_000_000, 4)
    assert window.size == 9
    window.grow(9, 10_000_000, 5)
    assert window.size == 10


def test_it_comes_back_to_what_is_sound_with_every_answer() -> None:
    window = edged(sound=90, edge=100)
    window.restart()
    window.grow(1, 50, 1)
    window.grow(2, 60, 2)
    assert window.size == 4
    window.grow(200, 70, 4)
    assert window.size == 90


def test_one_in_use_that_hears_nothing_grows_by_time() -> None:
    window = edged(sound=90, edge=100)
    window.restart()
    sizes = []
    for n in range(4):
        window.grow(0, 1_000 + n * QUIET_MS, window.size)
        sizes.append(window.size)
    window.grow(0, 1_001 + 3 * QUIET_MS, window.size)  # not long enough
    window.grow(0, 9_000 + 8 * QUIET_MS, 1)  # not in use
    assert (sizes, window.size) == ([1, 2, 4, 8], 8)


# -- trouble -----------------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 1000))
def test_trouble_halves_it(size: int) -> None:
    window = Window(1000)
    window.size = window.sound = size
    window.shrink(1_000, 900)
    assert window.size == max(1, size // 2)


def test_trouble_of_what_was_on_its_way_together_halves_it_once() -> None:
    window = Window(16)
    window.shrink(1_000, 500)
    window.shrink(1_400, 999)
    window.shrink(1_400, 1_000)
    assert window.size == 8
    window.shrink(1_400, 1_001)
    assert window.size == 4


def test_it_stays_below_an_edge_that_it_met_again_for_long_by_what_that_costs() -> None:
    window, now = edged(sound=9, edge=10), 1_000_000_000
    holds = []
    for _ in range(5):
        while window.size < 10:
            now += 100
            window.grow(window.size, now, window.size)
        window.shrink(now, now - 10, 1_000)
        holds.append((window.next_at - now - 1_000) // (HOLD * (1_000 + PAUSE_MS) // 8))
    assert holds == [2, 4, 8, 8, 8]


def test_rare_trouble_lowers_what_is_sound_by_little_and_frequent_trouble_halves_it() -> None:
    rare, frequent = edged(sound=90, edge=100), edged(sound=90, edge=100)
    rare.grow(9, 2_000, 90)
    rare.shrink(3_000, 2_900)
    frequent.grow(7, 2_000, 90)
    frequent.shrink(3_000, 2_900)
    assert [(one.size, one.sound) for one in (rare, frequent)] == [(45, 88), (45, 45)]


@pytest.mark.parametrize(("wait", "sound"), [(0, 88), (1_000, 45)])
def test_trouble_is_not_rare_as_long_as_its_pauses_cost_much_of_the_time(wait: int, sound: int) -> None:
    window = edged(sound=90, edge=100)
    window.grow(1_000, 2_000, 90)
    window.shrink(3_000, 2_900, wait)
    window.grow(1_000, 5_000, 90)
    window.next_at = 0
    window.size = window.sound = 90
    window.shrink(18_999, 18_900, wait)
    assert window.sound == sound


# -- its pin -----------------------------------------------------------------------------------------------------------


def test_a_pin_beyond_the_slots_comes_back_with_them() -> None:
    window = Window(100)
    window.pin(50)
    window.resize(20)
    assert window.size == 20
    window.resize(100)
    assert (window.size, window.learns) == (50, False)


def test_without_its_pin_it_adapts_from_the_size_that_it_has() -> None:
    window = Window(100)
    window.shrink(1_000, 900)
    window.pin(3)
    window.pin(None)
    assert (window.size, window.learns) == (3, True)
    window.grow(3, 2_000, 3)
    assert window.size == 6


@pytest.mark.parametrize(("slots", "learns"), [(FIRST_WINDOW, False), (FIRST_WINDOW + 1, True)])
def test_one_that_has_all_its_slots_needs_no_answers(slots: int, learns: bool) -> None:
    assert Window(slots).learns is learns


def edged(sound: int, edge: int) -> Window:
    """Return a window of 1,000 slots that knows what is sound, and where trouble was."""
    window = Window(1_000)
    window.size = window.sound = sound
    window.edge = edge
    return window
