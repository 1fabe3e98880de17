"""What a task depends on is given back when the task is told to stop, and nothing that hangs keeps a result back."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest

from hurlbat import Cancelled, Context, Depends, Hurlbat
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery
from tests.sdk.fake_server import FakeServer, answer

pytestmark = pytest.mark.anyio

SOON, LATE = 0.05, 3600.0
"""Seconds: what hangs is not waited for longer, and what does not hang is waited for so long on a slow machine."""


class Told(list[str]):
    """What happened, in order."""

    def __init__(self) -> None:
        super().__init__()
        self._more = threading.Condition()

    def say(self, what: str) -> None:
        with self._more:
            self.append(what)
            self._more.notify_all()

    async def until(self, what: str) -> None:
        """Return once this has been said."""

        def wait() -> bool:
            with self._more:
                return self._more.wait_for(lambda: what in self, 120)

        assert await asyncio.to_thread(wait), self


FAIL = "POST /runs/run-use/attempts/1/fail"


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.on("POST /runs/run-use/attempts/1/heartbeat", answer(200, {"cancelled": False, "lease": 15}))
    server.on(FAIL, answer(200, {"recorded": True}))
    return server


@pytest.fixture
def hurlbat(server: FakeServer) -> Hurlbat:
    hurlbat = an_app()
    server.attach(hurlbat)
    return hurlbat


@pytest.fixture
def told() -> Told:
    return Told()


def wait_for_it(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for name in ("execution.LEAVE_SECONDS", "workbench.LEAVE_PATIENCE", "workbench.CANCEL_PATIENCE"):
        monkeypatch.setattr(f"hurlbat.{name}", seconds)


@pytest.fixture(autouse=True)
def much_time(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_it(monkeypatch, LATE)


@pytest.fixture
def patience(much_time: None, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_it(monkeypatch, SOON)


def lending(told: Told, name: str = "it") -> Callable[[], AsyncIterator[str]]:
    """Return a dependency that tells how it was entered and left."""

    async def lend() -> AsyncIterator[str]:
        told.say(f"enter {name}")
        try:
            yield name
        except BaseException as error:
            told.say(f"leave {name}: {type(error).__name__}")
            raise
        told.say(f"leave {name}")

    return lend


def lending_in_threads(told: Told, name: str = "it") -> Callable[[], Iterator[str]]:
    def lend() -> Iterator[str]:
        told.say(f"enter {name}")
        try:
            yield name
        except BaseException as error:
            told.say(f"leave {name}: {type(error).__name__}")
            raise
        told.say(f"leave {name}")

    return lend


KEY = ("run-use", 1)


def delivered(hurlbat: Hurlbat) -> Exchange:
    """Deliver a run of `use` that shall be stopped."""
    return Exchange(hurlbat.asgi(), delivery(a_run("use", execution_timeout=3600)))


async def stop(hurlbat: Hurlbat, exchange: Exchange, how: str) -> tuple[str, bool]:
    """Cancel the run, or let its time be over; return what its result says, and whether it is tried again."""
    if how == "cancel":
        await Exchange(hurlbat.asgi(), cancellation(KEY)).finish()
    else:
        hurlbat.workbench._running[KEY]._expire_at(asyncio.get_running_loop().time())
    await exchange.finish()
    result = exchange.results["run-use"]
    return result["error"]["type"], result["retryable"]


REASONS = {"cancel": ("cancelled", False), "time": ("execution_timeout", True)}
HOW = pytest.mark.parametrize("how", ["cancel", "time"])


# -- in order ----------------------------------------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("lend", [lending, lending_in_threads])
async def test_a_task_that_is_stopped_gives_back_before_it_is_reported(
    hurlbat: Hurlbat, told: Told, how: str, lend: Any
) -> None:
    @hurlbat.task
    async def use(*, _: Annotated[str, Depends(lend(told))]) -> None:
        told.say("task")
        await asyncio.sleep(3600)

    exchange = delivered(hurlbat)
    await told.until("task")
    assert await stop(hurlbat, exchange, how) == REASONS[how]
    assert told == ["enter it", "task", "leave it: CancelledError"]
    assert not hurlbat.workbench._unfinished


@HOW
async def test_a_stop_while_one_is_entered_leaves_those_before_it(hurlbat: Hurlbat, told: Told, how: str) -> None:
    async def slow(_: Annotated[str, Depends(lending(told))]) -> AsyncIterator[None]:
        told.say("entering")
        await asyncio.sleep(3600)
        yield

    @hurlbat.task
    async def use(*, _: Annotated[None, Depends(slow)]) -> None:
        told.say("task")

    exchange = delivered(hurlbat)
    await told.until("entering")
    assert await stop(hurlbat, exchange, how) == REASONS[how]
    assert told == ["enter it", "entering", "leave it: CancelledError"]


@HOW
async def test_a_stop_while_one_is_left_goes_on_to_leave_the_others(hurlbat: Hurlbat, told: Told, how: str) -> None:
    async def slow(_: Annotated[str, Depends(lending(told))]) -> AsyncIterator[None]:
        yield
        told.say("leaving")
        await asyncio.sleep(3600)

    @hurlbat.task
    async def use(*, _: Annotated[None, Depends(slow)]) -> None: ...

    exchange = delivered(hurlbat)
    await told.until("leaving")
    assert await stop(hurlbat, exchange, how) == REASONS[how]
    assert told == ["enter it", "leaving", "leave it: CancelledError"]


@HOW
@pytest.mark.parametrize("sync", [False, True])
async def test_what_was_entered_in_a_thread_while_it_was_stopped_is_left(
    hurlbat: Hurlbat, told: Told, how: str, sync: bool, patience: None
) -> None:
    gate = threading.Event()

    def slow(_: Annotated[str, Depends(lending(told, "below"))]) -> Iterator[None]:
        told.say("entering")
        gate.wait(120)
        try:
            yield
        except BaseException as error:
            told.say(f"leave it: {type(error).__name__}")
            raise

    if sync:

        @hurlbat.task(name="use")
        def use(*, _: Annotated[None, Depends(slow)]) -> None:
            told.say("task")
    else:

        @hurlbat.task(name="use")
        async def use_async(*, _: Annotated[None, Depends(slow)]) -> None:
            told.say("task")

    exchange = delivered(hurlbat)
    await told.until("entering")
    # it cannot be stopped, and so is reported without
    assert await stop(hurlbat, exchange, how) == REASONS[how]
    assert told == ["enter below", "entering"]
    [handle] = hurlbat.workbench._unfinished.values()
    gate.set()
    await asyncio.wait([handle])
    assert told[2:] == ["leave it: CancelledError", "leave below: CancelledError"]
    assert not hurlbat.workbench._unfinished


# -- sync tasks --------------------------------------------------------------------------------------------------------


async def test_a_sync_task_beyond_its_time_is_reported_at_once_and_keeps_what_it_uses_until_it_has_ended(
    hurlbat: Hurlbat, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.execution.LEAVE_SECONDS", 3600)
    gate = threading.Event()

    @hurlbat.task
    def use(
        ctx: Context,
        one: Annotated[str, Depends(lending(told, "one"))],
        two: Annotated[str, Depends(lending_in_threads(told, "two"))],
    ) -> str:
        told.say("task")
        gate.wait(120)
        told.say(f"task: {ctx.cancelled}")
        return "late"

    exchange = delivered(hurlbat)
    await told.until("task")
    assert await stop(hurlbat, exchange, "time") == REASONS["time"]
    assert told == ["enter one", "enter two", "task"]
    said = await Exchange(hurlbat.asgi(), cancellation(KEY)).finish()
    assert said.json["runs"][0]["status"] == "unknown"
    [handle] = hurlbat.workbench._unfinished.values()
    gate.set()
    await asyncio.wait([handle])
    # what comes too late is not kept: who would commit when all is well is told that it is not
    assert told[3:] == ["task: True", "leave two: CancelledError", "leave one: CancelledError"]
    said = await Exchange(hurlbat.asgi(), cancellation(KEY)).finish()
    assert said.json["runs"][0]["status"] == "stopped"


async def test_a_sync_task_that_looks_at_its_flag_gives_back_when_it_is_cancelled(hurlbat: Hurlbat, told: Told) -> None:
    @hurlbat.task
    def use(ctx: Context, _: Annotated[str, Depends(lending_in_threads(told))]) -> None:
        told.say("task")
        while True:
            threading.Event().wait(0.001)
            ctx.raise_if_cancelled()

    exchange = delivered(hurlbat)
    await told.until("task")
    assert await stop(hurlbat, exchange, "cancel") == REASONS["cancel"]
    assert told == ["enter it", "task", f"leave it: {Cancelled.__name__}"]


async def test_a_sync_task_that_ends_well_although_it_was_cancelled_has_ended_well(
    hurlbat: Hurlbat, told: Told
) -> None:
    gate = threading.Event()

    @hurlbat.task
    def use(_: Annotated[str, Depends(lending(told))]) -> str:
        told.say("task")
        gate.wait(120)
        return "done"

    exchange = delivered(hurlbat)
    await told.until("task")
    cancel = Exchange(hurlbat.asgi(), cancellation(KEY))
    while hurlbat.workbench._running[KEY].stop_reason is None:  # noqa: ASYNC110 -- it is told by the very next steps
        await asyncio.sleep(0)
    gate.set()
    await exchange.finish()
    assert (await cancel.finish()).json["runs"][0]["status"] == "stopped"
    assert exchange.results["run-use"]["output"] == "done"
    assert told == ["enter it", "task", "leave it"]


# -- what hangs --------------------------------------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("place", ["entering", "leaving"])
async def test_a_dependency_that_will_not_stop_does_not_keep_the_result_back(
    hurlbat: Hurlbat, told: Told, how: str, place: str, patience: None
) -> None:
    gate = asyncio.Event()

    async def hang(at: str) -> None:
        while at == place and not gate.is_set():
            try:
                told.say(f"hangs {at}")
                await gate.wait()
            except asyncio.CancelledError:
                pass

    async def deaf(_: Annotated[str, Depends(lending(told))]) -> AsyncIterator[None]:
        await hang("entering")
        try:
            yield
        finally:
            await hang("leaving")

    @hurlbat.task
    async def use(*, _: Annotated[None, Depends(deaf)]) -> str:
        return "done"

    exchange = delivered(hurlbat)
    await told.until(f"hangs {place}")
    assert await stop(hurlbat, exchange, how) == REASONS[how]
    [handle] = hurlbat.workbench._unfinished.values()
    assert not any(said.startswith("leave it") for said in told)
    gate.set()
    await asyncio.wait([handle])
    assert any(said.startswith("leave it") for said in told)


@pytest.mark.parametrize("lend", [lending, lending_in_threads])
async def test_a_drain_gives_back_what_is_held(hurlbat: Hurlbat, told: Told, lend: Any) -> None:
    @hurlbat.task
    async def use(*, _: Annotated[str, Depends(lend(told))]) -> None:
        told.say("task")
        await asyncio.sleep(3600)

    exchange = delivered(hurlbat)
    await told.until("task")
    await hurlbat.workbench.drain(0)
    await exchange.finish()
    assert told[-1] == "leave it: CancelledError"
    assert told == ["enter it", "task", "leave it: CancelledError"]
    assert hurlbat.workbench._running == {}


async def test_a_drain_waits_a_moment_for_those_that_are_leaving(
    hurlbat: Hurlbat, told: Told, server: FakeServer
) -> None:
    async def lend() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await server.asked(FAIL)
            for _ in range(50):  # longer than all that the drain has to do besides
                await asyncio.sleep(0)
            told.say("left")

    @hurlbat.task
    async def use(*, _: Annotated[None, Depends(lend)]) -> None:
        told.say("task")
        await asyncio.sleep(3600)

    exchange = delivered(hurlbat)
    await told.until("task")
    await hurlbat.workbench.drain(0)
    assert told == ["task", "left"]
    await exchange.finish()


async def test_what_a_sync_task_makes_after_it_was_given_back_is_not_kept(
    hurlbat: Hurlbat, told: Told, patience: None
) -> None:
    gate = threading.Event()

    @hurlbat.task
    def use(_: Annotated[str, Depends(lending_in_threads(told))]) -> str:
        told.say("task")
        gate.wait(120)
        return "late"

    exchange = delivered(hurlbat)
    await told.until("task")
    await hurlbat.workbench.drain(0)
    await exchange.finish()
    [handle] = hurlbat.workbench._unfinished.values()
    gate.set()
    await asyncio.wait([handle])
    assert told == ["enter it", "task", "leave it: CancelledError"]


async def test_a_drain_is_not_held_up_by_what_hangs(hurlbat: Hurlbat, told: Told, patience: None) -> None:
    gate = threading.Event()

    def lend() -> Iterator[None]:
        yield
        told.say("leaving")
        gate.wait(120)

    @hurlbat.task
    async def use(*, _: Annotated[None, Depends(lend)]) -> None: ...

    exchange = delivered(hurlbat)
    await told.until("leaving")
    async with asyncio.timeout(120):
        await hurlbat.workbench.drain(SOON)
    await exchange.finish()
    [handle] = hurlbat.workbench._unfinished.values()
    gate.set()
    await asyncio.wait([handle])


async def test_an_error_in_leaving_after_the_report_is_in_the_log(
    hurlbat: Hurlbat, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    async def lend() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise LookupError("where is it?")

    @hurlbat.task
    def use(_: Annotated[None, Depends(lend)]) -> None:
        told.say("task")
        gate.wait(120)

    exchange = delivered(hurlbat)
    await told.until("task")
    assert await stop(hurlbat, exchange, "time") == REASONS["time"]
    [handle] = hurlbat.workbench._unfinished.values()
    gate.set()
    await asyncio.wait([handle])
    assert "LookupError: where is it?" in caplog.text
