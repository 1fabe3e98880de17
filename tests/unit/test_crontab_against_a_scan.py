"""The due times of random expressions against Debian's cron, played minute by minute: 40 zones, 20 years.

The scans are chosen by `HURLBAT_TEST_CRON_SEED`, and `HURLBAT_TEST_CRON_SCANS` says how many there are for each zone:
each around a shift of the clock, or anywhere. `HURLBAT_TEST_CRON_YEARS=20` also plays as many years without a gap.
"""

import os
from bisect import bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from random import Random
from typing import Final

import pytest

from hurlbat_dispatcher.crontab import compile_cron
from tests.unit.cron_scan import DAY, HOUR, scan, shifts

SEED: Final = int(os.environ.get("HURLBAT_TEST_CRON_SEED", "1"))
SCANS: Final = int(os.environ.get("HURLBAT_TEST_CRON_SCANS", "2"))
YEARS: Final = int(os.environ.get("HURLBAT_TEST_CRON_YEARS", "0"))
FIRST: Final = int(datetime(2007, 1, 1, tzinfo=UTC).timestamp())
LAST: Final = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
ZONES: Final = [
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "Europe/Dublin",
    "Europe/Lisbon",
    "Europe/Moscow",
    "Europe/Istanbul",
    "Europe/Chisinau",
    "Europe/Volgograd",
    "America/New_York",
    "America/Los_Angeles",
    "America/St_Johns",
    "America/Sao_Paulo",
    "America/Havana",
    "America/Caracas",
    "America/Santiago",
    "America/Asuncion",
    "America/Scoresbysund",
    "America/Mexico_City",
    "Africa/Cairo",
    "Africa/Casablanca",
    "Africa/Johannesburg",
    "Africa/Juba",
    "Asia/Tokyo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Pyongyang",
    "Asia/Hovd",
    "Australia/Sydney",
    "Australia/Lord_Howe",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Pacific/Easter",
    "Antarctica/Troll",
    "Antarctica/Casey",
]


def test_there_are_forty_zones() -> None:
    assert len(set(ZONES)) == 40


@pytest.mark.parametrize("zone", ZONES)
def test_due_times_are_those_of_cron(zone: str) -> None:
    chance = Random(f"{SEED} {zone}")
    shifted = shifts(zone, FIRST, LAST)
    for _ in range(SCANS):
        six = chance.random() < 0.2
        half = (3 if six else 14) * HOUR
        middle = chance.choice(shifted) if shifted and chance.random() < 0.85 else chance.randrange(FIRST, LAST)
        expression = made_up(chance, six)
        compare(expression, zone, middle - half, middle + half, chance)
    if YEARS:
        expression = made_up(chance, six=False, minutes=("0", "30", "59", "0,30", "1/20"))
        compare(expression, zone, LAST - YEARS * 365 * DAY, LAST, chance)


def compare(expression: str, zone: str, start: int, end: int, chance: Random) -> None:
    """Hold all due times between two times, and the ways to ask for them, to the scan."""
    start, end = start // 60 * 60, end // 60 * 60
    crontab = compile_cron(expression, zone)
    expected = [time * 1000 for time in scan(expression, zone, start, end)]
    asked = f"{expression} in {zone} from {datetime.fromtimestamp(start, UTC)}"
    found: list[int] = []
    time = crontab.after(start * 1000 - 1)
    while time is not None and time < end * 1000:
        found.append(time)
        time = crontab.after(time)
    assert found == expected, asked
    middle = (start + end) // 2 * 1000
    for place in range(6):
        near = (middle - HOUR * 2000, middle + HOUR * 2000) if place % 2 else (start * 1000, end * 1000)
        moment = chance.randrange(*near)
        place = bisect_right(expected, moment)
        if place < len(expected):
            assert crontab.after(moment) == expected[place], asked
        most = chance.choice((1, 7, 100))
        assert crontab.between(start * 1000 - 1, moment, most) == expected[:place][-most:], asked


MINUTES: Final = ("*", "*/7", "0", "30", "59", "0,30", "5-55/10", "0-59", "17", "1/20")


def made_up(chance: Random, six: bool, minutes: Sequence[str] = MINUTES) -> str:
    """Return an expression that is due often in the hours in which clocks are shifted."""
    hours = chance.choice(
        ("*", "*/2", "0", "1", "2", "3", "0-4", "1,2,3", "2/3", "0-23", "23,0", str(chance.randrange(24)))
    )
    days = chance.choice(("*", "*", "*", "*/2", "1-7", "8-31", "29,30,31", str(chance.randint(1, 31))))
    months = chance.choice(("*", "*", "*", "*", "mar-nov", "1-6", "Oct", "*/3"))
    weekdays = chance.choice(("*", "*", "*", "0", "7", "sun", "mon-fri", "5-7", "*/2"))
    seconds = [chance.choice(("*", "0", "30", "*/15", "0,59", "10-20/5"))] if six else []
    return " ".join([*seconds, chance.choice(minutes), hours, days, months, weekdays])
