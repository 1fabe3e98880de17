"""A server in trouble asks its database now and then, and says what is wrong once."""

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog.testing

from hurlbat_dispatcher import Engine, Outside, Settings, Unavailable
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.loops import every
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.store.sqlite import SqliteDatabase
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.writer import TROUBLE_WAIT

pytestmark = pytest.mark.anyio

T = TypeVar("T")


class Flaky(SqliteDatabase):
    """A database that can be told to fail, and counts how often it was asked then."""

    failing = False
    asked = 0

    async def write(self, script: Script[T]) -> T:
        if self.failing:
            self.asked += 1
            script.close()
            raise DatabaseTrouble("of no use today")
        return await super().write(script)


async def test_a_server_in_trouble_asks_its_database_twice_a_second(tmp_path: Path, sqlite_url: str) -> None:
    made: list[Flaky] = []
    loop = asyncio.get_running_loop()

    def database(url: str, clock: Any, _: float) -> Flaky:
        made.append(Flaky(url, clock))
        return made[0]

    engine = Engine(Settings(database_url=sqlite_url, lease=3600), Outside(database=database))
    await engine.start()
    with structlog.testing.capture_logs() as logs:
        made[0].failing = True
        for _ in range(3):
            with pytest.raises(Unavailable, match="of no use today"):
                await engine.cancel_run("0199a3c0-0000-7000-8000-000000000001")
        before, began = made[0].asked, loop.time()
        async with asyncio.timeout(60):
            while made[0].asked - before < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert made[0].asked - before <= (loop.time() - began) / TROUBLE_WAIT + 1
        with pytest.raises(Unavailable, match="of no use today"):
            engine.ready()
        made[0].failing = False
        async with asyncio.timeout(60):
            while not any(entry["event"] == "the database works again" for entry in logs):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        engine.ready()
    assert [entry["event"] for entry in logs] == ["the database is in trouble", "the database works again"]
    await engine.stop(0)


async def test_a_duty_that_waits_for_the_database_says_so_once_each_time() -> None:
    turns = iter([DatabaseTrouble("away"), DatabaseTrouble("away"), None, DatabaseTrouble("away again"), None])

    async def run_once() -> None:
        trouble = next(turns, asyncio.CancelledError())
        if trouble is not None:
            raise trouble

    with structlog.testing.capture_logs() as logs, pytest.raises(asyncio.CancelledError):
        await every(0, SystemClock(), "sweep", run_once)
    said = [(entry["event"], entry["detail"]) for entry in logs]
    assert said == [("a background duty waits for the database", detail) for detail in ("away", "away again")]
