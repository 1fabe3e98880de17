"""Schedules: each due time starts one run, whoever is there, and what becomes of the times that passed."""

import asyncio
import json
from datetime import UTC, datetime

import pytest

from hurlbat_dispatcher.domain.schedules import Missed, Overlap
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Fire
from tests.engine.scheduled import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    fires,
    fires_again,
    make,
    make_hourly,
    now_of,
    outcomes,
    runs,
    was_due,
)
from tests.engine.world import SOON, World

pytestmark = pytest.mark.anyio

EVEN = "*/2 * * * * *"
"""Every other second. A schedule is given it with its time in one change, or it would fire before that by itself."""

# -- firing ------------------------------------------------------------------------------------------------------------


async def test_a_schedule_that_is_due_starts_one_run_that_knows_why(world: World) -> None:
    await world.worker()
    due_at = await make_hourly(world, 5 * SECOND, input='{"a": 1.0}', metadata='{"by": "s"}', priority=7)

    await was_due(world, due_at)
    [run] = await runs(world)
    ended = await world.ended(run)

    after = await world.engine.schedules.get("s")
    said = datetime.fromtimestamp(due_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    assert (ended.state, ended.input, ended.metadata, ended.priority) == ("completed", '{"a": 1.0}', '{"by": "s"}', 7)
    assert json.loads(ended.trigger or "null") == {
        "type": "schedule",
        "schedule": "s",
        "due_at": said,
        "manual": False,
    }
    assert (after.last_at, after.last_run, after.problem, after.next_at) == (due_at, run.id, None, due_at + HOUR)
    [fire] = await fires(world)
    assert (fire.due_at, fire.outcome, fire.run, fire.manual, fire.reason) == (due_at, "started", run.id, False, None)


async def test_a_time_that_comes_is_fired_by_itself_and_never_before(world: World) -> None:
    await world.worker()
    due_at = await now_of(world) + 200
    await make(world, run_at=due_at)

    await world.until(lambda: bool(world.network.workers["w"].calls))

    [run] = await runs(world)
    assert run.created_at >= due_at
    assert (await world.engine.schedules.get("s")).next_at is None
    assert await outcomes(world) == [(due_at, "started")]


async def test_a_due_time_that_was_fired_is_not_fired_again_whatever_the_schedule_says(world: World) -> None:
    await world.worker()
    due_at = await make_hourly(world, 10 * MINUTE, missed=Missed.ALL)

    await was_due(world, due_at - HOUR)
    await was_due(world, due_at - 2 * HOUR)
    await world.engine.stop(0)
    await world.restart()
    await was_due(world, due_at)

    assert await outcomes(world) == [(due_at - back * HOUR, "started") for back in (2, 1, 0)]
    assert len(await runs(world)) == 3


async def test_what_came_due_while_no_server_ran_is_fired_at_the_start(local: World) -> None:
    await local.worker()
    due_at = await make_hourly(local, 10 * MINUTE)
    await local.engine.stop(0)
    await local.restart()
    await local.engine.stop(0)
    await local.restart()
    assert await runs(local) == []
    await local.change(f"UPDATE schedule SET next_at = {due_at}")
    await local.engine.stop(0)

    await local.restart()

    async with asyncio.timeout(SOON):
        while not await runs(local):  # noqa: ASYNC110  # rows set no events
            await asyncio.sleep(0.01)
    assert await outcomes(local) == [(due_at, "started")]


async def test_more_schedules_than_one_turn_takes_are_all_fired(local: World) -> None:
    await local.worker()
    await make(local, "s000")
    more = ", ".join(name for name in await columns_of(local) if name != "name")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 249)"
    await local.change(f"INSERT INTO schedule (name, {more}) {numbers} SELECT 's' || i, {more} FROM n, schedule")
    due_at = await now_of(local)

    await local.change(f"UPDATE schedule SET expression = NULL, run_at = {due_at}, next_at = {due_at}")
    await local.tick()

    async with asyncio.timeout(SOON):
        while len(found := await runs(local)) < 250:  # noqa: ASYNC110  # rows set no events
            await asyncio.sleep(0.01)
    assert len({json.loads(run.trigger or "{}")["schedule"] for run in found}) == 250


async def columns_of(world: World) -> list[str]:
    return [str(row[0]) for row in await world.rows("SELECT name FROM pragma_table_info('schedule')")]


async def test_a_run_that_cannot_be_is_noted_with_its_reason_and_the_next_one_is_tried(local: World) -> None:
    await local.worker("w", {"name": "echo", "rate_limits": [{"key": "cdn"}]})
    due_at = await make_hourly(local, 5 * SECOND)
    await was_due(local, due_at)
    failed = await local.engine.schedules.get("s")

    await local.engine.limits.put("cdn", 5, HOUR)
    await local.change("DELETE FROM schedule_fire")
    await was_due(local, due_at)
    mended = await local.engine.schedules.get("s")

    assert failed.problem is not None
    assert "there is no rate limit cdn" in failed.problem
    assert (mended.problem, len(await runs(local))) == (None, 1)


async def test_a_task_that_nobody_serves_is_not_started_until_somebody_does(local: World) -> None:
    worker = await local.worker()
    due_at = await make_hourly(local, 5 * SECOND)
    await local.engine.delete_worker("w")
    await was_due(local, due_at)
    [fire] = await fires(local)
    await local.register(worker)

    again = await make_hourly(local, 5 * SECOND, name="t")
    await was_due(local, again, "t")

    assert (fire.outcome, fire.run, fire.reason) == ("failed", None, "no registered worker serves the task echo")
    assert [json.loads(run.trigger or "{}")["schedule"] for run in await runs(local)] == ["t"]


async def test_the_runs_of_a_paused_task_are_made_and_held(local: World) -> None:
    await local.worker()
    await local.engine.limits.pause_task("echo")
    due_at = await make_hourly(local, 5 * SECOND)

    await was_due(local, due_at)
    [run] = await runs(local)
    assert run.state == "queued"
    await local.engine.limits.resume_task("echo")

    assert (await local.ended(run)).state == "completed"


# -- missed and late ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        (Missed.SKIP, [(0, "missed")]),
        (Missed.ONCE, [(1, "missed"), (0, "started")]),
        (Missed.ALL, [(3, "started"), (2, "started"), (1, "started"), (0, "started")]),
    ],
)
async def test_times_that_nobody_was_there_for_are_treated_as_the_schedule_says(
    local: World, missed: Missed, expected: list[tuple[int, str]]
) -> None:
    await local.worker()
    due_at = await make_hourly(local, 10 * MINUTE, missed=missed)

    await was_due(local, due_at - 3 * HOUR)

    assert await outcomes(local) == [(due_at - back * HOUR, outcome) for back, outcome in expected]
    assert (await local.engine.schedules.get("s")).next_at == due_at + HOUR


async def test_a_time_that_is_only_late_is_fired_whatever_the_schedule_says(local: World) -> None:
    await local.worker()
    for missed in Missed:
        due_at = await make_hourly(local, 20 * SECOND, name=missed, missed=missed)

        await was_due(local, due_at, missed)

        assert await outcomes(local, missed) == [(due_at, "started")]


async def test_of_very_many_missed_times_the_newest_thousand_are_made_up_for(local: World) -> None:
    await local.worker("w", "echo", slots=1000)
    await make(local, missed=Missed.ALL)
    long_ago = (await now_of(local) - DAY) // MINUTE * MINUTE

    await local.change(f"UPDATE schedule SET expression = '{EVEN}', next_at = {long_ago}")
    await local.tick()
    async with asyncio.timeout(SOON):
        while (await local.engine.schedules.get("s")).next_at < await now_of(local) - SECOND:  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await local.engine.schedules.pause("s")

    found = await local.rows("SELECT due_at, outcome, fired_at FROM schedule_fire ORDER BY due_at")
    started = [due_at for due_at, outcome, _ in found if outcome == "started"]
    looked_at = min(fired_at for _, _, fired_at in found)
    assert [outcome for _, outcome, _ in found].count("missed") == 1
    assert len([due_at for due_at in started if due_at <= looked_at - MINUTE]) == 1000
    assert started == list(range(started[0], started[-1] + 1, 2 * SECOND))


async def test_much_that_is_made_up_for_comes_in_parts_and_makes_nobody_late(local: World) -> None:
    await local.worker("w", "echo", "other")
    await local.engine.limits.pause_task("echo")
    for name in ("a", "b", "c"):
        await make(local, name, missed=Missed.ALL)
    due_at = await make_hourly(local, 5 * SECOND, name="prompt", task="other")
    commits: list[list[str]] = []
    writer, committed = local.parts.writer, local.parts.writer._committed

    def watched(ledger: Ledger) -> None:
        commits.append([fire.schedule for fire in ledger.fires])
        committed(ledger)

    writer._committed = watched
    long_ago = due_at - HOUR
    await local.change(
        f"UPDATE schedule SET next_at = CASE name WHEN 'prompt' THEN {due_at} ELSE {long_ago} END, "
        f"expression = CASE name WHEN 'prompt' THEN expression ELSE '{EVEN}' END"
    )
    await local.tick()
    async with asyncio.timeout(SOON):
        while max((await local.rows("SELECT count(*) FROM schedule_fire WHERE outcome = 'started'"))[0]) < 3091:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    for name in ("a", "b", "c"):
        await local.engine.schedules.pause(name)

    some = [commit for commit in commits if commit]
    assert "prompt" in some[0]
    assert len(set(some[0])) == 2  # and one that has much to make up for


# -- overlap -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "expected", "states"),
    [
        (Overlap.ALLOW, ["started", "started", "started"], ["queued", "queued", "queued"]),
        (Overlap.SKIP, ["started", "overlap", "overlap"], ["queued"]),
        (Overlap.CANCEL, ["started", "started", "started"], ["cancelled", "cancelled", "queued"]),
    ],
)
async def test_a_run_that_is_alive_is_treated_as_the_schedule_says(
    world: World, overlap: Overlap, expected: list[str], states: list[str]
) -> None:
    await world.worker()
    await world.engine.limits.pause_task("echo")
    due_at = await make_hourly(world, 10 * MINUTE, overlap=overlap)

    for _ in range(3):
        await fires_again(world, due_at)

    found = await runs(world)
    assert [outcome for _, outcome in await outcomes(world)] == expected
    assert [run.state for run in found] == states
    cancelled = [run.reason for run in found if run.state == "cancelled"]
    assert cancelled == ["schedule s fired again"] * len(cancelled)


@pytest.mark.parametrize(
    ("overlap", "expected", "states"),
    [
        (Overlap.ALLOW, ["started", "started"], ["queued", "queued"]),
        (Overlap.SKIP, ["overlap", "started"], ["queued"]),
        (Overlap.CANCEL, ["started", "started"], ["cancelled", "queued"]),
    ],
)
async def test_a_run_that_was_started_by_hand_in_the_same_turn_is_alive_too(
    local: World, overlap: Overlap, expected: list[str], states: list[str]
) -> None:
    await local.worker()
    await local.engine.limits.pause_task("echo")
    due_at = await make_hourly(local, 10 * MINUTE, overlap=overlap)
    await local.turns()
    await local.change(f"UPDATE schedule SET next_at = {due_at}")

    local.parts.writer.put(Fire("s"))
    await local.tick()  # in the same turn, as both are there when it begins

    assert [outcome for _, outcome in await outcomes(local)] == expected
    await local.tick()
    assert [run.state for run in await runs(local)] == states


async def test_a_time_is_late_and_not_lost_while_its_task_is_not_known_here(local: World) -> None:
    await local.worker()
    due_at = await make_hourly(local, 2 * SECOND)
    local.parts.registry.tasks = {}  # as if it had been registered at another server, of which no word has come
    local.parts.fleet.standing._good_until = 0

    await was_due(local, due_at)

    await local.until(lambda: bool(local.network.workers["w"].calls))
    assert await outcomes(local) == [(due_at, "started")]


async def test_a_schedule_that_skips_starts_again_when_its_run_has_ended(local: World) -> None:
    await local.worker()
    await local.engine.limits.pause_task("echo")
    due_at = await make_hourly(local, 10 * MINUTE, overlap=Overlap.SKIP)
    await fires_again(local, due_at)
    await fires_again(local, due_at)
    [run] = await runs(local)

    await local.engine.limits.resume_task("echo")
    await local.ended(run)
    await fires_again(local, due_at)

    assert [outcome for _, outcome in await outcomes(local)] == ["started", "overlap", "started"]
    skipped = (await fires(local))[1]
    assert (skipped.run, skipped.reason) == (None, f"run {run.id} was alive")


async def test_a_run_that_outlives_very_many_times_is_not_forgotten(local: World) -> None:
    await local.worker()
    await local.engine.limits.pause_task("echo")
    due_at = await make_hourly(local, 10 * MINUTE, overlap=Overlap.SKIP)
    await was_due(local, due_at)
    since = due_at + 1
    idle = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT 1, 's', {since} + i"
    columns = "tenant, schedule, due_at, manual, fired_at, outcome"
    await local.change(f"INSERT INTO schedule_fire ({columns}) {idle}, 0, {since}, 'overlap' FROM n")

    await fires_again(local, due_at)

    assert len(await runs(local)) == 1
