"""When a crontab expression is due, in its time zone: to the second, and as Debian's cron where clocks change.

cronsim finds matching times on the clock on the wall, where no hour is left out or comes twice; where on the line of
time they lie is told here. A shift of the clock of less than three hours does not touch what is due at fixed times:
what it leaps over is due the moment it has leapt, and what it goes through again is not due again. Fixed are
expressions whose second, minute and hour do not start with `*`. The others, and all of them where the shift is
greater, follow the clock as it goes.
"""

from collections import deque
from collections.abc import Iterator
from copy import copy
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from itertools import islice, takewhile
from re import compile as pattern
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from apscheduler.triggers.base import BaseTrigger
from cronsim import CronSim, CronSimError

ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
FIELDS: Final = {
    "second": "0 to 59",
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day-of-month": "1 to 31",
    "month": "1 to 12 or JAN to DEC",
    "day-of-week": "0 to 7 or SUN to SAT (0 and 7 are Sunday)",
}
"""The fields of an expression and what they may hold."""

_SHAPE: Final = "5 fields (minute hour day-of-month month day-of-week), or 6 with seconds first"
_YEAR: Final = pattern(r"(?:^|[-,/])[12]\d{3}(?:$|[-,/])")
_NEVER: Final = "no day is ever like that; check its day-of-month, month and day-of-week"
_LEAP: Final = 3 * 3600
"""The greatest shift of a clock (seconds) that is taken for one between summer and winter."""
_AHEAD: Final = 25 * 3600
"""How far ahead (seconds) a shift of the clock is looked for: none is greater than a day."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_START: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # the clock on the wall knows no zone
_FIRST: Final = datetime(2000, 1, 1)  # noqa: DTZ001


class CronInvalid(ValueError):
    """An expression or a time zone that cannot be used; `field` is the one of the two that is to blame."""

    def __init__(self, message: str, field: str = "expression") -> None:
        super().__init__(message)
        self.field = field


class Crontab(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """The due times of an expression in a time zone. Due times are ms since the epoch, always at a full second."""

    __slots__ = ("_fixed", "_wall", "_zone", "expression", "timezone")

    def __init__(self, expression: str, timezone: str, wall: CronSim, zone: ZoneInfo) -> None:
        self.expression = expression
        self.timezone = timezone
        self._wall = wall
        self._zone = zone
        self._fixed = not any(part.startswith("*") for part in wall.parts[:3])

    def after(self, ms: int) -> int | None:
        """Return the first due time after this one, None where the calendar ends."""
        try:
            due = self._after(ms // 1000)
        except OverflowError:
            return None
        return None if due is None else due * 1000

    def times(self, after: int) -> Iterator[int]:
        """Yield the due times after this one, in order."""
        due = self.after(after)
        while due is not None:
            yield due
            due = self.after(due)

    def between(self, after: int, until: int, most: int) -> list[int]:
        """Return the newest `most` due times after one time and until another, inclusively; the oldest comes first.

        The work grows with `most`, not with what lies between.
        """
        times = list(islice(self._until(after, until), most + 1))
        steps = most
        while len(times) > most:  # there may be ever so many: so only the end of them
            start = max(after, self._back(until, steps, after))
            newest = deque(self._until(start, until), maxlen=most)
            if len(newest) == most or start == after:
                return list(newest)
            steps *= 2  # some of the times on the wall were none, or fell together
        return times

    def _until(self, after: int, until: int) -> Iterator[int]:
        return takewhile(lambda due: due <= until, self.times(after))

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """Return the due time after the last one, else the first that is not before now, as APScheduler asks for it."""
        start = _ms(now) - 1 if previous_fire_time is None else _ms(previous_fire_time)
        due = self.after(start)
        return None if due is None else datetime.fromtimestamp(due / 1000, self._zone)

    # -- on the line of time, in seconds -----------------------------------------------------------------------------

    def _after(self, time: int) -> int | None:
        offset = self._offset(time)
        start = time + offset + 1
        """What is due on the wall from here on counts."""
        if self._fixed:
            start = max(start, self._gone_through(time, offset))
        while True:
            found = self._on_the_wall(start)
            if found is None:
                return None
            due = found - offset
            seen = min(due, time + _AHEAD)
            if self._offset(seen) != offset:
                time = self._shift(time, seen)
                before, offset = offset, self._offset(time)
                leap = offset - before
                if not self._fixed or not -_LEAP <= leap < _LEAP:
                    start = time + offset
                elif found <= time + offset:
                    return time
                else:
                    start = max(start, time + before)
            elif due == seen:
                return due
            else:
                time = due - _AHEAD
                offset = self._offset(time)
                start = found

    def _gone_through(self, time: int, offset: int) -> int:
        """Return until when the wall was gone through before the clock was set back a short while ago."""
        before = self._offset(time - _LEAP)
        return self._shift(time - _LEAP, time) + before if 0 < before - offset <= _LEAP else 0

    def _shift(self, low: int, high: int) -> int:
        """Return when, between two times, the clock is shifted."""
        before = self._offset(low)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def _offset(self, time: int) -> int:
        ahead = (_EPOCH + timedelta(seconds=time)).astimezone(self._zone).utcoffset()
        return 0 if ahead is None else int(ahead.total_seconds())

    # -- on the wall, in seconds since 1970 there --------------------------------------------------------------------

    def _on_the_wall(self, start: int) -> int | None:
        wall = copy(self._wall)
        wall.dt = _START + timedelta(seconds=start - 1)
        found = next(wall, None)
        return None if found is None else _seconds(found)

    def _back(self, until: int, steps: int, after: int) -> int:
        """Return a time (ms) before about so many due times until then, or one not later than `after`."""
        time = until // 1000
        wall = copy(self._wall)
        wall.tick_direction = -1
        wall.dt = _START + timedelta(seconds=time + self._offset(time) + 1)
        end = _START + timedelta(seconds=after // 1000 + self._offset(after // 1000) - _AHEAD)
        for _ in range(steps):
            if next(wall, end) <= end:
                return after
        return int(wall.dt.replace(tzinfo=self._zone).timestamp()) * 1000 - 1


@lru_cache(4096)
def compile_cron(expression: str, timezone: str = "UTC") -> Crontab:
    """Read a crontab expression for an IANA time zone. Raises `CronInvalid` with a sentence that names the field."""
    text = " ".join(expression.split())
    parts = _parts(ALIASES.get(text.lower(), text), expression)
    zone = _zone(timezone)
    for place, name in enumerate(FIELDS):
        _check(parts, place, name, expression)
    try:
        wall = CronSim(" ".join(parts), _FIRST)
        never = next(copy(wall), None) is None
    except CronSimError:
        never = True
    if never:
        raise CronInvalid(f"The cron expression {expression!r} never fires: {_NEVER}")
    return Crontab(expression, timezone, wall, zone)


def _parts(text: str, expression: str) -> list[str]:
    """Return the six fields. Raises `CronInvalid`."""
    if text.startswith("@"):
        known = ", ".join(ALIASES)
        raise CronInvalid(f"{expression!r} is not known as a cron expression; use one of {known}, or {_SHAPE}")
    parts = text.split()
    if len(parts) == 7 or (len(parts) == 6 and _YEAR.search(parts[5])):
        raise CronInvalid(
            f"The cron expression {expression!r} ends with a year, and years are not supported:"
            f" it has {_SHAPE}; leave the year out"
        )
    if len(parts) not in (5, 6):
        raise CronInvalid(f"A cron expression has {_SHAPE}; {expression!r} has {len(parts)}")
    return parts if len(parts) == 6 else ["0", *parts]


def _check(parts: list[str], place: int, name: str, expression: str) -> None:
    alone = ["*"] * len(FIELDS)
    alone[place] = parts[place]
    try:
        if not parts[place].isascii():
            raise CronSimError
        CronSim(" ".join(alone), _FIRST)
    except CronSimError as error:
        raise CronInvalid(
            f"The {name} field {parts[place]!r} of the cron expression {expression!r} cannot be read:"
            f" write {FIELDS[name]}, with *, lists (1,5), ranges from low to high (1-5) and steps (*/2)"
        ) from error


def _zone(name: str) -> ZoneInfo:
    if name not in _zones():
        meant = _meant(name.lower())
        hint = "write UTC, or one like Europe/Berlin" if meant is None else f"did you mean {meant}?"
        raise CronInvalid(f"There is no time zone {name!r} in the IANA database; {hint}", "timezone")
    return ZoneInfo(name)


def _meant(name: str) -> str | None:
    """Return the zone that is surely near to a name: an abbreviation differs by a letter from one that is hours off."""
    folded = {zone.lower(): zone for zone in _zones()}
    if name in folded:
        return folded[name]
    if "/" in name:
        near = get_close_matches(name, folded, 1)
    else:
        near = [zone for zone in folded if zone.endswith(f"/{name}") and not zone.startswith("etc/")]
    return folded[near[0]] if len(near) == 1 else None


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime", "Factory"})  # what this machine has, and none


def _seconds(time: datetime) -> int:
    return (time - _START) // timedelta(seconds=1)


def _ms(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(milliseconds=1)
