"""The checks find what they are for."""

from tests.flow.checks import Span, fullest_window, most_at_once

LIMIT, SECOND = 10, 1000


def test_a_window_that_restarts_lazily_is_caught() -> None:
    """It begins with its first start: one run, then nine at 0.95 s, and ten more when it is over, 50 ms later."""
    opened, used, starts = 0, 0, []
    for now in (0, *range(950, 5_000)):
        if now >= opened + SECOND:
            opened, used = now, 0
        room = LIMIT - used if now else 1
        starts += [now] * room
        used += room

    assert fullest_window(starts, SECOND) == 19


def test_a_full_window_beside_another_is_no_fault() -> None:
    assert fullest_window([0] * 10 + [1000] * 10, SECOND) == 10
    assert fullest_window([1] * 10 + [1000] * 10, SECOND) == 20
    assert fullest_window([0, 0, 500], SECOND, units=3) == 9


def test_attempts_overlap_only_while_both_run() -> None:
    assert most_at_once([Span(0, 10, "a"), Span(10, 20, "b")]) == 1
    assert most_at_once([Span(0, 10, "a"), Span(9, 20, "b"), Span(9.5, 9.6, "c")]) == 3
