"""`max_attempts: 1` is at most once: whatever way an answer gets lost, nothing is delivered a second time."""

import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from hurlbat_dispatcher import RunState
from tests.engine.far_side import Answer, Call, accepted, broken, lines, marked, said, streaming
from tests.engine.world import World

pytestmark = pytest.mark.anyio

ONCE = {"name": "echo", "retries": 0, "execution_timeout": 30}


def raising(error: Exception) -> Answer:
    async def answer(_: list[Call]) -> httpx.Response:
        raise error

    return answer


def making(make: Callable[[list[Call]], httpx.Response]) -> Answer:
    async def answer(calls: list[Call]) -> httpx.Response:
        return make(calls)

    return answer


LOST = {
    "a reset": raising(httpx.ReadError("reset")),
    "silence": raising(httpx.ReadTimeout("slow")),
    "rubbish for an answer": raising(httpx.RemoteProtocolError("what")),
    "a stream that ends at once": making(lambda _: streaming(broken())),
    "a stream that breaks at once": making(lambda _: streaming(broken(error=httpx.ReadError("gone")))),
    "lines that cannot be read": making(lambda _: streaming(broken(b"{\n"))),
    "an answer for another attempt": making(lambda calls: lines(calls[0]._replace(attempt=7).completed())),
    "an answer for a run that was not sent": making(lambda calls: lines(calls[0]._replace(run_id="x").completed())),
}


@pytest.mark.parametrize("name", LOST)
async def test_a_lost_answer_is_an_unknown_outcome_and_never_a_second_delivery(local: World, name: str) -> None:
    worker = await local.worker("w", ONCE, answer=LOST[name])
    ended = await local.ended(await local.submit())
    worker.answer = None
    await local.tick(sweep=True)
    assert (ended.state, json.loads(ended.error or "")["code"]) == (RunState.FAILED, "unknown_outcome")
    assert (ended.attempt, ended.tries, worker.seen(ended.id)) == (1, 1, [1])


async def test_a_lease_that_ran_out_is_an_unknown_outcome(world: World) -> None:
    worker = await world.worker("w", ONCE, answer=making(lambda _: accepted()))
    run = await world.submit()
    await world.until_detached(run)
    await world.time_comes(run, "lease_until")
    ended = await world.ended(run)
    assert (ended.state, json.loads(ended.error or "")["code"]) == (RunState.FAILED, "unknown_outcome")
    assert worker.seen(run.id) == [1]


async def test_a_stream_that_broke_after_the_start_may_still_report(world: World) -> None:
    async def chunks(call: Call) -> AsyncIterator[bytes]:
        yield said(call.started())
        raise httpx.ReadError("gone")

    worker = await world.worker("w", ONCE, answer=making(lambda calls: streaming(chunks(calls[0]))))
    run = await world.submit()
    await world.until_detached(run)
    await world.engine.report_complete(run.id, 1, worker.calls[0].lease_token, "3", b"x")
    assert (await world.ended(run)).output == "3"
    assert worker.seen(run.id) == [1]


async def test_a_killed_server_leaves_an_unknown_outcome(local: World) -> None:
    worker = await local.worker("w", ONCE)
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    await local.crash()
    worker.gate.set()
    await local.restart()
    ended = await local.ended(run)
    assert (ended.state, json.loads(ended.error or "")["code"]) == (RunState.FAILED, "unknown_outcome")
    assert worker.seen(run.id) == [1]


async def test_what_surely_did_not_run_is_delivered_again(world: World) -> None:
    worker = await world.worker("w", ONCE)
    busy = [marked(429, retry_after="0"), marked(503, retry_after="0.01")]

    async def answer(_: list[Call]) -> httpx.Response:
        if not busy:
            worker.answer = None
            raise httpx.ConnectError("refused")
        return busy.pop()

    worker.answer = answer
    ended = await world.ended(await world.submit("echo", "1"))
    assert (ended.state, ended.output, ended.tries) == (RunState.COMPLETED, "1", 1)
    assert worker.seen(ended.id) == [1, 2, 3, 4]


async def test_a_task_that_fails_has_failed_and_that_is_known(world: World) -> None:
    worker = await world.worker("w", ONCE, answer=making(lambda calls: lines(calls[0].failed())))
    ended = await world.ended(await world.submit())
    assert json.loads(ended.error or "")["code"] == "task_error"
    assert len(worker.calls) == 1
