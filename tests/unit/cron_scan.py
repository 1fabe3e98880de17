"""Debian's cron as a slow and obvious loop: it wakes at every minute, looks at the clock on the wall, and runs jobs.

It keeps a time of its own, which goes on like the clock on the wall but for its shifts: what the clock leaps over is
made up for, and where it goes back the jobs at fixed times wait until it has caught up. A `unit` of one second makes
it a cron that wakes at every second, for expressions of six fields.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

MONTHS: Final = ["", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS: Final = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
NAMES: Final = {place: {name: n for n, name in enumerate(names)} for place, names in ((4, MONTHS), (5, DAYS))}
BOUNDS: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
THREE_HOURS: Final = 3 * 3600
HOUR: Final = 3600
DAY: Final = 86_400
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def read(field: str, place: int) -> set[int]:
    """Return the numbers that a field means."""
    low, high = BOUNDS[place]
    found: set[int] = set()
    for part in field.upper().split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        names = NAMES.get(place, {})
        if span == "*":
            start, end = low, high
        else:
            start = names[first] if first in names else int(first)
            end = (names[last] if last in names else int(last)) if dash else high if step else start
        found.update(range(start, end + 1, int(step or 1)))
    return found


class Job:
    """An expression, and on which days, hours, minutes and seconds it runs."""

    def __init__(self, expression: str) -> None:
        fields = expression.split()
        if len(fields) == 5:
            fields = ["0", *fields]
        self.fixed = not any(field.startswith("*") for field in fields[:3])
        self._either = not (fields[3].startswith("*") or fields[5].startswith("*"))
        self._seconds, self._minutes, self._hours, self._days, self._months, self._weekdays = (
            read(field, place) for place, field in enumerate(fields)
        )
        self._weekdays |= {0} if 7 in self._weekdays else set()
        self._runs_on = cache(self._is_day)

    def runs_at(self, wall: int) -> bool:
        """Tell whether it runs at this second on the wall."""
        return (
            wall % 60 in self._seconds
            and wall // 60 % 60 in self._minutes
            and wall // 3600 % 24 in self._hours
            and self._runs_on(wall // DAY)
        )

    def _is_day(self, number: int) -> bool:
        day = date(1970, 1, 1) + timedelta(days=number)
        if day.month not in self._months:
            return False
        of_month, of_week = day.day in self._days, day.isoweekday() % 7 in self._weekdays
        return of_month or of_week if self._either else of_month and of_week


@cache
def offset_at(zone: str, time: int) -> int:
    """Return by how many seconds the clock on the wall is ahead of UTC."""
    ahead = (EPOCH + timedelta(seconds=time)).astimezone(ZoneInfo(zone)).utcoffset()
    assert ahead is not None
    return int(ahead.total_seconds())


def shifts(zone: str, start: int, end: int) -> list[int]:
    """Return the hours (their first seconds) in which the clock on the wall is shifted."""
    days = [day for day in range(start, end, DAY) if offset_at(zone, day) != offset_at(zone, day + DAY)]
    hours = [hour for day in days for hour in range(day, day + DAY, HOUR)]
    return [hour for hour in hours if offset_at(zone, hour) != offset_at(zone, hour + HOUR)]


def clock(zone: str, start: int, end: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield each time, and what the clock on the wall says then."""
    for hour in range(start // HOUR * HOUR, end, HOUR):
        ahead, later = offset_at(zone, hour), offset_at(zone, hour + HOUR)
        for time in range(max(hour, start), min(hour + HOUR, end), unit):
            yield time, time + (ahead if ahead == later else offset_at(zone, time))


def scan(expression: str, zone: str, start: int, end: int) -> list[int]:
    """Return when a job runs between two times (seconds, the second excluded)."""
    job = Job(expression)
    unit = 60 if len(expression.split()) == 5 else 1
    before = start - DAY // 4
    own = next(clock(zone, before - unit, before, unit))[1]
    found: list[int] = []
    for time, wall in clock(zone, before, end, unit):
        ahead = wall - own
        if ahead == unit:  # as always
            own = wall
            runs = job.runs_at(wall)
        elif unit < ahead <= THREE_HOURS:  # it has leapt ahead: jobs at fixed times are made up for
            runs = any(map(job.runs_at, range(own + unit, wall + unit, unit))) if job.fixed else job.runs_at(wall)
            own = wall
        elif -THREE_HOURS < ahead <= 0:  # it was set back: jobs at fixed times wait for it to catch up
            runs = not job.fixed and job.runs_at(wall)
        else:  # it is another time altogether
            own = wall
            runs = job.runs_at(wall)
        if runs and time >= start:
            found.append(time)
    return found
