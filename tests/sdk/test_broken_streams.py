"""When the connection breaks or the app stops, runs go on and report by themselves."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hurlbat import CancelRun, Context, Hurlbat
from hurlbat.workbench import Workbench
from tests.sdk.exchange import Exchange, a_run, an_app, delivery
from tests.sdk.fake_server import FakeServer, answer, problem

pytestmark = pytest.mark.anyio

ATTEMPT = "POST /runs/run-slow/attempts/1"
GOING_ON = answer(200, {"cancelled": False, "lease": 600})
RECORDED = answer(200, {"recorded": True})


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.on(f"{ATTEMPT}/heartbeat", GOING_ON)
    for action in ("complete", "fail", "cancel", "log"):
        server.on(f"{ATTEMPT}/{action}", RECORDED)
    return server


@pytest.fixture
def hurlbat(server: FakeServer) -> Hurlbat:
    hurlbat = an_app(threads=1)
    server.attach(hurlbat)
    hurlbat.workbench = Workbench(hurlbat.tasks, hurlbat.client.http, threads=1, heartbeat=0.02)
    return hurlbat


def by_hand(hurlbat: Hurlbat) -> tuple[asyncio.Event, asyncio.Event]:
    """Declare the task `slow`, which ends when the first event is set; the second tells that it was cancelled."""
    gate, cancelled = asyncio.Event(), asyncio.Event()

    @hurlbat.task
    async def slow(ctx: Context) -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        ctx.log("nearly done", level="warning")
        ctx.progress(0.9, "of it")
        return "done"

    return gate, cancelled


async def a_broken_stream(hurlbat: Hurlbat, *runs: Any) -> Exchange:
    exchange = Exchange(hurlbat.asgi(), delivery(*(runs or (a_run("slow"),))))
    await exchange.until(1, "started")
    exchange.disconnect()
    await exchange.finish()
    return exchange


async def test_a_run_whose_stream_broke_goes_on_beats_and_reports_its_result(
    hurlbat: Hurlbat, server: FakeServer
) -> None:
    gate, _ = by_hand(hurlbat)
    await a_broken_stream(hurlbat)
    await server.asked(f"{ATTEMPT}/heartbeat", 2)
    gate.set()
    await server.asked(f"{ATTEMPT}/complete")
    assert server.bodies(f"{ATTEMPT}/complete") == [{"output": "done"}]
    entries = [entry for body in server.bodies(f"{ATTEMPT}/log") for entry in body["entries"]]
    assert entries == [{"level": "warning", "message": "nearly done"}, {"level": "info", "message": "90% of it"}]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer lease-token"}


async def test_a_failure_is_reported_with_the_members_of_a_result_line(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        await gate.wait()
        raise ValueError("no")

    await a_broken_stream(hurlbat)
    gate.set()
    await server.asked(f"{ATTEMPT}/fail")
    (body,) = server.bodies(f"{ATTEMPT}/fail")
    assert set(body) == {"error", "retryable"}
    assert (body["error"]["type"], body["error"]["message"], body["retryable"]) == ("ValueError", "no", True)


async def test_a_task_s_own_cancellation_is_reported_with_its_reason(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        await gate.wait()
        raise CancelRun("no such order")

    await a_broken_stream(hurlbat)
    gate.set()
    await server.asked(f"{ATTEMPT}/cancel")
    assert server.bodies(f"{ATTEMPT}/cancel") == [{"reason": "no such order"}]


async def test_an_attempt_that_is_over_and_does_not_stop_is_told_of_no_more(
    hurlbat: Hurlbat, server: FakeServer
) -> None:
    server.on(f"{ATTEMPT}/heartbeat", problem(409, "attempt_over"))
    gate, told = asyncio.Event(), asyncio.Event()

    @hurlbat.task
    async def slow() -> str:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            told.set()
        await gate.wait()
        return "late"

    await a_broken_stream(hurlbat)
    async with asyncio.timeout(120):
        await told.wait()
        if hurlbat.workbench._reports:
            await asyncio.wait(hurlbat.workbench._reports)
    gate.set()
    await hurlbat.workbench.drain(30)
    assert server.calls() == [f"{ATTEMPT}/heartbeat"]


async def test_a_stream_whose_send_fails_is_a_broken_one(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate, _ = by_hand(hurlbat)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    await exchange.until(1, "started")
    exchange.send_error = OSError("gone")
    gate.set()
    await exchange.finish()
    await server.asked(f"{ATTEMPT}/complete")


async def test_a_request_that_the_server_cancels_is_a_broken_one(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate, cancelled = by_hand(hurlbat)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    await exchange.until(1, "started")
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    gate.set()
    await server.asked(f"{ATTEMPT}/complete")
    assert not cancelled.is_set()


async def test_a_result_that_was_sent_before_the_break_is_reported_too(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate, _ = by_hand(hurlbat)
    hurlbat.task(name="quick")(lambda: 7)
    server.on("POST /runs/run-quick/attempts/1/complete", problem(409, "attempt_over"))
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow"), a_run("quick")))
    await exchange.until(1, "result")
    exchange.disconnect()
    await exchange.finish()
    await server.asked("POST /runs/run-quick/attempts/1/complete")
    gate.set()
    await server.asked(f"{ATTEMPT}/complete")
    assert server.calls().count("POST /runs/run-quick/attempts/1/complete") == 1


async def test_a_run_that_had_not_started_when_the_stream_broke_never_does(
    hurlbat: Hurlbat, server: FakeServer
) -> None:
    gate, started = threading.Event(), list[str]()

    @hurlbat.task
    def slow(ctx: Context) -> str:
        started.append(ctx.run_id)
        gate.wait(120)
        return "done"

    await a_broken_stream(hurlbat, a_run("slow"), a_run("slow", run_id="never"))
    gate.set()
    await server.asked(f"{ATTEMPT}/complete")
    await hurlbat.workbench.drain(1)
    assert started == ["run-slow"]
    assert not [call for call in server.calls() if "never" in call]


async def test_the_reply_to_a_heartbeat_cancels_the_task(hurlbat: Hurlbat, server: FakeServer) -> None:
    _, cancelled = by_hand(hurlbat)
    server.on(f"{ATTEMPT}/heartbeat", GOING_ON, answer(200, {"cancelled": True, "lease": 600}))
    await a_broken_stream(hurlbat)
    async with asyncio.timeout(120):
        await cancelled.wait()
    await hurlbat.workbench.drain(1)
    assert set(server.calls()) == {f"{ATTEMPT}/heartbeat"}


@pytest.mark.parametrize("status", [401, 404, 409, 410])
async def test_an_attempt_that_the_server_has_given_up_is_stopped(
    hurlbat: Hurlbat, server: FakeServer, status: int
) -> None:
    _, cancelled = by_hand(hurlbat)
    server.on(f"{ATTEMPT}/heartbeat", problem(status, "attempt_over"))
    await a_broken_stream(hurlbat)
    async with asyncio.timeout(120):
        await cancelled.wait()


@pytest.mark.parametrize(
    "trouble",
    [httpx.ConnectError("away"), httpx.ReadTimeout("slow"), problem(503, "unavailable"), problem(429, "busy")],
)
async def test_a_result_is_offered_again_while_the_server_is_away(
    hurlbat: Hurlbat, server: FakeServer, trouble: Any
) -> None:
    gate, cancelled = by_hand(hurlbat)
    server.on(f"{ATTEMPT}/heartbeat", GOING_ON, trouble)
    server.on(f"{ATTEMPT}/log", trouble, RECORDED)
    server.on(f"{ATTEMPT}/complete", trouble, trouble, RECORDED)
    await a_broken_stream(hurlbat)
    await server.asked(f"{ATTEMPT}/heartbeat", 3)
    gate.set()
    await server.asked(f"{ATTEMPT}/complete", 3)
    assert not cancelled.is_set()
    assert [len(body["entries"]) for body in server.bodies(f"{ATTEMPT}/log")] == [2, 2]


async def test_a_result_is_not_offered_for_ever(hurlbat: Hurlbat, server: FakeServer) -> None:
    hurlbat.workbench._lease = 0.5
    gate, _ = by_hand(hurlbat)
    server.on(f"{ATTEMPT}/heartbeat", problem(503, "unavailable"))
    server.on(f"{ATTEMPT}/log", problem(503, "unavailable"))
    server.on(f"{ATTEMPT}/complete", problem(503, "unavailable"))
    await a_broken_stream(hurlbat)
    gate.set()
    await server.asked(f"{ATTEMPT}/complete")
    async with asyncio.timeout(120):
        while hurlbat.workbench._reports:
            await asyncio.wait(hurlbat.workbench._reports)


# -- the app stops -----------------------------------------------------------------------------------------------------


def a_stubborn_task(hurlbat: Hurlbat, sync: bool) -> Callable[[], None]:
    gate = threading.Event()

    def in_thread() -> None:
        gate.wait(120)

    async def in_loop() -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if gate.is_set():
                    raise

    hurlbat.task(name="slow")(in_thread if sync else in_loop)
    return gate.set


async def test_draining_closes_the_streams_and_lets_the_runs_end(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate, cancelled = by_hand(hurlbat)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow")))
    await exchange.until(1, "started")
    draining = asyncio.create_task(hurlbat.workbench.drain(120))
    await exchange.finish()
    assert (exchange.results, exchange.complete) == ({}, True)
    gate.set()
    await draining
    assert server.bodies(f"{ATTEMPT}/complete") == [{"output": "done"}]
    assert not cancelled.is_set()


@pytest.mark.parametrize("sync", [False, True])
async def test_a_run_that_does_not_end_within_the_grace_time_is_given_back(
    hurlbat: Hurlbat, server: FakeServer, sync: bool
) -> None:
    release = a_stubborn_task(hurlbat, sync)
    await a_broken_stream(hurlbat)
    (handle,) = [execution.handle for execution in hurlbat.workbench._running.values()]
    await hurlbat.workbench.drain(0.05)
    (body,) = server.bodies(f"{ATTEMPT}/fail")
    assert (body["error"]["type"], body["retryable"]) == ("worker_stopped", True)
    release()
    handle.cancel()
    await asyncio.wait([handle])


async def test_a_worker_that_drains_takes_nothing_new_and_says_when_to_come_back(hurlbat: Hurlbat) -> None:
    hurlbat.task(name="quick")(lambda: None)
    await hurlbat.workbench.drain(0)
    refused = await Exchange(hurlbat.asgi(), delivery(a_run("quick"))).finish()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["hurlbat-worker"] == hurlbat.manifest().version
    hurlbat.workbench.open()
    assert (await Exchange(hurlbat.asgi(), delivery(a_run("quick"))).finish()).status == 200


async def test_the_lifespan_drains(hurlbat: Hurlbat, server: FakeServer) -> None:
    gate, _ = by_hand(hurlbat)
    async with hurlbat.lifespan():
        await a_broken_stream(hurlbat)
        await server.asked(f"{ATTEMPT}/heartbeat")
        gate.set()
    assert server.bodies(f"{ATTEMPT}/complete") == [{"output": "done"}]
    assert hurlbat.workbench.draining
