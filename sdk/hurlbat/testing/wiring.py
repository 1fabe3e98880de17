"""Put an app's `Hurlbat` into a virtual world: its clients, its clock, its threads; and take it out again."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import httpx

from hurlbat.app import Hurlbat
from hurlbat.client import AsyncClient
from hurlbat.sync_client import Client
from hurlbat.testing.threads import Threads
from hurlbat.threads import Lane
from hurlbat.workbench import Workbench
from hurlbat_dispatcher.simulation.world import TOKEN, Simulation

SERVER_HOST: Final = "hurlbat.test"
SERVER_URL: Final = f"http://{SERVER_HOST}"
WORKER_HOST: Final = "worker.example.com"
SECRET: Final = "whsec_aHVybGJhdC50ZXN0aW5nIGhhcyBubyBzZWNyZXRz"


class WrongLoop(RuntimeError):
    """A coroutine of a world was awaited on another event loop."""


class VirtualWorld:
    """Time and chance of a simulation, as the SDK takes them. See `hurlbat.outside.World`."""

    def __init__(self, simulation: Simulation, threads: Threads) -> None:
        self._simulation = simulation
        self._threads = threads
        self._tokens = 0

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self._simulation.clock.now_ms() / 1_000

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._simulation.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block the calling thread while virtual time goes on."""
        self._threads.ask(lambda: asyncio.sleep(seconds))

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`."""
        return self._simulation.chance.uniform(low, high)

    def token(self) -> str:
        """Return 32 hex digits, the next ones of this world; chance is left alone, as histories hang on it."""
        self._tokens += 1
        return f"{self._tokens:032x}"


@contextmanager
def wired(hurlbat: Hurlbat, simulation: Simulation, threads: Threads) -> Iterator[None]:
    """Let an app's object speak to the world's server, and be its worker, while the block runs."""
    before = hurlbat.settings, hurlbat.client, hurlbat.sync_client, hurlbat.workbench
    hurlbat.settings = replace(
        hurlbat.settings,
        url=SERVER_URL,
        token=TOKEN,
        keys=(SECRET,),
        worker=hurlbat.settings.worker or "app",
        public_url=None,
    )
    network = simulation.network
    hurlbat.client = AsyncClient(SERVER_URL, TOKEN, transport=_Door(simulation))
    hurlbat.sync_client = Client(SERVER_URL, TOKEN, transport=_SyncDoor(network, threads))
    hurlbat.workbench = _Bench(hurlbat, threads)
    try:
        yield
    finally:
        hurlbat.settings, hurlbat.client, hurlbat.sync_client, hurlbat.workbench = before


class _Bench(Workbench):
    """A workbench without memories of other worlds, on their threads."""

    def __init__(self, hurlbat: Hurlbat, threads: Threads) -> None:
        self._given = threads
        super().__init__(
            hurlbat.tasks,
            lambda: hurlbat.client.http(),
            threads=hurlbat.settings.threads,
            around=hurlbat.workbench.around,
        )

    def _new_pool(self) -> Executor:
        return self._given

    def lane(self) -> Lane:
        """Ask for a thread to keep."""
        return self._given.lane()


class _Door(httpx.AsyncBaseTransport):
    """The way of async code into the world."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        check_loop(self._simulation)
        return await self._simulation.network.handle_async_request(request)


class _SyncDoor(httpx.BaseTransport):
    """The way of sync code into the world."""

    def __init__(self, network: httpx.AsyncBaseTransport, threads: Threads) -> None:
        self._network = network
        self._threads = threads

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> Any:
            answer = await self._network.handle_async_request(
                httpx.Request(
                    request.method,
                    request.url,
                    headers=request.headers,
                    content=request.content,
                    extensions=request.extensions,
                )
            )
            body = b"".join([piece async for piece in answer.aiter_raw()])
            await answer.aclose()
            return answer.status_code, answer.headers, body

        request.read()
        status, headers, body = self._threads.ask(ask)
        return httpx.Response(status, headers=headers, content=body, request=request)


def check_loop(simulation: Simulation) -> None:
    """Raise `WrongLoop` with what to do, unless the running loop is the world's."""
    if asyncio.get_running_loop() is not simulation.loop:
        raise WrongLoop(
            "this coroutine runs on an event loop of its own, where time is real; put @hurlbat.testing.simulated on "
            "the test (and no marker of an asyncio plugin), or drive it by world.run(…)"
        )
