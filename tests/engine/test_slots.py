"""Who starts where, and when: slots, windows, two workers for a task, order, and workers that come and go."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Run, RunState, WorkerState
from hurlbat_dispatcher.domain.workers import FIRST_WINDOW
from tests.engine.far_side import Call, accepted, marked
from tests.engine.world import World

pytestmark = pytest.mark.anyio


async def test_a_worker_never_has_more_attempts_than_slots(world: World) -> None:
    worker = await world.worker("w", slots=3)

    async def work(call: Call) -> str:
        for _ in range(call.input % 4):
            await asyncio.sleep(0)
        return json.dumps(call.input)

    worker.work = work
    runs = await world.submit_all(500)
    ended = await world.all_ended(runs)
    assert [run.output for run in ended] == [str(n) for n in range(500)]
    assert all(run.attempt == 1 for run in ended)
    assert (worker.peak, len(worker.calls)) == (3, 500)


async def test_slots_may_change_while_runs_are_on_their_way(world: World) -> None:
    worker = await world.worker("w", slots=4)
    worker.work = worker.held
    runs = await world.submit_all(30)
    await world.until(lambda: len(worker.open) == 4)

    await world.engine.update_worker("w", slots=2)
    stop = list(worker.open.values())[:2]
    for one in stop:
        one.set()
    await world.until(lambda: len(worker.open) == 2)
    await world.turns()
    assert len(worker.open) == 2  # two ended, and none took their place

    await world.engine.update_worker("w", slots=5)
    shown = await world.engine.get_worker("w")
    assert (shown.slots, shown.window) == (5, 2)  # the window grows with answers
    worker.peak = 0
    worker.gate.set()
    await world.all_ended(runs)
    assert worker.peak <= 5


async def test_two_workers_share_a_task_by_their_load(world: World) -> None:
    small, large = await world.worker("small", slots=2), await world.worker("large", slots=6)
    small.work, large.work = small.held, large.held
    runs = await world.submit_all(8)
    await world.until(lambda: len(small.open) + len(large.open) == 8)
    assert (len(small.open), len(large.open)) == (2, 6)
    small.gate.set()
    large.gate.set()
    ended = await world.all_ended(runs)
    assert sorted({str(run.worker) for run in ended}) == ["large", "small"]


async def test_when_one_of_two_workers_cannot_be_reached_the_other_takes_all(world: World) -> None:
    retried = {"name": "echo", "retries": 0}
    gone, there = await world.worker("gone", retried), await world.worker("there", retried)
    gone.away = httpx.ConnectError("refused")
    ended = await world.all_ended(await world.submit_all(40))
    assert {(run.state, run.worker, run.tries) for run in ended} == {(RunState.COMPLETED, "there", 1)}
    assert (await world.engine.get_worker("gone")).state is WorkerState.UNREACHABLE
    assert len(there.calls) == 40


async def test_runs_wait_in_the_order_of_priority_and_age(world: World) -> None:
    worker = await world.worker("w", slots=1)
    await world.engine.pause_worker("w")
    for n in range(3):
        await world.submit("echo", f'"low{n}"', priority=1)
        await world.submit("echo", f'"high{n}"', priority=3)
    await world.engine.resume_worker("w")
    await world.until(lambda: len(worker.calls) == 6)
    assert [call.input for call in worker.calls] == ["high0", "high1", "high2", "low0", "low1", "low2"]


async def test_tasks_take_turns_at_a_worker(world: World) -> None:
    worker = await world.worker("w", "a", "b", slots=1)
    await world.engine.pause_worker("w")
    for task in "aaaabb":
        await world.submit(task)
    await world.engine.resume_worker("w")
    await world.until(lambda: len(worker.calls) == 6)
    assert [call.task for call in worker.calls] == ["a", "b", "a", "b", "a", "a"]


async def test_tasks_still_take_turns_by_age_after_a_restart(local: World) -> None:
    worker = await local.worker("w", "a", "b", "c", slots=1)
    await local.engine.pause_worker("w")
    for n, task in enumerate("cab"):
        run = await local.submit(task)
        await local.change(f"UPDATE run SET rank = rank - {1000 * (9 - n)} WHERE id = '{run.id}'")
    await local.crash()
    await local.restart()
    await local.engine.resume_worker("w")
    await local.until(lambda: len(worker.calls) == 3)
    assert [call.task for call in worker.calls] == ["c", "a", "b"]


async def test_everything_starts_that_has_room_however_little_of_it_is_held_in_memory(world: World) -> None:
    worker = await world.worker("w", slots=16)
    worker.work = worker.held
    await world.engine.pause_worker("w")
    world.parts.desk.picture.most_held = 2
    runs = await world.submit_all(40)
    await world.engine.resume_worker("w")
    await world.until(lambda: len(worker.open) == 16)  # nothing ends, so nothing else wakes the engine
    worker.gate.set()
    await world.all_ended(runs)
    assert [call.input for call in worker.calls] == list(range(40))


async def test_an_unreachable_worker_gets_one_probe_at_a_time_and_begins_small(local: World) -> None:
    worker = await local.worker("w", {"name": "echo"}, slots=50, plain=True)
    worker.away = httpx.ConnectError("refused")
    runs = await local.submit_all(30)
    await local.until(lambda: _state(local) is WorkerState.UNREACHABLE)
    await local.until(lambda: local.parts.outbox.in_flight == 0)
    for run in runs:  # one or another may be on its way as a probe
        await local.until_run(run, lambda found: found.state == "queued")

    worker.away = None
    worker.work = worker.held
    await local.until(lambda: len(worker.open) == 1)
    await local.turns()
    assert len(worker.open) == 1  # the probe
    next(iter(worker.open.values())).set()
    await local.until(lambda: len(worker.calls) > 1)
    assert _state(local) is WorkerState.UNVERIFIED
    worker.gate.set()
    ended = await local.all_ended(runs)
    assert {run.tries for run in ended} == {1}


async def test_a_long_attempt_does_not_keep_a_worker_from_being_probed(local: World) -> None:
    worker = await local.worker("w", "echo", "long", plain=True)
    worker.work = worker.held
    long = await local.submit("long")
    await local.until(lambda: len(worker.open) == 1)
    worker.away = httpx.ConnectError("refused")
    run = await local.submit("echo")
    await local.until(lambda: _state(local) is WorkerState.UNREACHABLE)
    worker.away, worker.work = None, None
    assert (await local.ended(run)).state is RunState.COMPLETED
    assert (await local.engine.get_run(long.id)).state is RunState.RUNNING
    worker.gate.set()
    await local.ended(long)


async def test_a_run_that_was_pushed_back_keeps_its_place_in_line(local: World) -> None:
    worker = await local.worker("w", slots=1)

    async def busy(_: list[Call]) -> httpx.Response:
        return marked(503, retry_after="3600")

    worker.answer = busy
    first = await local.submit(input="1")
    await local.put_back(first, "pushed_back")
    await local.engine.pause_worker("w")
    worker.answer = None
    second = await local.submit(input="2")
    await local.time_comes(first, "due_at")
    await local.engine.resume_worker("w")
    await local.all_ended([first, second])
    assert [call.input for call in worker.calls] == [1, 1, 2]


async def test_the_window_halves_on_trouble_and_grows_again(local: World) -> None:
    worker = await local.worker("w", slots=64)

    async def busy(_: list[Call]) -> httpx.Response:
        return marked(429, retry_after="0")

    worker.answer = busy
    run = await local.submit()
    await local.put_back(run, "pushed_back")
    await local.until(lambda: _window(local) < 16)
    worker.answer = None
    await local.all_ended([run, *await local.submit_all(64)])
    assert 1 < _window(local) <= 64


async def test_a_removed_worker_leaves_its_runs_waiting_for_the_next_one(world: World) -> None:
    worker = await world.worker("w")
    await world.engine.pause_worker("w")
    waiting = await world.submit("echo", "1")
    await world.engine.delete_worker("w")
    late = await world.submit("echo", "2")
    await world.turns()
    assert [run.state for run in [await _look(world, waiting), await _look(world, late)]] == ["queued", "queued"]
    await world.register(worker)
    assert [run.output for run in await world.all_ended([waiting, late])] == ["1", "2"]


async def test_what_runs_at_a_removed_worker_goes_on_and_counts(world: World) -> None:
    worker = await world.worker("w", slots=1)
    worker.work = worker.held
    first = await world.submit("echo", "1")
    await world.until(lambda: len(worker.open) == 1)
    await world.engine.delete_worker("w")
    await world.register(worker, slots=1)
    second = await world.submit("echo", "2")
    await world.turns()
    assert len(worker.open) == 1
    worker.gate.set()
    assert [run.output for run in await world.all_ended([first, second])] == ["1", "2"]
    assert worker.peak == 1


async def test_a_paused_worker_gets_nothing_and_keeps_what_it_has(world: World) -> None:
    worker = await world.worker()
    worker.work = worker.held
    first = await world.submit("echo", "1")
    await world.until(lambda: len(worker.open) == 1)
    paused = await world.engine.pause_worker("w")
    second = await world.submit("echo", "2")
    worker.gate.set()
    assert (await world.ended(first)).output == "1"
    await world.turns()
    assert (paused.state, (await _look(world, second)).attempt) == (WorkerState.PAUSED, 0)
    await world.engine.resume_worker("w")
    assert (await world.ended(second)).output == "2"


async def test_a_rejected_worker_gets_its_held_runs_after_a_sync(world: World) -> None:
    worker = await world.worker()

    async def stranger(_: list[Call]) -> httpx.Response:
        return httpx.Response(401)

    worker.answer = stranger
    run = await world.submit("echo", "1")
    await world.put_back(run, "held")
    await world.until(lambda: _state(world) is WorkerState.REJECTED)
    worker.answer = None
    assert (await world.engine.sync_worker("w")).state is WorkerState.READY
    ended = await world.ended(run)
    assert (ended.output, ended.tries) == ("1", 1)


async def test_a_paused_worker_stays_paused_when_its_manifest_changes(local: World, monkeypatch: Any) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.health.SETTLE_SECONDS", 0.0)
    worker = await local.worker()

    async def newer(calls: list[Call]) -> httpx.Response:
        return httpx.Response(202, headers={"hurlbat-worker": "manifest-2"})

    worker.answer = newer
    run = await local.submit()
    await local.until_detached(run)
    await local.engine.pause_worker("w")
    await local.parts.health.recheck()
    assert _state(local) is WorkerState.PAUSED


async def test_an_accepted_attempt_holds_its_slot(world: World) -> None:
    worker = await world.worker("w", slots=1)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    first = await world.submit("echo", "1")
    await world.until_detached(first)
    second = await world.submit("echo", "2")
    await world.turns()
    assert (await _look(world, second)).state is RunState.QUEUED
    worker.answer = None
    call = worker.calls[0]
    await world.engine.report_complete(first.id, 1, call.lease_token, "9", b"")
    assert [run.output for run in await world.all_ended([first, second])] == ["9", "2"]


def _state(world: World) -> WorkerState:
    return world.parts.registry.workers["w"].state


def _window(world: World) -> int:
    return world.parts.desk.picture.slots["w"].window.size


async def _look(world: World, run: Run) -> Run:
    return await world.engine.get_run(run.id)


async def test_a_window_of_one_makes_room_while_its_run_still_runs(local: World) -> None:
    """Or a task that waits for another one would wait for itself."""
    worker = await local.worker("w", slots=64)
    window = local.parts.desk.picture.slots["w"].window
    window.size, window.sound, window.edge = 1, 1, 2

    async def work(call: Call) -> str:
        if call.input == "parent":
            await worker.gate.wait()
        else:
            worker.gate.set()
        return "null"

    worker.work = work
    parent = await local.submit(input='"parent"')
    await local.until(lambda: len(worker.open) == 1)
    child = await local.submit(input='"child"')
    await local.all_ended([child, parent])


@pytest.mark.parametrize("streams", [True, False])
async def test_an_attempt_that_runs_into_its_timeout_halves_the_window(local: World, streams: bool) -> None:
    worker = await local.worker("w", {"name": "echo", "execution_timeout": 0.05, "retries": 0}, plain=not streams)
    worker.work = worker.held
    run = await local.ended(await local.submit())
    assert (run.state, json.loads(run.error or "")["code"]) == (RunState.FAILED, "execution_timeout")
    await local.until(lambda: _window(local) < FIRST_WINDOW)
    assert _window(local) in (FIRST_WINDOW // 2, FIRST_WINDOW // 2 + 1)  # its `started` line was a good sign


async def test_a_resumed_worker_begins_as_a_new_one(local: World) -> None:
    await local.worker("w", slots=64)
    await local.all_ended(await local.submit_all(100))
    assert _window(local) == 64
    await local.engine.pause_worker("w")
    await local.engine.resume_worker("w")
    assert _window(local) == FIRST_WINDOW
