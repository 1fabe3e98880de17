"""Rate limits and pauses take effect at once, whichever server is told, and are not lost with it."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hurlbat_dispatcher import Conflict, Engine, NotFound, Problem, Unavailable
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

AN_HOUR_MS = 3_600_000
LIMITED = {"name": "echo", "rate_limits": [{"key": "cdn"}]}
DYNAMIC = {"name": "echo", "rate_limits": [{"dynamic_key": "input.k", "limit": 5, "duration": 3600}]}

Change = Callable[[Engine], Awaitable[Any]]
HELD_BY: dict[str, tuple[Change, Change]] = {
    "a limit of 0": (
        lambda engine: engine.limits.put("cdn", 0, AN_HOUR_MS),
        lambda engine: engine.limits.put("cdn", 5, AN_HOUR_MS),
    ),
    "a paused key": (lambda engine: engine.limits.pause("cdn"), lambda engine: engine.limits.resume("cdn")),
    "a paused task": (
        lambda engine: engine.limits.pause_task("echo"),
        lambda engine: engine.limits.resume_task("echo"),
    ),
}


@pytest.mark.parametrize("how", HELD_BY)
async def test_runs_are_held_until_it_is_taken_back_and_through_a_restart(world: World, how: str) -> None:
    hold, let_go = HELD_BY[how]
    await world.engine.limits.put("cdn", 5, AN_HOUR_MS)
    await world.worker("w", LIMITED, "other")
    await hold(world.engine)
    run, free = await world.submit(), await world.submit("other")
    await world.ended(free)
    await world.engine.stop(0)
    await world.restart()
    await world.ended(await world.submit("other"))
    held = await world.engine.get_run(run.id)

    await let_go(world.engine)

    assert held.state == "queued"
    assert (await world.ended(run)).state == "completed"


@pytest.mark.parametrize("how", HELD_BY)
async def test_another_server_s_word_holds_and_lets_go(owner: World, other: World, how: str) -> None:
    hold, let_go = HELD_BY[how]
    await owner.engine.limits.put("cdn", 5, AN_HOUR_MS)
    await owner.worker("w", LIMITED, "other")
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    before = owner.parts.registry.limits, owner.parts.registry.pauses, owner.parts.registry.tasks
    await hold(other.engine)
    registry = owner.parts.registry
    await owner.until(lambda: before != (registry.limits, registry.pauses, registry.tasks))
    await owner.turns()
    run, free = await owner.submit(), await owner.submit("other")
    await owner.ended(free)
    held = await owner.engine.get_run(run.id)

    await let_go(other.engine)

    assert held.state == "queued"
    assert (await owner.ended(run)).state == "completed"


async def test_only_the_server_that_starts_runs_counts_them(owner: World, other: World) -> None:
    await owner.worker("w", {"name": "echo", "rate_limits": [*LIMITED["rate_limits"], *DYNAMIC["rate_limits"]]})
    await owner.engine.limits.put("cdn", 5, AN_HOUR_MS)
    await other.until(lambda: "cdn" in other.parts.registry.limits)
    await owner.ended(await owner.submit(input='{"k": "a"}'))

    counted, elsewhere = await owner.engine.limits.get("cdn"), await other.engine.limits.get("cdn")
    [dynamic] = (await owner.engine.limits.dynamic_page()).items
    [dynamic_elsewhere] = (await other.engine.limits.dynamic_page()).items

    assert (counted.used, elsewhere.used, elsewhere.limit) == (1, None, 5)
    assert (dynamic.key, dynamic.used, dynamic.limit, dynamic.duration) == ("a", 1, 5, AN_HOUR_MS)
    assert (dynamic_elsewhere.key, dynamic_elsewhere.used) == ("a", None)


async def test_what_was_used_outlasts_the_server_and_counts_on_when_the_limit_changes(world: World) -> None:
    await world.engine.limits.put("cdn", 2, AN_HOUR_MS)
    await world.worker("w", LIMITED)
    await world.all_ended(await world.submit_all(2))
    await world.engine.stop(0)
    await world.restart()
    held = await world.submit()
    await world.turns()
    used = (await world.engine.limits.get("cdn")).used

    raised, created = await world.engine.limits.put("cdn", 3, AN_HOUR_MS)

    assert (used, created, raised.limit) == (2, False, 3)
    assert (await world.ended(held)).state == "completed"
    assert (await world.engine.limits.get("cdn")).used == 3


async def test_a_pause_of_a_dynamic_key_holds_one_value_in_all_durations(local: World) -> None:
    policy = {"name": "echo", "rate_limits": [{"dynamic_key": "input.k", "limit": 5, "duration": "input.d"}]}
    await local.worker("w", policy)
    await local.engine.limits.pause("a", dynamic=True)
    held = [await local.submit(input=f'{{"k": "a", "d": {seconds}.0}}') for seconds in (60, 3600)]
    await local.ended(await local.submit(input='{"k": "b", "d": 60.0}'))

    states = [(await local.engine.get_run(run.id)).state for run in held]
    await local.engine.limits.resume("a", dynamic=True)

    assert states == ["queued", "queued"]
    assert [run.state for run in await local.all_ended(held)] == ["completed", "completed"]


async def test_a_running_attempt_draws_on_its_key_and_goes_on_when_its_task_is_paused(local: World) -> None:
    await local.engine.limits.put("cdn", 5, AN_HOUR_MS)
    worker = await local.worker("w", LIMITED)
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: bool(worker.open))

    await local.engine.limits.pause_task("echo")
    problem = await refused(local.engine.limits.delete("cdn"))
    worker.gate.set()
    ended = await local.ended(run)
    await local.engine.limits.delete("cdn")

    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra["runs"]) == ("rate_limit_in_use", [run.id])
    assert ended.state == "completed"


async def test_runs_whose_limit_went_away_are_held_until_it_is_back(local: World) -> None:
    await local.engine.limits.put("cdn", 0, AN_HOUR_MS)
    await local.worker("w", LIMITED, "other")
    await local.engine.limits.put("cdn", 1, AN_HOUR_MS)
    await local.engine.limits.pause("cdn")
    run = await local.submit()
    await local.change("DELETE FROM rate_limit")
    await local.change("DELETE FROM rate_pause")
    await local.parts.fleet.announce()
    await local.ended(await local.submit("other"))
    held = await local.engine.get_run(run.id)

    await local.engine.limits.put("cdn", 1, 1_000)

    assert held.state == "queued"
    assert (await local.ended(run)).state == "completed"


async def test_what_is_unknown_is_not_found(local: World) -> None:
    limits = local.engine.limits
    problems = [
        await refused(work)
        for work in (limits.get("x"), limits.delete("x"), limits.pause("x"), limits.resume("x"), limits.pause_task("x"))
    ]

    assert [type(one) for one in problems] == [NotFound] * 5
    codes = [one.code for one in problems if isinstance(one, Problem)]
    assert codes == ["rate_limit_unknown"] * 4 + ["task_unknown"]


async def test_a_database_in_trouble_and_one_clash_are_answered_for(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = local.parts.database
    write, errors = database.write, [Clash("another server"), DatabaseTrouble("it is away")]

    async def troubled(script: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return await write(script)

    monkeypatch.setattr(local.parts.limits._database, "write", troubled)
    trouble = await refused(local.engine.limits.put("cdn", 1, 1_000))
    errors.append(Clash("another server"))
    limit, created = await local.engine.limits.put("cdn", 1, 1_000)

    assert isinstance(trouble, Unavailable)
    assert (trouble.code, limit.limit, created) == ("database_unavailable", 1, True)
