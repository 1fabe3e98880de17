"""What leaves for a worker, and what holds it back: its slots, and never an answer that is slow to begin."""

import asyncio
import json

import httpx
import pytest

from hurlbat_dispatcher import RunState
from tests.engine.far_side import Call, marked
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
