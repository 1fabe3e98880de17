"""A paused task takes in whatever starts its runs, and starts nothing of it until it is resumed."""

import json

import pytest

from hurlbat_dispatcher import EventSpec, RunState, ScheduleSpec
from tests.engine.far_side import Call, Output
from tests.engine.world import LATER_MS, World

pytestmark = pytest.mark.anyio

SOON = {"strategy": "fixed", "initial": 3600, "jitter": False}


async def fail_at_work(call: Call) -> Output:
    return call.failed() if call.task == "work" else "null"


async def waiting(world: World, task: str = "echo") -> list[str]:
    """Return the runs of a task that wait, the oldest first."""
    rows = await world.rows(f"SELECT id FROM run WHERE task = '{task}' AND state = 'queued' ORDER BY id")
    return [row[0] for row in rows]


async def test_everything_that_starts_runs_of_a_paused_task_is_kept_and_held(world: World) -> None:
    policy = {"name": "echo", "on_events": ["order:*"]}
    worker = await world.worker("w", policy, {"name": "work", "on_failure": "echo"}, work=fail_at_work)
    await world.engine.limits.pause_task("echo")
    delayed = await world.submit("echo", delay=3600.0)
    submitted = await world.submit("echo")

    event = (await world.engine.events.publish(EventSpec("order:1"))).event
    now = submitted.created_at
    await world.engine.schedules.create(ScheduleSpec(name="s", task="echo", run_at=now + LATER_MS))
    await world.change(f"UPDATE schedule SET next_at = {now} WHERE name = 's'")
    await world.tick()
    by_hand = await world.engine.schedules.trigger("s")
    failed = await world.ended(await world.submit("work"))
    await world.time_comes(delayed, "due_at")
    await world.turns()
    held = await waiting(world)
    seen = [call.task for call in worker.calls]
    fires = (await world.engine.schedules.fires("s")).items

    await world.engine.limits.resume_task("echo")
    ended = await world.all_ended(held)

    assert len(held) == 6
    assert {delayed.id, submitted.id, by_hand.id, event.starts[0].run} < set(held)
    assert seen == ["work"]
    assert sorted(fire.outcome.value for fire in fires) == ["started", "started"]
    assert {run.state for run in ended} == {RunState.COMPLETED}
    kinds = [json.loads(run.trigger)["type"] if run.trigger else "submit" for run in ended]
    assert sorted(kinds) == ["event", "failure", "schedule", "schedule", "submit", "submit"]
    assert failed.state is RunState.FAILED
    assert await waiting(world) == []
    assert sorted(call.run_id for call in worker.calls if call.task == "echo") == sorted(held)


async def test_what_runs_goes_on_and_its_retry_is_held(local: World) -> None:
    worker = await local.worker("w", {"name": "echo", "retries": 1, "backoff": SOON})
    gate = worker.held

    async def work(call: Call) -> Output:
        await gate(call)
        return call.failed() if call.attempt == 1 else "null"

    worker.work = work
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)

    await local.engine.limits.pause_task("echo")
    worker.gate.set()
    await local.put_back(run, "retry")
    await local.time_comes(run, "due_at")
    await local.turns()
    held = worker.seen(run.id), (await local.engine.get_run(run.id)).state
    await local.engine.limits.resume_task("echo")

    assert held == ([1], RunState.QUEUED)
    assert (await local.ended(run)).state is RunState.COMPLETED


async def test_a_time_that_a_run_has_to_start_in_goes_on_while_its_task_is_paused(local: World) -> None:
    await local.worker()
    await local.engine.limits.pause_task("echo")
    run = await local.submit("echo", ttl=1800.0)

    await local.time_comes(run, "ttl_at", "expires_at")

    assert (await local.ended(run)).state is RunState.CANCELLED
