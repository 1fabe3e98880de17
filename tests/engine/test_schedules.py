"""Schedules: each due time starts one run, whoever is there, and what becomes of the times that passed."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from hurlbat_dispatcher import (
    Conflict,
    Engine,
    Invalid,
    NotFound,
    Outside,
    Run,
    Schedule,
    ScheduleFire,
    ScheduleSpec,
)
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.schedules import Missed, Overlap
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Fire
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

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

    async with asyncio.timeout(30):
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

    async with asyncio.timeout(30):
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
    await make(local, expression="*/2 * * * * *", missed=Missed.ALL)
    long_ago = (await now_of(local) - DAY) // MINUTE * MINUTE

    await was_due(local, long_ago)
    async with asyncio.timeout(60):
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
        await make(local, name, expression="*/2 * * * * *", missed=Missed.ALL)
    due_at = await make_hourly(local, 5 * SECOND, name="prompt", task="other")
    commits: list[list[str]] = []
    writer, committed = local.parts.writer, local.parts.writer._committed

    def watched(ledger: Ledger) -> None:
        commits.append([fire.schedule for fire in ledger.fires])
        committed(ledger)

    writer._committed = watched
    long_ago = due_at - HOUR
    await local.change(f"UPDATE schedule SET next_at = CASE name WHEN 'prompt' THEN {due_at} ELSE {long_ago} END")
    await local.tick()
    async with asyncio.timeout(60):
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


# -- making and changing -----------------------------------------------------------------------------------------------


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


# -- of a policy -------------------------------------------------------------------------------------------------------


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
