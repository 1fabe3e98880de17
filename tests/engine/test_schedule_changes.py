"""Schedules are made, changed, removed and listed."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from hurlbat_dispatcher import (
    Conflict,
    Invalid,
    NotFound,
    ScheduleSpec,
)
from hurlbat_dispatcher.domain.schedules import Missed
from hurlbat_dispatcher.loops.retention import Retention
from tests.engine.scheduled import (
    DAY,
    MINUTE,
    SECOND,
    YEARLY,
    fires,
    make,
    make_hourly,
    runs,
    was_due,
)
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio


async def test_the_same_schedule_is_made_once_and_another_of_its_name_is_refused(local: World) -> None:
    await local.worker()
    first = await make(local, input="1")
    schedules = local.engine.schedules
    await schedules.pause("s")

    same, created = await schedules.create(ScheduleSpec("echo", "s", YEARLY, input="1"))
    problem = await refused(schedules.create(ScheduleSpec("echo", "s", YEARLY, input="2")))

    assert (same.created_at, same.paused, created) == (first.created_at, True, False)
    assert isinstance(problem, Conflict)
    assert problem.code == "schedule_exists"


async def test_schedules_that_are_made_at_once_under_one_name_are_one(owner: World, other: World) -> None:
    await owner.worker()
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    spec = ScheduleSpec("echo", "s", YEARLY)

    made = await asyncio.gather(*(world.engine.schedules.create(spec) for world in (owner, other) * 3))

    assert sorted(created for _, created in made) == [False] * 5 + [True]


async def test_a_schedule_without_a_name_gets_one_of_its_own(local: World) -> None:
    await local.worker()
    spec = ScheduleSpec("echo", expression=YEARLY)

    made = [await local.engine.schedules.create(spec) for _ in range(2)]

    assert [created for _, created in made] == [True, True]
    assert len({schedule.name for schedule, _ in made}) == 2


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such task": ({"task": "nobody", "expression": YEARLY}, "task_unknown", "task"),
    "neither time": ({}, "member_missing", "expression"),
    "both times": ({"expression": YEARLY, "run_at": 1}, "member_invalid", "run_at"),
    "a bad expression": ({"expression": "* * *"}, "cron_invalid", "expression"),
    "a bad zone": ({"expression": YEARLY, "timezone": "Mars"}, "timezone_unknown", "timezone"),
    "a bad zone without need": ({"run_at": 1, "timezone": "Mars"}, "timezone_unknown", "timezone"),
    "a time in the far past": ({"run_at": 0}, "member_invalid", "run_at"),
    "a name of a policy's": ({"name": "echo.0", "expression": YEARLY}, "member_invalid", "name"),
}


async def test_what_cannot_be_is_refused_and_nothing_is_stored(local: World) -> None:
    await local.worker()

    told = {}
    for how, (said, _, _) in WRONG.items():
        problem = await refused(local.engine.schedules.create(ScheduleSpec(**({"task": "echo"} | said))))
        assert isinstance(problem, Invalid), how
        told[how] = (said, problem.code, problem.extra["field"])

    assert told == WRONG
    assert (await local.engine.schedules.page()).items == []


async def test_a_change_of_the_times_counts_from_now_and_other_changes_leave_them(local: World) -> None:
    await local.worker("w", "echo", "other")
    due_at = await make_hourly(local, 10 * MINUTE)
    schedules = local.engine.schedules
    await was_due(local, due_at)
    before = await schedules.get("s")

    same_times = await schedules.update("s", {"input": "5", "missed": Missed.SKIP, "priority": 3, "task": "other"})
    other_times = await schedules.update("s", {"expression": "0 0 1 1 *", "timezone": "Asia/Tokyo"})
    once = await schedules.update("s", {"run_at": before.next_at})
    cron = await schedules.update("s", {"expression": YEARLY})

    assert (same_times.next_at, same_times.input, same_times.priority) == (before.next_at, "5", 3)
    assert (same_times.task, same_times.last_run, same_times.missed) == ("other", before.last_run, "skip")
    tokyo = datetime.fromtimestamp((other_times.next_at or 0) / 1000, UTC)
    assert (tokyo.month, tokyo.day, tokyo.hour) == (12, 31, 15)
    assert (once.expression, once.run_at, once.next_at) == (None, before.next_at, before.next_at)
    assert (cron.expression, cron.run_at, cron.timezone) == (YEARLY, None, "Asia/Tokyo")
    first, second = await schedules.next("s", 2)
    assert first == other_times.next_at
    assert (second - first) // DAY in (365, 366)


async def test_a_paused_schedule_stays_paused_through_a_change(local: World) -> None:
    await local.worker()
    await make(local)
    await local.engine.schedules.pause("s")

    changed = await local.engine.schedules.update("s", {"expression": "* * * * *"})

    assert (changed.paused, changed.next_at) == (True, None)
    assert (await local.engine.schedules.resume("s")).next_at is not None


async def test_a_change_that_cannot_be_changes_nothing(local: World) -> None:
    await local.worker()
    before = await make(local)
    changes: list[dict[str, Any]] = [
        {"expression": "0 0 30 2 *"},
        {"timezone": "Mars"},
        {"task": "nobody"},
        {"run_at": 1},
    ]

    problems = [await refused(local.engine.schedules.update("s", one)) for one in changes]

    codes = [problem.code for problem in problems if isinstance(problem, Invalid)]
    assert codes == ["cron_invalid", "timezone_unknown", "task_unknown", "member_invalid"]
    assert await local.engine.schedules.get("s") == before


async def test_a_schedule_that_is_deleted_fires_no_more_and_its_runs_stay(local: World) -> None:
    await local.worker()
    due_at = await make_hourly(local, 5 * SECOND)
    await was_due(local, due_at)

    await local.engine.schedules.delete("s")

    problem = await refused(local.engine.schedules.get("s"))
    assert isinstance(problem, NotFound)
    assert len(await runs(local)) == 1
    await make(local)
    assert await fires(local) == []  # they were another one's


async def test_schedules_and_their_fires_come_in_pages(local: World) -> None:
    await local.worker("w", "echo", "other")
    schedules = local.engine.schedules
    for name in ("c", "a", "b"):
        await make(local, name, task="other" if name == "b" else "echo")
    await schedules.pause("c")
    for _ in range(3):
        await schedules.trigger("a")

    first = await schedules.page(limit=2)
    rest = await schedules.page(cursor=first.next_cursor, limit=2)
    some = await schedules.fires("a", limit=2)
    others = await schedules.fires("a", cursor=some.next_cursor, limit=2)

    assert [[one.name for one in page.items] for page in (first, rest)] == [["a", "b"], ["c"]]
    assert (rest.next_cursor, others.next_cursor) == (None, None)
    assert [one.name for one in (await schedules.page(task="echo", paused=False)).items] == ["a"]
    assert [one.name for one in (await schedules.page(paused=True)).items] == ["c"]
    times = [one.due_at for one in (*some.items, *others.items)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
    problem = await refused(schedules.fires("a", cursor="none of ours"))
    assert isinstance(problem, Invalid)


async def test_what_came_of_old_times_goes_but_not_while_its_run_is_alive(world: World) -> None:
    await world.worker("w", "echo", "other")
    await world.engine.limits.pause_task("other")
    await make(world)
    await make(world, "held", task="other")
    await world.ended(await world.engine.schedules.trigger("s"))
    await world.engine.schedules.trigger("held")
    await world.change(f"UPDATE schedule_fire SET fired_at = fired_at - {DAY}")

    await Retention(1, world.parts.database, world.parts.clock, seconds=DAY / 2000).run_once()

    assert [row[0] for row in await world.rows("SELECT schedule FROM schedule_fire")] == ["held"]
