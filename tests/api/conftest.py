"""An engine on a SQLite file with workers that exist only in memory, and a client that is held to the contract."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from hurlbat_app.api import create_app
from hurlbat_dispatcher import Engine, Outside, Settings
from tests.api.contract import held_to_contract

TOKEN = "an-api-token-of-the-tests"
ORIGIN = "http://hurlbat.test"
LEASE = 120.0
"""Seconds: a test that is slow loses none of its attempts."""
WORKER_URL = "https://worker.example.com/run"


@dataclass
class FakeWorker:
    """A plain worker. `echo` gives its input back, `break` fails for good, `later` will report."""

    delivered: list[dict[str, Any]] = field(default_factory=list)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer a delivery."""
        [run] = json.loads(request.content)["data"]["runs"]
        self.delivered.append(run)
        self.reached.set()
        match run["task"]:
            case "echo":
                return httpx.Response(200, json=run["input"])
            case "later":
                return httpx.Response(202, headers={"hurlbat-async": "1"})
            case _:
                return httpx.Response(422, headers={"hurlbat-retry": "no"}, text="it is broken")


@pytest.fixture
def settings(made_sqlite_url: str) -> Settings:
    """What the server of a test is told."""
    return Settings(
        database_url=made_sqlite_url,
        api_token=SecretStr(TOKEN),
        external_url=ORIGIN,
        max_body_bytes=100_000,
        lease=LEASE,
    )


@pytest.fixture
def worker() -> FakeWorker:
    """The worker behind every URL."""
    return FakeWorker()


@pytest.fixture
async def engine(settings: Settings, worker: FakeWorker) -> AsyncIterator[Engine]:
    """A running engine."""
    engine = Engine(settings, Outside(network=httpx.MockTransport(worker)))
    await engine.start()
    yield engine
    await engine.stop(0)


@pytest.fixture
async def stranger(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token."""
    transport = httpx.ASGITransport(held_to_contract(create_app(engine)))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        yield client


@pytest.fixture
async def api(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the API token, and a plain worker that serves `echo`, `break` and `later`."""
    transport = httpx.ASGITransport(held_to_contract(create_app(engine)))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as client:
        tasks = [{"name": name} for name in ("echo", "break", "later")]
        spec = {"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks}
        answer = await client.post("/workers", json=spec)
        assert answer.status_code == 201, answer.text
        yield client
