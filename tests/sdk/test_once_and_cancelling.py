"""Attempts that travel together, that are delivered twice, and that are cancelled."""

import asyncio
import threading

import pytest

from hurlbat import Context, Hurlbat
from hurlbat.workbench import Workbench
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


# -- together, and once ------------------------------------------------------------------------------------------------


async def test_sixteen_tasks_that_do_not_wait_are_answered_in_one_send(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def quick() -> None: ...

    answer = await Exchange(
        hurlbat.asgi(), delivery(*[a_run("quick", run_id=f"run-{number}") for number in range(16)])
    ).finish()
    assert len(answer.sends) == 1
    assert len(answer.results) == 16


async def test_a_slow_run_does_not_hold_back_its_neighbours(hurlbat: Hurlbat) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        await gate.wait()

    @hurlbat.task
    async def quick() -> None: ...

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow"), a_run("quick")))
    await exchange.until(1, "result")
    assert list(exchange.results) == ["run-quick"]
    gate.set()
    await exchange.finish()
    assert list(exchange.results) == ["run-quick", "run-slow"]


async def test_silence_is_filled_with_heartbeats(hurlbat: Hurlbat) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        await gate.wait()

    hurlbat.workbench = Workbench(hurlbat.tasks, hurlbat.client.http, threads=1, heartbeat=0.01)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    assert {"type": "heartbeat"} in await exchange.until(3, "heartbeat")
    gate.set()
    await exchange.finish()


async def test_an_attempt_that_is_delivered_twice_while_it_runs_is_executed_once(hurlbat: Hurlbat) -> None:
    gate, starts = asyncio.Event(), list[int]()

    @hurlbat.task
    async def slow(ctx: Context) -> str:
        starts.append(ctx.attempt)
        await gate.wait()
        return "once"

    body = delivery(a_run("slow"))
    first = Exchange(hurlbat.asgi(), body)
    await first.until(1, "started")
    second = Exchange(hurlbat.asgi(), body)
    await second.until(1, "started")
    gate.set()
    await first.finish()
    await second.finish()
    assert starts == [1]
    assert first.lines == second.lines
    assert first.results["run-slow"]["output"] == "once"


async def test_an_attempt_that_is_delivered_again_after_its_end_is_answered_from_memory(hurlbat: Hurlbat) -> None:
    starts: list[int] = []

    @hurlbat.task
    async def count(ctx: Context) -> int:
        starts.append(ctx.attempt)
        return len(starts)

    assert (await result_of(hurlbat, a_run("count")))["output"] == 1
    assert (await result_of(hurlbat, a_run("count")))["output"] == 1
    assert (await result_of(hurlbat, a_run("count", attempt=2)))["output"] == 2
    assert starts == [1, 2]


async def test_an_attempt_named_twice_in_one_delivery_is_one(hurlbat: Hurlbat) -> None:
    starts: list[int] = []

    @hurlbat.task
    async def count() -> None:
        starts.append(1)

    answer = await Exchange(hurlbat.asgi(), delivery(a_run("count"), a_run("count"))).finish()
    assert (starts, len(answer.lines)) == ([1], 2)


@pytest.mark.parametrize("bound", ["REMEMBER_RESULTS", "REMEMBER_CHARS", "REMEMBER_SECONDS"])
async def test_what_is_remembered_is_bounded(hurlbat: Hurlbat, monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    now = 0.0
    monkeypatch.setattr(f"hurlbat.workbench.{bound}", 3)
    hurlbat.workbench = Workbench(hurlbat.tasks, hurlbat.client.http, threads=1, clock=lambda: now)

    @hurlbat.task
    async def one() -> int:
        return 1

    for number in range(20):
        now += 1
        await result_of(hurlbat, a_run("one", run_id=f"run-{number}"))
    assert len(hurlbat.workbench._recent) == 3
    assert hurlbat.workbench._remembered_chars == 3
    assert hurlbat.workbench._running == {}


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_a_cancelled_async_task_stops_and_the_answer_says_so(hurlbat: Hurlbat) -> None:
    ended = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-slow", 1))).finish()
    assert answer.json == {"runs": [{"run_id": "run-slow", "attempt": 1, "status": "stopped"}]}
    assert ended.is_set()
    await exchange.finish()
    result = exchange.results["run-slow"]
    assert (result["error"], result["retryable"]) == ({"type": "cancelled", "message": "asked by a user"}, False)


async def test_a_cancel_names_the_attempt_that_it_means(hurlbat: Hurlbat) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> str:
        await gate.wait()
        return "done"

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow", attempt=2)))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-slow", 1))).finish()
    assert answer.json["runs"][0]["status"] == "unknown"
    gate.set()
    await exchange.finish()
    assert exchange.results["run-slow"]["output"] == "done"


async def test_a_cancelled_sync_task_reads_the_flag_and_stops(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def slow(ctx: Context) -> None:
        while True:
            threading.Event().wait(0.005)
            ctx.raise_if_cancelled()

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-slow", 1))).finish()
    assert answer.json["runs"][0]["status"] == "stopped"
    await exchange.finish()
    assert exchange.results["run-slow"]["error"]["type"] == "cancelled"


async def test_a_sync_task_that_does_not_look_is_not_said_to_have_stopped(
    hurlbat: Hurlbat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.workbench.CANCEL_PATIENCE", 0.05)
    gate = threading.Event()

    @hurlbat.task
    def deaf() -> str:
        gate.wait(120)
        return "done"

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("deaf")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-deaf", 1))).finish()
    assert answer.json["runs"][0]["status"] == "unknown"
    gate.set()
    await exchange.finish()
    assert exchange.results["run-deaf"]["output"] == "done"


async def test_a_sync_task_that_waits_for_a_thread_never_starts_once_it_is_cancelled() -> None:
    hurlbat, gate, started = an_app(threads=1), threading.Event(), list[str]()

    @hurlbat.task
    def hold(ctx: Context) -> None:
        started.append(ctx.run_id)
        gate.wait(120)

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("hold", run_id="a"), a_run("hold", run_id="b")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("b", 1))).finish()
    assert answer.json["runs"][0]["status"] == "stopped"
    gate.set()
    await exchange.finish()
    assert started == ["a"]


async def test_a_cancel_after_the_end_says_stopped(hurlbat: Hurlbat) -> None:
    hurlbat.task(name="quick")(lambda: None)
    await result_of(hurlbat, a_run("quick"))
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-quick", 1))).finish()
    assert answer.json["runs"][0]["status"] == "stopped"


async def test_lines_that_pile_up_behind_a_slow_stream_are_dropped_but_for_results(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def chatty(ctx: Context) -> None:
        for number in range(5_000):
            ctx.log(number)

    answer = await Exchange(hurlbat.asgi(), delivery(a_run("chatty"))).finish()
    assert len(answer.lines) == 1_001
    assert answer.lines[-1]["state"] == "completed"
