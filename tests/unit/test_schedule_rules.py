"""Which of the times that have come are fired: late ones always, missed ones as the schedule says."""

import pytest

from hurlbat_dispatcher.domain.schedules import LATE_MS, MAX_MISSED, Due, Missed, judge

NOW = 1_800_000_000_000
OLD = [NOW - LATE_MS - 3000, NOW - LATE_MS - 1, NOW - LATE_MS]
LATE = [NOW - LATE_MS + 1, NOW]


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (Missed.SKIP, Due(tuple(LATE), OLD[-1])),
        (Missed.ONCE, Due((OLD[-1], *LATE), OLD[-2])),
        (Missed.ALL, Due((*OLD, *LATE), None)),
    ],
)
def test_late_times_are_fired_and_missed_ones_as_the_schedule_says(missed: Missed, expected: Due) -> None:
    assert judge([*OLD, *LATE], NOW, missed) == expected


@pytest.mark.parametrize("missed", Missed)
def test_without_missed_times_nothing_is_made_up_for(missed: Missed) -> None:
    assert judge(LATE, NOW, missed) == Due(tuple(LATE), None)
    assert judge([], NOW, missed) == Due((), None)


def test_of_too_many_missed_times_the_newest_are_made_up_for() -> None:
    times = [NOW - LATE_MS - second * 1000 for second in range(MAX_MISSED + 5, 0, -1)]

    due = judge(times, NOW, Missed.ALL)

    assert due == Due(tuple(times[5:]), times[4])
