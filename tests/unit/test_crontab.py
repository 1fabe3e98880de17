"""When a crontab expression is due, by hand-made examples, and what is said of one that is wrong."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from hurlbat_dispatcher.crontab import CronInvalid, compile_cron


def ms(text: str, zone: str = "UTC") -> int:
    time = datetime.fromisoformat(text)
    return round((time if time.tzinfo else time.replace(tzinfo=ZoneInfo(zone))).timestamp() * 1000)


def said(time: int, zone: str) -> str:
    return datetime.fromtimestamp(time / 1000, ZoneInfo(zone)).strftime("%m-%d %H:%M:%S%z")


def due(expression: str, zone: str, start: str, count: int) -> list[str]:
    """Return the next due times as they are said there."""
    crontab, time, found = compile_cron(expression, zone), ms(start, zone), []
    for _ in range(count):
        after = crontab.after(time)
        assert after is not None
        found.append(said(time := after, zone))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40"]),
        ("5/25 * * * *", ["01-01 00:05", "01-01 00:30"]),
        ("0 9-17/4 * * *", ["01-01 09:00", "01-01 13:00"]),
        ("15,45 6 * * *", ["01-01 06:15", "01-01 06:45"]),
        ("0 0 * * 7", ["01-03 00:00", "01-10 00:00"]),
        ("0 0 * * 0", ["01-03 00:00", "01-10 00:00"]),
        ("0 0 * * mon-Wed", ["01-04 00:00", "01-05 00:00"]),
        ("0 0 1 feb,OCT *", ["02-01 00:00", "10-01 00:00"]),
        ("0 0 13 * FRI", ["01-08 00:00", "01-13 00:00"]),
        ("0 0 */10 * FRI", ["05-21 00:00", "06-11 00:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00"]),
        ("30 * * * * *", ["01-01 00:00:30", "01-01 00:01:30"]),
        ("*/40 59 23 * * *", ["01-01 23:59:00", "01-01 23:59:40"]),
        ("@yearly", ["01-01 00:00", "01-01 00:00"]),
        ("@Annually", ["01-01 00:00", "01-01 00:00"]),
        ("@monthly", ["02-01 00:00", "03-01 00:00"]),
        ("@WEEKLY", ["01-03 00:00", "01-10 00:00"]),
        ("@daily", ["01-02 00:00", "01-03 00:00"]),
        ("@midnight", ["01-02 00:00", "01-03 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00"]),
        (" 0\t12  *  * * ", ["01-01 12:00", "01-02 12:00"]),
    ],
)
def test_an_expression_is_read_as_in_crontab(expression: str, expected: list[str]) -> None:
    found = due(expression, "UTC", "2027-01-01T00:00:00", 2)
    assert found == [f"{(time + ':00')[:14]}+0000" for time in expected]


@pytest.mark.parametrize(
    ("expression", "start", "expected"),
    [
        ("30 2 * * *", "2027-03-27T12:00", ["03-28 03:00:00+0200", "03-29 02:30:00+0200"]),
        ("0 30 2 * * *", "2027-03-27T12:00", ["03-28 03:00:00+0200", "03-29 02:30:00+0200"]),
        ("0,30 2,3 * * *", "2027-03-28T00:00", ["03-28 03:00:00+0200", "03-28 03:30:00+0200", "03-29 02:00:00+0200"]),
        ("*/30 2 * * *", "2027-03-27T12:00", ["03-29 02:00:00+0200", "03-29 02:30:00+0200"]),
        ("30 * * * *", "2027-03-28T01:00", ["03-28 01:30:00+0100", "03-28 03:30:00+0200"]),
        ("30 2 * * *", "2027-10-30T12:00", ["10-31 02:30:00+0200", "11-01 02:30:00+0100"]),
        ("*/30 2 * * *", "2027-10-31T02:10", ["10-31 02:30:00+0200", "10-31 02:00:00+0100", "10-31 02:30:00+0100"]),
        ("30 * * * *", "2027-10-31T02:00", ["10-31 02:30:00+0200", "10-31 02:30:00+0100", "10-31 03:30:00+0100"]),
    ],
)
def test_a_shift_of_the_clock_leaves_out_and_doubles_nothing_at_a_fixed_time(
    expression: str, start: str, expected: list[str]
) -> None:
    assert due(expression, "Europe/Berlin", start, len(expected)) == expected


def test_an_hour_after_a_shift_by_half_an_hour_is_whole() -> None:
    found = due("*/15 5 * * *", "Australia/Lord_Howe", "2027-04-04T00:10", 4)
    assert found == [f"04-04 05:{minute}:00+1030" for minute in ("00", "15", "30", "45")]


def test_what_would_be_due_at_a_midnight_that_is_not_there_is_due_when_the_day_begins() -> None:
    assert due("0 0 * * *", "Africa/Cairo", "2027-04-29T12:00", 2) == ["04-30 01:00:00+0300", "05-01 00:00:00+0300"]
    assert due("*/30 0 * * *", "Africa/Cairo", "2027-04-29T12:00", 1) == ["05-01 00:00:00+0300"]


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        ("*/30 2 25 10 *", "Europe/Berlin", "2026-10-25T02:40:00+02:00", "10-25 02:00:00+0100"),
        ("*/30 1 25 10 *", "Antarctica/Troll", "2026-10-25T01:40:00+02:00", "10-25 01:00:00+0000"),
    ],
)
def test_what_comes_again_is_seen_where_the_next_time_is_a_year_away(
    expression: str, zone: str, start: str, expected: str
) -> None:
    assert due(expression, zone, start, 1) == [expected]


def test_three_hours_that_are_leapt_over_are_no_shift_to_summer() -> None:
    assert due("30 3 * * *", "Antarctica/Casey", "2009-10-17T12:00", 1) == ["10-19 03:30:00+1100"]


def test_a_day_that_a_land_left_out_is_left_out() -> None:
    assert due("0 12 * * *", "Pacific/Apia", "2011-12-28T13:00", 2) == ["12-29 12:00:00-1000", "12-31 12:00:00+1400"]


def test_a_time_that_comes_twice_is_not_due_again_from_within_the_second_hour() -> None:
    crontab = compile_cron("50 2 * * *", "Europe/Berlin")
    again = ms("2027-10-31T02:45:00+01:00")
    assert crontab.after(again) == ms("2027-11-01T02:50:00+01:00")


@pytest.mark.parametrize("expression", ["* * * * * *", "*/7 * * * *", "30 2 * * *", "0-59 0-23 * * *"])
@pytest.mark.parametrize("day", ["2027-03-28", "2027-10-31"])
def test_the_next_due_time_is_always_later_to_the_millisecond(expression: str, day: str) -> None:
    crontab = compile_cron(expression, "Europe/Berlin")
    for start in range(ms(f"{day}T00:00Z"), ms(f"{day}T02:00Z"), 599_999):
        found = crontab.after(start)
        assert found is not None
        assert found > start
        assert found % 1000 == 0
        assert crontab.after(found - 1) == found
        assert crontab.after(found) != found


def test_a_due_time_is_found_only_once_across_a_whole_shift() -> None:
    crontab = compile_cron("0-59 * * * *", "Europe/Berlin")
    times, time = [], ms("2027-10-30T23:59Z")
    while time < ms("2027-10-31T03:00Z"):
        time = crontab.after(time) or 0
        times.append(time)
    assert {later - earlier for earlier, later in pairwise(times)} == {60_000}


def test_the_newest_of_many_due_times_are_found_in_order_and_at_little_cost() -> None:
    until = ms("2027-07-01T00:00Z")
    january = compile_cron("* * * * 1 *")
    assert january.between(0, until, 2) == [ms("2027-01-31T23:59:58Z"), ms("2027-01-31T23:59:59Z")]
    each_second = compile_cron("* * * * * *")
    assert each_second.between(0, until, 3) == [until - 2000, until - 1000, until]
    assert each_second.between(until - 1001, until, 1000) == [until - 1000, until]
    assert each_second.between(until, until + 999, 5) == []


def test_all_due_times_between_two_times_are_those_after_one_another() -> None:
    for expression in ("0 0 * * 5", "30 2 * * *", "*/30 2 * * *", "0 0 29 2 *"):
        crontab = compile_cron(expression, "Europe/Berlin")
        start, until = ms("2023-01-01T00:00Z"), ms("2027-10-31T01:10Z")
        times, time = [], start
        while (time := crontab.after(time) or until + 1) <= until:
            times.append(time)
        assert crontab.between(start, until, 10_000) == times
        assert crontab.between(start, until, 2) == times[-2:]


def test_a_trigger_says_the_time_in_its_own_zone() -> None:
    crontab = compile_cron("0 9 * * *", "Asia/Tokyo")
    now = datetime(2027, 1, 1, 0, 0, tzinfo=UTC)
    first = crontab.get_next_fire_time(None, now)
    assert first == now  # the first may be now
    assert first.utcoffset() == timedelta(hours=9)
    assert crontab.get_next_fire_time(first, now) == now + timedelta(days=1)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "5 fields (minute hour day-of-month month day-of-week), or 6 with seconds first; '' has 0"),
        ("* * * *", "has 4"),
        ("1 2 3 4 5 6 7 8", "has 8"),
        ("0 0 30 2 *", "'0 0 30 2 *' never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        ("0 0 12 * * 2027", "ends with a year, and years are not supported: it has 5 fields (minute hour"),
        ("0 12 * * * 2027-2030", "or 6 with seconds first; leave the year out"),
        ("0 0 12 * * ? 2027", "years are not supported"),
        ("60 * * * * *", "The second field '60'"),
        ("60 * * * *", "The minute field '60' of the cron expression '60 * * * *' cannot be read: write 0 to 59"),
        ("* 24 * * *", "The hour field '24'"),
        ("* * 0 * *", "The day-of-month field '0'"),
        ("* * * JANUARY *", "The month field 'JANUARY'"),
        ("* * * * 8", "The day-of-week field '8'"),
        ("* * * * ?", "The day-of-week field '?'"),
        ("* * * * FRI-MON", "ranges from low to high"),
        ("*/0 * * * *", "The minute field '*/0'"),
        ("1, * * * *", "The minute field '1,'"),
        ("-5 * * * *", "The minute field '-5'"),
        ("1.5 * * * *", "The minute field '1.5'"),
        ("² * * * *", "The minute field '²'"),
        ("* * * * FRı", "The day-of-week field 'FRı'"),
        ("@reboot", "'@reboot' is not known as a cron expression; use one of @yearly"),
        ("@every 5m", "'@every 5m' is not known"),
    ],
)
def test_an_expression_that_is_wrong_is_told_what_is_wrong(expression: str, words: str) -> None:
    with pytest.raises(CronInvalid) as refused:
        compile_cron(expression, "UTC")
    assert words in str(refused.value)
    assert refused.value.field == "expression"


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        ("europe/berlin", "There is no time zone 'europe/berlin' in the IANA database; did you mean Europe/Berlin?"),
        ("Europe/Berlinn", "did you mean Europe/Berlin?"),
        ("berlin", "did you mean Europe/Berlin?"),
        ("utc", "did you mean UTC?"),
        ("+02:00", "write UTC, or one like Europe/Berlin"),
        ("CEST", "write UTC, or one like Europe/Berlin"),
        ("EDT", "write UTC, or one like Europe/Berlin"),
        ("GMT+2", "write UTC, or one like Europe/Berlin"),
        ("", "write UTC"),
        ("../../etc/passwd", "There is no time zone"),
        ("/etc/localtime", "There is no time zone"),
        ("localtime", "There is no time zone"),
        ("Factory", "There is no time zone"),
        ("\x00", "There is no time zone"),
    ],
)
def test_a_time_zone_that_is_unknown_is_told_what_to_write(zone: str, words: str) -> None:
    with pytest.raises(CronInvalid) as refused:
        compile_cron("* * * * *", zone)
    assert words in str(refused.value)
    assert refused.value.field == "timezone"
