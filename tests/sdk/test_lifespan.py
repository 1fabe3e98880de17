"""What the tasks of an app share: opened before the first of them, closed after the last, wherever it is served."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import ConfigError, Context, Hurlbat
from hurlbat.opening import Opening
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of
from tests.sdk.fake_server import FakeServer, answer

pytestmark = pytest.mark.anyio


class Life:
    """Tells when it was opened and closed; fails where it is told to."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.gate: asyncio.Event | None = None

    @asynccontextmanager
    async def __call__(self, hurlbat: Hurlbat) -> AsyncIterator[dict[str, str]]:
        self.told.append("opening")
        if self.gate is not None:
            await self.gate.wait()
        if "open" in self.failing:
            raise self.failing["open"]
        async with anyio.create_task_group():  # refuses to be left in another asyncio task
            self.told.append("open")
            yield {"tasks": " ".join(sorted(hurlbat.tasks))}
            self.told.append("close")  # not in a finally: whoever ends it, no error is thrown in here
        if "close" in self.failing:
            raise self.failing["close"]


@pytest.fixture
def life() -> Life:
    return Life()


@pytest.fixture
def hurlbat(life: Life) -> Hurlbat:
    hurlbat, server = an_app(lifespan=life, grace=30), FakeServer()
    server.on("POST /runs/run-wait/attempts/1/heartbeat", answer(200, {"cancelled": False, "lease": 15}))
    for action in ("complete", "fail"):
        server.on(f"POST /runs/run-wait/attempts/1/{action}", answer(200, {"recorded": True}))
    server.attach(hurlbat)

    @hurlbat.task
    async def look(ctx: Context) -> Any:
        return ctx.state

    return hurlbat


def waiting(hurlbat: Hurlbat, life: Life) -> tuple[asyncio.Event, asyncio.Event]:
    """Declare a task that tells when it ends, which it does when the second event is set; the first says it began."""
    begun, gate = asyncio.Event(), asyncio.Event()

    @hurlbat.task
    async def wait(ctx: Context) -> None:
        begun.set()
        try:
            await gate.wait()
        finally:
            await asyncio.sleep(0)
            life.told.append(f"end of a task that has {ctx.state}")

    return begun, gate


class Lifespan:
    """The lifespan of an ASGI application, as a server runs it."""

    def __init__(self, app: Any) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(app({"type": "lifespan", "state": {}}, self.said.get, self._hear))

    async def tell(self, what: str) -> dict[str, Any]:
        self.said.put_nowait({"type": f"lifespan.{what}"})
        async with asyncio.timeout(120):
            return await self.heard.get()

    async def _hear(self, message: Any) -> None:
        self.heard.put_nowait(message)


def alone(hurlbat: Hurlbat) -> Any:
    return hurlbat.asgi()


def mounted(hurlbat: Hurlbat) -> Any:
    return Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], lifespan=hurlbat.lifespan)


def in_fastapi(hurlbat: Hurlbat) -> Any:
    app = FastAPI(lifespan=hurlbat.lifespan)
    app.mount("/hurlbat", hurlbat.asgi())
    return app


PLACES = pytest.mark.parametrize("place", [alone, mounted, in_fastapi])


@PLACES
async def test_it_is_open_before_the_app_has_started_and_closes_after_the_last_task(
    hurlbat: Hurlbat, life: Life, place: Callable[[Hurlbat], Any]
) -> None:
    begun, gate = waiting(hurlbat, life)
    for _ in range(2):  # one process may start its app again
        lifespan = Lifespan(place(hurlbat))
        assert (await lifespan.tell("startup"))["type"] == "lifespan.startup.complete"
        assert life.told == ["opening", "open"]
        assert (await result_of(hurlbat, a_run("look")))["output"] == {"tasks": "look wait"}
        exchange = Exchange(hurlbat.asgi(), delivery(a_run("wait")))
        await begun.wait()
        ended = asyncio.create_task(lifespan.tell("shutdown"))
        await exchange.finish()  # the stream is closed, and the task goes on
        assert "close" not in life.told
        gate.set()
        assert (await ended)["type"] == "lifespan.shutdown.complete"
        assert life.told == ["opening", "open", "end of a task that has {'tasks': 'look wait'}", "close"]
        await lifespan.task
        life.told.clear()
        begun.clear()
        gate.clear()
        hurlbat.workbench._recent.clear()


@PLACES
async def test_an_app_whose_tasks_cannot_be_served_does_not_start(
    hurlbat: Hurlbat, life: Life, place: Callable[[Hurlbat], Any]
) -> None:
    error = life.failing["open"] = LookupError("no database")
    lifespan = Lifespan(place(hurlbat))
    said = await lifespan.tell("startup")
    assert said["type"] == "lifespan.startup.failed"
    assert "LookupError: no database" in said["message"]
    await asyncio.wait([lifespan.task])
    assert lifespan.task.exception() is error


async def test_an_error_in_closing_is_the_app_s(hurlbat: Hurlbat, life: Life) -> None:
    life.failing["close"] = LookupError("no database any more")
    lifespan = Lifespan(hurlbat.asgi())
    await lifespan.tell("startup")
    said = await lifespan.tell("shutdown")
    assert said["type"] == "lifespan.shutdown.failed"
    assert "no database any more" in said["message"]
    await asyncio.wait([lifespan.task])
    assert lifespan.task.exception() is life.failing["close"]


# -- where nobody runs a lifespan --------------------------------------------------------------------------------------


async def test_without_a_lifespan_the_first_delivery_opens_and_others_wait_for_that(
    hurlbat: Hurlbat, life: Life
) -> None:
    life.gate = asyncio.Event()
    exchanges = [Exchange(hurlbat.asgi(), delivery(a_run("look", run_id=f"run-{n}"))) for n in range(3)]
    probe = await Exchange(hurlbat.asgi(), cancellation(("run-0", 1))).finish()  # what is no delivery opens nothing
    assert probe.status == 200
    assert life.told == ["opening"]
    life.gate.set()
    for exchange in exchanges:
        [result] = (await exchange.finish()).results.values()
        assert result["output"] == {"tasks": "look"}
    assert (await result_of(hurlbat, a_run("look")))["output"] == {"tasks": "look"}
    assert life.told == ["opening", "open"]


async def test_a_delivery_that_cannot_open_is_put_off_uncharged_and_the_next_tries_again(
    hurlbat: Hurlbat, life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    life.failing["open"] = LookupError("no database")
    refused = await Exchange(hurlbat.asgi(), delivery(a_run("look"))).finish()
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert refused.headers["hurlbat-worker"] == hurlbat.manifest().version  # without it the attempt would be charged
    assert refused.json["code"] == "lifespan_failed"
    assert refused.json["detail"] == "what the tasks share could not be opened: LookupError: no database"
    assert "no database" in caplog.text
    life.failing.clear()
    assert (await result_of(hurlbat, a_run("look")))["output"] == {"tasks": "look"}


async def test_a_lifespan_that_comes_later_takes_over_what_a_delivery_opened(hurlbat: Hurlbat, life: Life) -> None:
    await result_of(hurlbat, a_run("look"))
    async with hurlbat.lifespan():
        assert life.told == ["opening", "open"]
    assert life.told == ["opening", "open", "close"]


def test_when_the_loop_ends_it_closes_after_the_tasks_and_opens_again_in_another_loop(
    hurlbat: Hurlbat, life: Life
) -> None:
    async def serve() -> None:
        begun, _ = waiting(hurlbat, life)
        Exchange(hurlbat.asgi(), delivery(a_run("wait")))
        await begun.wait()

    for _ in range(2):
        asyncio.run(serve())
        assert life.told == ["opening", "open", "end of a task that has {'tasks': 'look wait'}", "close"]
        life.told.clear()
        del hurlbat.tasks["wait"]
        hurlbat.workbench._recent.clear()


def test_what_a_dead_loop_held_open_is_opened_again_in_another(hurlbat: Hurlbat, life: Life) -> None:
    async def state() -> Any:
        return (await result_of(hurlbat, a_run("look")))["output"]

    dead = asyncio.new_event_loop()
    dead.run_until_complete(state())
    hurlbat.workbench._recent.clear()
    assert asyncio.run(state()) == {"tasks": "look"}
    assert life.told == ["opening", "open", "opening", "open", "close"]
    left = asyncio.all_tasks(dead)
    for task in left:
        task.cancel()
    dead.run_until_complete(asyncio.wait(left))
    dead.close()


async def test_a_lifespan_of_a_kind_that_cannot_be_entered_says_so() -> None:
    async def forgot(hurlbat: Hurlbat) -> AsyncIterator[None]:
        yield

    wrong: Callable[[Hurlbat], AbstractAsyncContextManager[Any]] = forgot  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="it must be made by @asynccontextmanager"):
        async with an_app(lifespan=wrong).lifespan():
            pass


async def test_without_one_the_state_is_none() -> None:
    hurlbat = an_app()
    hurlbat.task(name="look")(lambda: None)

    @hurlbat.task
    def see(ctx: Context) -> bool:
        return ctx.state is None

    assert (await result_of(hurlbat, a_run("see")))["output"] is True


def test_who_held_it_on_a_loop_that_was_lost_takes_nothing_from_who_holds_it_now() -> None:
    """As where a server forks after the app was opened: what is left of the parent's loop is thrown away some day."""
    opened: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[str]:
        opened.append(f"state {len(opened)}")
        yield opened[-1]

    opening = Opening(lifespan)
    lost, loop = asyncio.new_event_loop(), asyncio.new_event_loop()
    lost.run_until_complete(opening.enter())
    held: Any = next(iter(asyncio.all_tasks(lost)))
    try:
        loop.run_until_complete(opening.enter())
        held.get_coro().close()
        assert (opening.state, opened) == ("state 1", ["state 0", "state 1"])
        loop.run_until_complete(opening.leave())
        assert opening.state is None
    finally:
        held._log_destroy_pending = False
        lost.close()
        loop.close()
