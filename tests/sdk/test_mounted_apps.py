"""`hurlbat.mount`: a path of any app is the worker's, and its lifespan lies within the app's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from hurlbat import ConfigError, Hurlbat
from tests.sdk.exchange import a_run, an_app, delivery, signed

pytestmark = pytest.mark.anyio


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def hurlbat(told: list[str]) -> Hurlbat:
    @asynccontextmanager
    async def lifespan(hurlbat: Hurlbat) -> AsyncIterator[None]:
        told.append("tasks open")
        yield
        told.append("tasks closed")

    hurlbat = an_app(lifespan=lifespan)

    @hurlbat.task
    async def double(number: int) -> int:
        return number * 2

    return hurlbat


async def the_rest(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http", f"a {scope['type']}, which this app knows nothing of"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"the rest at {scope['path']}".encode()})


def around_a_function(hurlbat: Hurlbat) -> Any:
    return hurlbat.mount(the_rest)


def in_starlette(hurlbat: Hurlbat) -> Any:
    return Starlette(middleware=[Middleware(hurlbat.mount), Middleware(GZipMiddleware, minimum_size=0)])


def in_fastapi(hurlbat: Hurlbat) -> Any:
    app = FastAPI()
    app.add_middleware(hurlbat.mount, path="/hurlbat/")
    return app


def at_the_root(hurlbat: Hurlbat) -> Any:
    return hurlbat.mount(the_rest, "/")


async def ask(app: Any, method: str, path: str, root_path: str = "", **more: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker.test") as client:
        return await client.request(method, path, **more)


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (around_a_function, "/hurlbat"),
        (in_starlette, "/hurlbat"),
        (in_fastapi, "/hurlbat"),
        (at_the_root, ""),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("root_path", "stays"), [("", ""), ("/api", "/api"), ("/api", ""), ("/", "")])
async def test_a_delivery_is_answered_with_and_without_a_slash_behind_any_prefix(
    hurlbat: Hurlbat, place: Any, path: str, slash: str, root_path: str, stays: str
) -> None:
    body = delivery(a_run("double", 21))
    answer = await ask(place(hurlbat), "POST", stays + path + slash, root_path, content=body, headers=signed(body))
    assert (answer.status_code, answer.text.count('"completed"')) == (200, 1)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("root_path", ["", "/api"])
async def test_an_app_in_an_app_may_have_the_worker(hurlbat: Hurlbat, slash: str, root_path: str) -> None:
    outer, middle, body = FastAPI(), FastAPI(), delivery(a_run("double", 21))
    middle.mount("/inner", in_fastapi(hurlbat))
    outer.mount("/outer", middle)
    path = f"{root_path}/outer/inner/hurlbat{slash}"
    answer = await ask(outer, "POST", path, root_path, content=body, headers=signed(body))
    assert (answer.status_code, answer.text.count('"completed"')) == (200, 1)


@pytest.mark.parametrize("path", ["/", "/hurlbats", "/hurlbat/more", "/api", "/other/hurlbat"])
async def test_every_other_path_is_the_app_s(hurlbat: Hurlbat, path: str) -> None:
    assert (await ask(hurlbat.mount(the_rest), "POST", path)).text == f"the rest at {path}"


async def test_a_websocket_at_the_path_is_the_app_s(hurlbat: Hurlbat) -> None:
    with pytest.raises(AssertionError, match="a websocket"):
        await hurlbat.mount(the_rest)({"type": "websocket", "path": "/hurlbat"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("app", "path", "said"),
    [(the_rest, "hurlbat", "the path 'hurlbat' does not begin"), ("/hurlbat", "/", "mount\\(\\) takes the ASGI app")],
)
def test_what_cannot_be_mounted_is_told(hurlbat: Hurlbat, app: Any, path: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        hurlbat.mount(app, path)


class Life:
    """A server that goes through an app's lifespan."""

    def __init__(self, app: Any, told: list[str]) -> None:
        self.said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._told = told
        self.task = asyncio.create_task(app({"type": "lifespan", "state": {}}, self._heard.get, self._send))

    async def begin(self) -> dict[str, Any]:
        return await self._hear("lifespan.startup")

    async def end(self) -> dict[str, Any]:
        return await self._hear("lifespan.shutdown")

    async def gone(self) -> None:
        async with asyncio.timeout(120):
            await self.task

    async def _hear(self, message: str) -> dict[str, Any]:
        self._heard.put_nowait({"type": message})
        async with asyncio.timeout(120):
            return await self.said.get()

    async def _send(self, message: dict[str, Any]) -> None:
        self._told.append(message["type"].removeprefix("lifespan."))
        self.said.put_nowait(message)


def with_a_lifespan(hurlbat: Hurlbat, told: list[str], *, fails_at: str = "") -> Any:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        told.append("app open")
        if fails_at == "startup":
            raise LookupError("the app's own trouble")
        yield
        told.append("app closed")
        if fails_at == "shutdown":
            raise LookupError("the app's own trouble")

    return hurlbat.mount(Starlette(lifespan=lifespan))


LIFE = ["app open", "tasks open", "startup.complete", "tasks closed", "app closed", "shutdown.complete"]
OWN = ["tasks open", "startup.complete", "tasks closed", "shutdown.complete"]


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """An app that lets a lifespan go by."""


async def deaf(scope: Any, receive: Any, send: Any) -> None:
    """An app that hears of its start and says nothing."""
    await receive()


async def hasty(scope: Any, receive: Any, send: Any) -> None:
    """An app that has started, and does not wait for its end."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("app", [the_rest, silent, deaf, hasty])
async def test_an_app_without_a_lifespan_gets_the_worker_s(hurlbat: Hurlbat, told: list[str], app: Any) -> None:
    life = Life(hurlbat.mount(app), told)
    await life.begin()
    assert hurlbat.workbench.around.opening.is_open
    await life.end()
    await life.gone()
    assert told == OWN


async def test_the_worker_lives_within_the_app(hurlbat: Hurlbat, told: list[str]) -> None:
    life = Life(with_a_lifespan(hurlbat, told), told)
    await life.begin()
    await life.end()
    await life.gone()
    assert told == LIFE


async def test_a_lifespan_that_is_given_twice_is_lived_once(
    hurlbat: Hurlbat, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drain = hurlbat.workbench.drain

    async def drained(grace: float) -> None:
        told.append("drained")
        await drain(grace)

    monkeypatch.setattr(hurlbat.workbench, "drain", drained)
    for _ in range(2):
        told.clear()
        life = Life(hurlbat.mount(FastAPI(lifespan=hurlbat.lifespan)), told)
        await life.begin()
        await life.end()
        await life.gone()
        assert told == ["tasks open", "startup.complete", "drained", "tasks closed", "shutdown.complete"]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("startup", ["app open", "startup.failed"]),
        ("shutdown", ["app open", "tasks open", "startup.complete", "tasks closed", "app closed", "shutdown.failed"]),
    ],
)
async def test_an_app_that_fails_is_told_of_as_ever(
    hurlbat: Hurlbat, told: list[str], phase: str, expected: list[str]
) -> None:
    life = Life(with_a_lifespan(hurlbat, told, fails_at=phase), told)
    said = await life.begin()
    if phase == "shutdown":
        said = await life.end()
    with pytest.raises(LookupError):
        await life.gone()
    assert told == expected
    assert "the app's own trouble" in said["message"]


@pytest.mark.parametrize(
    ("phase", "expected"),
    [
        ("startup", ["app open", "startup.failed", "app closed"]),
        ("shutdown", ["app open", "startup.complete", "app closed", "shutdown.failed"]),
    ],
)
async def test_a_worker_that_fails_lets_the_app_end_in_good_order(phase: str, expected: list[str]) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def failing(hurlbat: Hurlbat) -> AsyncIterator[None]:
        if phase == "startup":
            raise LookupError("no database")
        yield
        raise LookupError("no database")

    life = Life(with_a_lifespan(an_app(lifespan=failing), told), told)
    said = await life.begin()
    if phase == "shutdown":
        said = await life.end()
    with pytest.raises(LookupError, match="no database"):
        await life.gone()
    assert told == expected
    assert said["type"] == f"lifespan.{phase}.failed"
    assert "no database" in said["message"]


async def test_a_worker_whose_tasks_are_wrong_does_not_start(told: list[str]) -> None:
    hurlbat = an_app()
    hurlbat.workflow("empty", input=None)
    life = Life(hurlbat.mount(the_rest), told)
    said = await life.begin()
    with pytest.raises(ConfigError):
        await life.gone()
    assert told == ["startup.failed"], said
