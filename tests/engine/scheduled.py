"""Schedules as the tests make them, let them be due, and look at them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hurlbat_dispatcher import (
    Run,
    Schedule,
    ScheduleFire,
    ScheduleSpec,
)
from hurlbat_dispatcher.store.runs import database_now
from tests.engine.world import World

YEARLY = "0 0 1 1 *"
SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000
DAY = 24 * HOUR


async def now_of(world: World) -> int:
    return await world.parts.database.read(database_now())


async def make(world: World, name: str = "s", **more: Any) -> Schedule:
    """Make a schedule of `echo`; where nothing is said, it is not due for long."""
    spec: dict[str, Any] = {"task": "echo"} | ({} if "run_at" in more else {"expression": YEARLY}) | more
    schedule, created = await world.engine.schedules.create(ScheduleSpec(name=name, **spec))
    assert created
    return schedule


async def make_hourly(world: World, ago: int, **more: Any) -> int:
    """Make a schedule that was due so many ms ago, and each hour before and after; return that time."""
    due_at = (await now_of(world) - ago) // SECOND * SECOND
    moment = datetime.fromtimestamp(due_at / 1000, UTC)
    await make(world, expression=f"{moment.second} {moment.minute} * * * *", **more)
    return due_at


async def was_due(world: World, due_at: int, name: str = "s") -> None:
    """Let a schedule wait since then, and the engine look."""
    await world.change(f"UPDATE schedule SET next_at = {due_at} WHERE name = '{name}'")
    await world.tick()


async def fires_again(world: World, due_at: int) -> None:
    """Let an hour be over, in which the schedule `s` was due once."""
    await world.change(f"UPDATE schedule_fire SET due_at = due_at - {HOUR}")
    await was_due(world, due_at)


async def fires(world: World, name: str = "s") -> Sequence[ScheduleFire]:
    return (await world.engine.schedules.fires(name, limit=1000)).items


async def outcomes(world: World, name: str = "s") -> list[tuple[int, str]]:
    return [(one.due_at, one.outcome.value) for one in await fires(world, name)][::-1]


async def runs(world: World) -> list[Run]:
    """Return all runs, the oldest first."""
    return (await world.engine.list_runs(limit=1000)).items[::-1]
