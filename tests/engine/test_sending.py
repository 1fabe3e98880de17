"""What leaves for a worker, and what holds it back: its slots, and never an answer that is slow to begin."""

import asyncio
import json
from typing import NoReturn

import httpx
import pytest

from hurlbat_dispatcher import RunState
from tests.engine.far_side import Call, Chunks, lines, marked, said, streaming
from tests.engine.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("plain", "max_batch"), [(True, 16), (False, 1), (False, 4)])
async def test_a_worker_that_answers_in_one_piece_fills_all_its_slots(
    local: World, plain: bool, max_batch: int
) -> None:
    worker = await local.worker("w", slots=64, plain=plain, max_batch=max_batch)
    gate, there = asyncio.Event(), 0

    async def answer(calls: list[Call]) -> httpx.Response:
        nonlocal there
        there += len(calls)
        await gate.wait()
        if plain:
            return httpx.Response(200, json=calls[0].input)
        results = [{"run_id": call.run_id, "attempt": 1, "state": "completed", "output": call.input} for call in calls]
        return marked(200, json.dumps({"results": results}).encode(), content_type="application/json")

    worker.answer = answer
    gate.set()
    await local.all_ended(await local.submit_all(200))  # its window grows to all its slots
    gate.clear()
    there = 0
    runs = await local.submit_all(80)
    await local.until(lambda: there == 64)
    await local.turns()
    assert there == 64
    gate.set()
    ended = await local.all_ended(runs)
    assert {run.state for run in ended} == {RunState.COMPLETED}
    assert [run.output for run in ended] == [str(n) for n in range(80)]


async def test_a_run_that_an_instance_does_not_serve_yet_waits_uncharged_and_not_for_its_neighbours(
    world: World,
) -> None:
    worker = await world.worker("w")  # its task is tried once
    gate = asyncio.Event()

    async def old_instance(calls: list[Call]) -> httpx.Response:
        async def chunks() -> Chunks:
            yield said(*[call.failed("not yet", type="unknown_task", retryable=False) for call in calls[1:]])
            yield said(calls[0].started())
            await gate.wait()
            yield said(calls[0].completed("1"))

        return streaming(chunks())

    async def new_instance(calls: list[Call]) -> httpx.Response:
        return lines(*[line for call in calls for line in (call.started(), call.completed("2"))])

    worker.answer = old_instance
    neighbour, refused = await world.submit_all(2)
    waiting = await world.put_back(refused, "pushed_back")
    assert (waiting.tries, waiting.max_attempts, waiting.error) == (0, 1, None)
    worker.answer = new_instance
    await world.time_comes(refused, "due_at")
    ended = await world.ended(refused)
    assert (ended.state, ended.output, ended.tries, ended.attempt) == (RunState.COMPLETED, "2", 1, 2)
    gate.set()
    assert (await world.ended(neighbour)).output == "1"


@pytest.mark.parametrize("plain", [True, False])
async def test_what_a_stop_cut_off_before_a_byte_was_sent_is_not_charged(world: World, plain: bool) -> None:
    await world.worker("w", plain=plain)  # its task is tried once
    connecting = asyncio.Event()

    async def deliver(*_: object, **__: object) -> NoReturn:
        connecting.set()
        await asyncio.Event().wait()
        raise AssertionError

    world.parts.outbox._push.deliver = deliver  # type: ignore[method-assign]
    run = await world.submit()
    await connecting.wait()
    await world.engine.stop(0)
    await world.restart()
    ended = await world.ended(run)
    assert (ended.state, ended.attempt, ended.tries) == (RunState.COMPLETED, 2, 1)
