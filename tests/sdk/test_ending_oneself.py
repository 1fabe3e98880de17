"""A task that cancels its own run, and one that goes on although it was told to stop."""

import asyncio
import threading

import pytest

from hurlbat import (
    CancelRun,
    Hurlbat,
    RunCancelled,
)
from hurlbat.runs import Run
from hurlbat.wire import BadLine, CancelledLine, read_line, read_results, write_line
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


# -- a task that cancels its own run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["async", "sync"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CancelRun("no such order"), "no such order"),
        (CancelRun(), None),
        (CancelRun("x" * 300), "x" * 256),
        (CancelRun("\ud800"), "?"),
    ],
)
async def test_a_task_ends_its_run_as_cancelled(
    hurlbat: Hurlbat, manner: str, error: CancelRun, reason: str | None
) -> None:
    def give_in() -> None:
        raise error

    async def give_in_async() -> None:
        raise error

    hurlbat.task(name="t")(give_in if manner == "sync" else give_in_async)
    line = await result_of(hurlbat, a_run("t"))
    assert line == {"type": "result", "run_id": "run-t", "attempt": 1, "state": "cancelled", "reason": reason}
    again = await Exchange(hurlbat.asgi(), delivery(a_run("t"))).finish()
    assert again.results["run-t"] == line


@pytest.mark.parametrize("reason", [None, 'said "so"\n'])
def test_the_wire_reads_a_cancelled_result_as_it_is_written(reason: str | None) -> None:
    line = CancelledLine("r", 1, reason)
    assert read_line(write_line(line)) == line
    assert read_results(f'{{"results":[{write_line(line)}]}}') == [line]


def test_a_reason_is_a_text_that_is_cut() -> None:
    head = '{"type":"result","run_id":"r","attempt":1,"state":"cancelled"'
    assert read_line(head + "}") == CancelledLine("r", 1)
    assert read_line(head + ',"reason":""}') == CancelledLine("r", 1)
    assert read_line(head + f',"reason":"{"x" * 300}"}}') == CancelledLine("r", 1, "x" * 256)
    with pytest.raises(BadLine, match="reason is not a string"):
        read_line(head + ',"reason":5}')
    with pytest.raises(BadLine, match='none of "completed", "failed" and "cancelled"'):
        read_line(head.replace("cancelled", "skipped") + "}")


def test_who_cancelled_a_run_is_told() -> None:
    error = RunCancelled(Run("r", "t", "cancelled", reason="no such order", cancelled_by="task"))
    assert (error.by, error.reason, str(error)) == ("task", "no such order", "t was cancelled: no such order")
    assert RunCancelled(Run("r", "t", "skipped")).by is None


# -- a task that goes on although it was told to stop ------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["async", "sync"])
async def test_a_task_that_goes_on_after_its_cancellation_is_logged_and_holds_nothing_up(
    hurlbat: Hurlbat, manner: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.workbench.CANCEL_PATIENCE", 0.05)
    caplog.set_level("INFO", "hurlbat")
    gate, told_to_stop = threading.Event(), asyncio.Event()

    def stubborn() -> str:
        gate.wait(120)
        return "late"

    async def stubborn_async() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told_to_stop.set()
        await asyncio.to_thread(gate.wait, 120)
        return "late"

    hurlbat.task(name="t")(stubborn if manner == "sync" else stubborn_async)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("t")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-t", 1))).finish()
    assert answer.json["runs"][0]["status"] == "unknown"
    assert told_to_stop.is_set() or manner == "sync"
    gate.set()
    await exchange.finish()
    assert "t went on although it was told to stop (asked by a user)" in caplog.text
    await hurlbat.workbench.drain(0.1)


async def test_a_task_that_never_stops_is_given_back_by_a_drain(
    hurlbat: Hurlbat, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.workbench.CANCEL_PATIENCE", 0.05)
    over = asyncio.Event()

    @hurlbat.task
    async def deaf() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("deaf")))
    await exchange.until(1, "started")
    await Exchange(hurlbat.asgi(), cancellation(("run-deaf", 1))).finish()
    async with asyncio.timeout(120):
        await hurlbat.workbench.drain(0.05)
        assert "did not end in time and is given back" in caplog.text
        over.set()
        await exchange.task
