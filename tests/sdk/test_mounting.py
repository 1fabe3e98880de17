"""The handler lives in any app: mounted, as a route, behind prefixes, alone, under a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from hurlbat import Hurlbat
from tests.sdk.exchange import a_run, an_app, delivery, signed
from tests.sdk.fake_server import FakeServer, answer

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    hurlbat = an_app()

    @hurlbat.task
    async def double(number: int) -> int:
        return number * 2

    @hurlbat.task
    def triple(number: int) -> int:
        return number * 3

    return hurlbat


def mounted(hurlbat: Hurlbat) -> Any:
    return Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())])


def routed(hurlbat: Hurlbat) -> Any:
    return Starlette(routes=[Route("/hurlbat", hurlbat.asgi())])


def both(hurlbat: Hurlbat) -> Any:
    handler = hurlbat.asgi()
    return Starlette(routes=[Route("/hurlbat", handler), Mount("/hurlbat", handler)])


def in_fastapi(hurlbat: Hurlbat) -> Any:
    app = FastAPI()
    app.mount("/hurlbat", hurlbat.asgi())
    return app


def nested(hurlbat: Hurlbat) -> Any:
    app = FastAPI()
    app.mount("/api", in_fastapi(hurlbat))
    return app


def alone(hurlbat: Hurlbat) -> Any:
    return hurlbat.asgi()


async def post(app: Any, path: str, body: bytes, root_path: str = "") -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker.test") as client:
        return await client.post(path, content=body, headers=signed(body))


@pytest.mark.parametrize(
    ("place", "path"),
    [
        (mounted, "/hurlbat/"),
        (routed, "/hurlbat"),
        (both, "/hurlbat"),
        (both, "/hurlbat/"),
        (in_fastapi, "/hurlbat/"),
        (nested, "/api/hurlbat/"),
        (alone, "/"),
        (alone, "/any/path"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_a_delivery_is_answered_wherever_the_handler_lives(
    hurlbat: Hurlbat, place: Any, path: str, root_path: str
) -> None:
    body = delivery(a_run("double", 21), a_run("triple", 2))
    response = await post(place(hurlbat), root_path + path, body, root_path)
    assert response.status_code == 200
    assert response.headers["hurlbat-worker"] == hurlbat.manifest().version
    assert response.text.count('"completed"') == 2


class Announced(uvicorn.Server):
    """A server that says when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Run an app in a real uvicorn on a free port; yield its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = Announced(uvicorn.Config(app, log_level="warning", lifespan="on"))
    task = asyncio.create_task(server.serve([listener]))
    try:
        async with asyncio.timeout(120):
            await server.up.wait()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


async def test_a_real_server_streams_lines_as_they_come(hurlbat: Hurlbat) -> None:
    gate = asyncio.Event()

    @hurlbat.task
    async def slow() -> str:
        await gate.wait()
        return "done"

    app = in_fastapi(hurlbat)
    app.router.lifespan_context = hurlbat.lifespan
    body = delivery(a_run("slow"), a_run("double", 1))
    seen: list[str] = []
    async with (
        serving(app) as url,
        httpx.AsyncClient(timeout=120) as client,
        client.stream("POST", f"{url}/hurlbat/", content=body, headers=signed(body)) as response,
    ):
        async for line in response.aiter_lines():
            seen.append(line)
            if '"run-double"' in line and '"result"' in line:
                gate.set()
    assert len(seen) == 4
    assert '"output":"done"' in seen[-1]


async def test_a_client_that_hangs_up_at_a_real_server_leaves_the_run_to_report(hurlbat: Hurlbat) -> None:
    gate, server = asyncio.Event(), FakeServer()
    attempt = "POST /runs/run-slow/attempts/1"
    server.on(f"{attempt}/heartbeat", answer(200, {"cancelled": False, "lease": 15}))
    server.on(f"{attempt}/complete", answer(200, {}))
    server.attach(hurlbat)

    @hurlbat.task
    async def slow() -> str:
        await gate.wait()
        return "done"

    body = delivery(a_run("slow"))
    async with serving(hurlbat.asgi()) as url:
        async with (
            httpx.AsyncClient(timeout=120) as client,
            client.stream("POST", url, content=body, headers=signed(body)) as response,
        ):
            async for _ in response.aiter_lines():
                break
        await server.asked(f"{attempt}/heartbeat")
        gate.set()
        await server.asked(f"{attempt}/complete")
    assert server.bodies(f"{attempt}/complete") == [{"output": "done"}]


async def test_the_lifespan_is_that_of_a_fastapi_app_or_a_part_of_its_own(hurlbat: Hurlbat) -> None:
    server = FakeServer()
    server.attach(hurlbat)
    seen: list[str] = []

    @asynccontextmanager
    async def mine(app: FastAPI) -> AsyncIterator[dict[str, int]]:
        async with hurlbat.lifespan(app):
            seen.append("started")
            yield {"state": 1}
        seen.append("stopped")

    async with serving(FastAPI(lifespan=mine)):
        assert seen == ["started"]
    assert seen == ["started", "stopped"]
    async with serving(FastAPI(lifespan=hurlbat.lifespan)) as url, httpx.AsyncClient(timeout=120) as client:
        assert (await client.get(url)).status_code == 404


async def test_a_handler_that_is_served_alone_brings_its_lifespan(hurlbat: Hurlbat) -> None:
    async with serving(hurlbat.asgi()) as url, httpx.AsyncClient(timeout=120) as client:
        assert (await client.get(url)).json() == {"status": "ok"}
    assert hurlbat.workbench.draining
