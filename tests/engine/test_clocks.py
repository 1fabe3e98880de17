"""Hosts whose clocks are wrong: everything goes by the database's."""

import time
import uuid

import httpx
import pytest
from structlog.testing import capture_logs

from hurlbat_dispatcher import Engine, Outside, RunState
from hurlbat_dispatcher.clock import SystemClock
from tests.engine.far_side import Call, accepted
from tests.engine.world import World

pytestmark = pytest.mark.anyio

AN_HOUR_MS = 3_600_000


class Wrong(SystemClock):
    """A clock that is ahead by an hour."""

    def now_ms(self) -> int:
        return super().now_ms() + AN_HOUR_MS


async def test_a_server_an_hour_ahead_warns_and_works_by_the_clock_of_the_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.clock.PROMPT", 20.0)  # a slow answer says enough of an hour
    world = World(postgres_url)
    world.engine = Engine(world.settings, Outside(clock=Wrong(), network=world.network.transport()))
    with capture_logs() as logs:
        async with world:
            worker = await world.worker("w", {"name": "echo", "retries": 1})  # it refuses signatures of another hour
            run = await world.ended(await world.submit(ttl=60.0))
            await world.parts.lease.run_once()
    assert (run.state, run.attempt, len(worker.calls)) == (RunState.COMPLETED, 1, 1)
    now = time.time() * 1000
    assert abs(run.created_at - now) < 60_000
    assert abs((uuid.UUID(run.id).int >> 80) - now) < 60_000
    said = [entry["ahead_seconds"] for entry in logs if "clock" in entry["event"]]
    assert [round(ahead / 60) for ahead in said] == [60]


class SetAhead(SystemClock):
    """A clock that the test sets ahead."""

    ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def test_a_clock_that_is_set_ahead_ends_no_lease_and_starts_nothing_twice(sqlite_url: str) -> None:
    clock = SetAhead()
    world = World(sqlite_url)
    world.engine = Engine(world.settings, Outside(clock=clock, network=world.network.transport()))

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    async with world:
        worker = await world.worker("w", {"name": "echo", "retries": 3})
        worker.answer = accept
        detached, stopping = await world.submit(), await world.submit()
        await world.until_detached(detached)
        await world.until_detached(stopping)
        await world.engine.cancel_run(stopping.id)
        clock.ahead_ms = AN_HOUR_MS
        await world.tick(sweep=True)
        call = next(call for call in worker.calls if call.run_id == detached.id)
        await world.engine.report_complete(detached.id, 1, call.lease_token, "5", b"digest")
        ended = await world.ended(detached)
    assert (ended.output, ended.attempt, ended.tries) == ("5", 1, 1)
    assert len(worker.calls) == 2
