"""The crons of policies: they are made, changed and removed by registrations."""

from typing import Any

import pytest

from hurlbat_dispatcher import (
    Conflict,
    Invalid,
    Schedule,
)
from tests.engine.scheduled import DAY, YEARLY, make, now_of
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio


def cron(expression: str, **more: Any) -> dict[str, Any]:
    return {"expression": expression} | more


async def declare(world: World, plain: bool, *crons: dict[str, Any], task: str = "echo") -> None:
    """Let the worker `w` serve a task with these crons."""
    tasks: list[dict[str, Any]] = [{"name": task, "crons": list(crons)}]
    if "w" not in world.network.workers:
        await world.worker("w", *tasks, plain=plain)
        return
    fake = world.network.workers["w"]
    fake.tasks[:] = tasks
    await world.register(fake)
    if not plain:
        await world.engine.sync_worker("w")


async def listed(world: World) -> list[Schedule]:
    return (await world.engine.schedules.page()).items


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "protocol"])
async def test_the_crons_of_a_policy_are_schedules_that_come_and_go_with_it(world: World, plain: bool) -> None:
    tokyo = cron("0 9 * * 1", timezone="Asia/Tokyo", input={"a": [1]}, metadata={"m": 1}, priority=5, overlap="skip")
    await declare(world, plain, cron(YEARLY), tokyo, cron("@daily"))
    first = await listed(world)
    await make(world, "mine")
    await world.engine.schedules.pause("echo.1")
    await world.ended(await world.engine.schedules.trigger("echo.0"))
    pending = (first[0].next_at or 0) - DAY
    await world.change(f"UPDATE schedule SET next_at = {pending} WHERE name = 'echo.0'")

    await declare(world, plain, cron(YEARLY, input=7), tokyo | {"missed": "all"})
    second = {one.name: one for one in await listed(world)}
    await declare(world, plain, cron("@monthly"))
    third = {one.name: one for one in await listed(world)}

    assert [(one.name, one.task, one.source, one.expression) for one in first] == [
        ("echo.0", "echo", "task", YEARLY),
        ("echo.1", "echo", "task", "0 9 * * 1"),
        ("echo.2", "echo", "task", "@daily"),
    ]
    assert (first[1].timezone, first[1].input, first[1].metadata, first[1].priority) == (
        "Asia/Tokyo",
        '{"a":[1]}',
        '{"m":1}',
        5,
    )
    assert (first[1].missed, first[1].overlap, first[1].paused) == ("once", "skip", False)
    assert set(second) == {"echo.0", "echo.1", "mine"}
    assert (second["echo.0"].next_at, second["echo.0"].input) == (pending, "7")
    assert second["echo.0"].last_run is not None
    assert (second["echo.1"].paused, second["echo.1"].next_at, second["echo.1"].missed) == (True, None, "all")
    assert set(third) == {"echo.0", "mine"}
    assert third["echo.0"].expression == "@monthly"
    assert await now_of(world) < (third["echo.0"].next_at or 0) < await now_of(world) + 32 * DAY


async def test_a_pause_goes_with_its_times_to_another_place_and_to_no_others(local: World) -> None:
    await declare(local, True, cron(YEARLY))
    await local.engine.schedules.pause("echo.0")

    await declare(local, True, cron("@daily"), cron(YEARLY))

    assert [(one.name, one.paused, one.next_at is None) for one in await listed(local)] == [
        ("echo.0", False, False),
        ("echo.1", True, True),
    ]


async def test_the_schedule_of_a_task_that_nobody_serves_any_longer_can_be_deleted(local: World) -> None:
    await declare(local, True, cron(YEARLY))
    assert isinstance(await refused(local.engine.schedules.delete("echo.0")), Conflict)
    await local.engine.delete_worker("w")

    await local.engine.schedules.delete("echo.0")

    assert await listed(local) == []


async def test_the_schedules_of_a_policy_fire(local: World) -> None:
    await declare(local, False, cron("* * * * * *", input="hi"))

    await local.until(lambda: bool(local.network.workers["w"].calls))

    call = local.network.workers["w"].calls[0]
    assert (call.task, call.input) == ("echo", "hi")
    await local.engine.schedules.pause("echo.0")


async def test_a_registration_leaves_the_schedules_of_other_tasks_alone(local: World) -> None:
    await declare(local, False, cron(YEARLY))
    await local.worker("v", {"name": "other", "crons": [cron("@daily")]})

    await declare(local, False, task="another")

    assert [one.name for one in await listed(local)] == ["echo.0", "other.0"]


async def test_the_schedules_of_a_policy_are_changed_there_and_not_here(local: World) -> None:
    await declare(local, False, cron(YEARLY))
    schedules = local.engine.schedules

    problems = [await refused(schedules.update("echo.0", {"input": "1"})), await refused(schedules.delete("echo.0"))]

    assert [getattr(problem, "code", None) for problem in problems] == ["schedule_of_task"] * 2
    assert (await schedules.get("echo.0")).input == "null"


async def test_a_policy_with_a_cron_that_cannot_be_is_refused_with_what_is_wrong(local: World) -> None:
    sentence = "task echo: crons[1].expression: The cron expression '0 0 30 2 *' never fires"
    wrong = [cron(YEARLY), cron("0 0 30 2 *")]

    with pytest.raises(Invalid, match="crons") as plainly:
        await declare(local, True, *wrong)
    local.network.workers.clear()
    await declare(local, False, *wrong)
    worker = await local.engine.get_worker("w")

    assert str(plainly.value).startswith(sentence)
    assert worker.state == "rejected"
    assert sentence in (worker.problem or "")
    assert await listed(local) == []
