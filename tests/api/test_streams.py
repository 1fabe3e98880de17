"""What the server does with a stream of events: who reads slowly, who goes, and what goes wrong meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from hurlbat_app.api import create_app, streams
from hurlbat_dispatcher import DatabaseTrouble, Engine
from tests.api.conftest import TOKEN, FakeWorker

pytestmark = pytest.mark.anyio


@dataclass
class Client:
    """A connection that reads when it is told to."""

    reads: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    heard: bytes = b""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        """Say nothing more, until it is gone."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        """Take a piece of the answer, when there is room for it."""
        await self.reads.wait()
        self.heard += message.get("body", b"")
        self.news.set()

    async def until(self, text: bytes) -> None:
        """Wait until this was heard."""
        async with asyncio.timeout(60):
            while text not in self.heard:
                self.news.clear()
                await self.news.wait()

    @property
    def kinds(self) -> list[str]:
        """What was heard."""
        return [line[7:] for line in self.heard.decode().splitlines() if line.startswith("event: ")]


@asynccontextmanager
async def listening(engine: Engine, run_id: str) -> AsyncIterator[tuple[Client, asyncio.Future[None]]]:
    """Open a stream, and see that nothing is left of it."""
    client = Client()
    client.reads.set()
    path = f"/runs/{run_id}/events"
    headers = [(b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers, "root_path": ""}
    before = asyncio.all_tasks()
    app = create_app(engine)
    task = asyncio.ensure_future(app(scope, client.receive, client.send))
    yield client, task
    async with asyncio.timeout(60):
        await task
        while asyncio.all_tasks() - before:  # noqa: ASYNC110  # a duty of the engine may be at work for a moment
            await asyncio.sleep(0.005)
    assert engine._parts is not None
    assert engine._parts.waiters.watches == 0


async def test_one_who_goes_leaves_nothing_behind(engine: Engine, api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    async with listening(engine, run["id"]) as (client, task):
        await client.until(b"scheduled")
        assert not task.done()
        client.gone.set()
    assert client.kinds == ["created", "scheduled"]


async def test_one_who_goes_without_having_read_leaves_nothing_behind(engine: Engine, api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    async with listening(engine, run["id"]) as (client, _):
        await client.until(b"scheduled")
        client.reads.clear()
        await api.post(f"/runs/{run['id']}/cancel")
        client.gone.set()
    assert client.kinds == ["created", "scheduled"]


async def test_one_who_reads_slowly_is_told_everything_once_he_reads(
    engine: Engine, api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    run = (await api.post("/runs", json={"task": "later"})).json()
    await worker.reached.wait()
    report = f"/runs/{run['id']}/attempts/1"
    token = {"authorization": f"Bearer {worker.delivered[0]['lease_token']}"}
    async with listening(engine, run["id"]) as (client, _):
        await client.until(b"started")
        client.reads.clear()
        for number in range(150):
            body = {"entries": [{"level": "info", "message": str(number)}]}
            assert (await api.post(f"{report}/log", json=body, headers=token)).is_success
        assert (await api.post(f"{report}/complete", json={"output": 1}, headers=token)).is_success
        assert len(client.kinds) < 10
        client.reads.set()
    assert client.kinds == ["created", "started", *["log"] * 150, "completed", "end"]
    numbers = [line for line in client.heard.decode().splitlines() if line.startswith("id: ")]
    assert numbers == [f"id: {number}" for number in range(1, 154)]


async def test_a_comment_shows_that_a_stream_is_alive(
    engine: Engine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.01)
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    async with listening(engine, run["id"]) as (client, _):
        await client.until(b"\n\n: nothing new\n\n: nothing new\n\n")
        await api.post(f"/runs/{run['id']}/cancel")
    assert client.kinds == ["created", "scheduled", "cancelled", "end"]


async def test_a_database_that_is_away_for_a_while_ends_no_stream(
    engine: Engine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "AGAIN_SECONDS", 0.01)
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    async with listening(engine, run["id"]) as (client, task):
        await client.until(b"scheduled")
        assert engine._parts is not None
        database = engine._parts.database
        with monkeypatch.context() as trouble:
            trouble.setattr(database, "read", _away)
            engine._parts.waiters.changed([run["id"]])
            await client.until(b": nothing new")
        assert not task.done()
        await api.post(f"/runs/{run['id']}/cancel")
    assert client.kinds == ["created", "scheduled", "cancelled", "end"]


async def _away(script: Any) -> Any:
    script.close()
    raise DatabaseTrouble("it is away")


async def test_the_stream_that_is_one_too_many_is_refused(
    engine: Engine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.waiting.MAX_WATCHES", 1)
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    async with listening(engine, run["id"]) as (client, _):
        await client.until(b"scheduled")
        refused = await api.get(f"/runs/{run['id']}/events")
        assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (503, "too_many_streams", 1)
        assert refused.headers["retry-after"] == "5"
        client.gone.set()


@pytest.mark.parametrize(("header", "parameter"), [("0", "first"), ("first", "0"), ("0", ""), ("-1", None)])
async def test_where_to_go_on_is_refused_where_either_way_of_saying_it_is_wrong(
    api: httpx.AsyncClient, header: str, parameter: str | None
) -> None:
    run = (await api.post("/runs", json={"task": "echo"})).json()
    asked = {} if parameter is None else {"last_event_id": parameter}

    answer = await api.get(f"/runs/{run['id']}/events", params=asked, headers={"last-event-id": header})

    assert (answer.status_code, answer.json()["code"]) == (422, "parameter_invalid")
