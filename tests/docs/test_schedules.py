"""The page on schedules: its tables are what the server does."""

import json
import re
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from hurlbat.policy import TaskPolicy
from hurlbat_app.api.schedules import _SPEC
from hurlbat_dispatcher.crontab import ALIASES, compile_cron
from tests.docs.pages import blocks
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "schedules.md"
BERLIN = ZoneInfo("Europe/Berlin")
DAYS = (datetime(2027, 3, 28, tzinfo=BERLIN), datetime(2027, 10, 31, tzinfo=BERLIN))


def test_what_is_due_on_the_days_of_the_clocks_is_as_the_table_says() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| (.+?) \|$", _section("## When clocks change"), re.MULTILINE)
    assert len(rows) == 5
    for expression, *told in rows:
        assert [_due(expression, day) for day in DAYS] == told


def test_the_aliases_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| (`@.+?) \| `(.+?)` \|$", _section("## Expressions"), re.MULTILINE)
    told = {alias: expression for aliases, expression in rows for alias in re.findall(r"`(@\w+)`", aliases)}
    assert told == ALIASES


def test_the_examples_are_what_the_server_takes() -> None:
    policy, body, *_ = [json.loads(block.text) for block in blocks(PAGE, "json")]
    [cron] = TaskPolicy(**policy).crons
    assert compile_cron(cron.expression, cron.timezone).after(0)
    assert body.keys() <= _SPEC
    assert compile_cron(body["expression"], body["timezone"]).after(0)


def _due(expression: str, day: datetime) -> str:
    begin, end = (int(time.timestamp() * 1000) for time in (day, day + timedelta(days=1)))
    times = compile_cron(expression, "Europe/Berlin").between(begin - 1, end - 1, 100)
    told = [datetime.fromtimestamp(time / 1000, BERLIN).isoformat()[11:] for time in times]
    return ", ".join(f"{time[:5]}{time[8:]}" for time in told) or "none"


def _section(heading: str) -> str:
    return PAGE.read_text().split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
