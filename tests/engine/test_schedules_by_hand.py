"""Schedules that are triggered by hand, and those that are paused."""

import asyncio
import json

import pytest

from hurlbat_dispatcher import (
    Engine,
    NotFound,
    Outside,
)
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.schedules import Missed
from tests.engine.scheduled import (
    HOUR,
    SECOND,
    fires,
    make,
    make_hourly,
    now_of,
    outcomes,
    runs,
)
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio


# -- by hand -----------------------------------------------------------------------------------------------------------


async def test_a_schedule_is_triggered_by_hand_as_often_as_one_likes(world: World) -> None:
    await world.worker()
    before = await make(world, input="[1]")
    schedules = world.engine.schedules

    first, *others = await asyncio.gather(*(schedules.trigger("s") for _ in range(5)))
    await world.ended(first)

    after = await schedules.get("s")
    assert (first.input, json.loads(first.trigger or "{}")["manual"], len({run.id for run in others})) == (
        "[1]",
        True,
        4,
    )
    assert (after.next_at, after.last_at) == (before.next_at, None)
    assert [(one.manual, one.outcome) for one in await fires(world)] == [(True, "started")] * 5
    assert len({one.due_at for one in await fires(world)}) == 5
    assert len(await runs(world)) == 5


class Stopped(SystemClock):
    """A clock that stands still."""

    def __init__(self) -> None:
        self.stopped_at = super().now_ms()

    def now_ms(self) -> int:
        return self.stopped_at


async def test_a_schedule_is_triggered_twice_in_one_moment(sqlite_url: str) -> None:
    world = World(sqlite_url)
    clock = Stopped()
    world.engine = Engine(world.settings, Outside(clock=clock, network=world.network.transport()))
    async with world:
        await world.worker()
        await make(world)
        schedules = world.engine.schedules

        made = [*(await asyncio.gather(*(schedules.trigger("s") for _ in range(3)))), await schedules.trigger("s")]

        assert len({run.id for run in made}) == 4
        assert [one.due_at - clock.stopped_at for one in await fires(world)] == [3, 2, 1, 0]


async def test_what_is_not_there_cannot_be_triggered(local: World) -> None:
    problem = await refused(local.engine.schedules.trigger("nobody"))
    assert isinstance(problem, NotFound)
    assert problem.code == "schedule_unknown"


async def test_a_schedule_is_triggered_by_a_server_that_does_not_start_runs(owner: World, other: World) -> None:
    await owner.worker()
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    await make(other)

    run = await other.engine.schedules.trigger("s")

    assert (await owner.ended(run)).state == "completed"


async def test_the_server_that_starts_runs_learns_of_schedules_that_another_one_makes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.assembly.SWEEP_SHARED", 3600.0)
    async with World(postgres_url, lease=300.0) as owner, World(postgres_url, owner.network, lease=300.0) as other:
        await owner.until(lambda: owner.parts.desk.peers == (other.parts.desk.me,))
        await owner.worker()
        await other.until(lambda: "echo" in other.parts.registry.tasks)
        due_at = await now_of(owner) + 300

        await make(other, run_at=due_at)

        await owner.until(lambda: bool(owner.network.workers["w"].calls))  # nothing else lets it look so soon
        assert await outcomes(other) == [(due_at, "started")]


# -- pausing -----------------------------------------------------------------------------------------------------------


async def test_times_that_pass_while_a_schedule_is_paused_are_not_made_up_for(local: World) -> None:
    await local.worker()
    due_at = await make_hourly(local, 5 * SECOND, missed=Missed.ALL)
    schedules = local.engine.schedules

    paused = await schedules.pause("s")
    await local.tick()
    by_hand = await schedules.trigger("s")
    never = await schedules.next("s")
    resumed = await schedules.resume("s")

    assert (paused.paused, paused.next_at, never) == (True, None, [])
    assert (resumed.paused, resumed.next_at) == (False, due_at + HOUR)
    assert [run.id for run in await runs(local)] == [by_hand.id]


async def test_a_single_time_that_passed_in_a_pause_is_fired_at_its_end_and_no_second_time(local: World) -> None:
    await local.worker()
    schedules = local.engine.schedules
    await make(local, run_at=await now_of(local) + HOUR, missed=Missed.SKIP)
    await schedules.pause("s")
    passed = await now_of(local) - HOUR
    await local.change(f"UPDATE schedule SET run_at = {passed}")

    await schedules.resume("s")
    await local.until(lambda: bool(local.network.workers["w"].calls))
    await schedules.pause("s")
    again = await schedules.resume("s")
    await local.turns()

    assert again.next_at is None
    assert [outcome for _, outcome in await outcomes(local)] == ["started"]
