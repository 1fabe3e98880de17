"""Who has no token, or sends by drops, keeps neither connections nor memory: over real sockets, at a real server."""

import asyncio
import contextlib
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from starlette.types import Message

from hurlbat_app import heads
from hurlbat_app.api import bodies, create_app, webhooks
from hurlbat_app.api.app import routes
from hurlbat_app.api.gate import Access, Resource
from hurlbat_app.server import http_of
from hurlbat_dispatcher import Engine
from tests.api.conftest import TOKEN

pytestmark = pytest.mark.anyio

SOON = 90.0
"""Seconds for what comes at once."""
LARGE = 90_000
RUN_ID = "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10"
AUTHORIZED = f"authorization: Bearer {TOKEN}"
BASIC = f"authorization: Basic {b64encode(b'shop:right').decode()}"


@dataclass
class Client:
    """One connection, by hand."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *lines: str, body: bytes = b"") -> None:
        """Send a head, and some of a body."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        """Return the next answer: its status, headers, and what it says in JSON."""
        async with asyncio.timeout(SOON):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split(" ")[1]), headers, json.loads(body) if body else None

    async def rest(self) -> bytes:
        """Return what comes until the server closes the connection."""
        async with asyncio.timeout(SOON):
            return await self.reader.read()

    async def aclose(self) -> None:
        """Close the connection."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@pytest.fixture
async def address(engine: Engine) -> AsyncIterator[tuple[str, int]]:
    """Where the server listens."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = http_of(engine)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield listening.getsockname()
    server.should_exit = server.force_exit = True
    await serving


async def _client(address: tuple[str, int]) -> Client:
    return Client(*await asyncio.open_connection(*address))


def _post(path: str, size: int, *more: str) -> list[str]:
    return [f"POST {path} HTTP/1.1", "host: hurlbat.test", f"content-length: {size}", *more]


async def _is_read(client: Client, path: str, size: int, *more: str) -> None:
    """Announce a body, and return when the server reads it."""
    client.send(*_post(path, size, "expect: 100-continue", *more))
    assert (await client.answer())[0] == 100


# -- heads -------------------------------------------------------------------------------------------------------------


async def test_a_head_that_does_not_come_to_its_end_is_given_up(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
    async with aclosing(await _client(address)) as client:
        client.writer.write(b"POST /runs HTTP/1.1\r\nhost:")
        status, headers, problem = await client.answer()
        assert (status, headers["content-type"], headers["connection"]) == (408, "application/problem+json", "close")
        assert (problem["code"], problem["seconds"]) == ("head_too_slow", 0.2)
        assert await client.rest() == b""


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
async def test_a_connection_that_asks_for_nothing_is_closed(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
    async with aclosing(await _client(address)) as client:
        client.writer.write(sent)
        assert await client.rest() == b""


async def test_the_next_head_on_a_connection_is_given_up_as_well(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(await _client(address)) as client:
        client.send("GET /health/live HTTP/1.1", "host: hurlbat.test")
        assert (await client.answer())[0] == 200
        monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
        client.writer.write(b"GET /health/live HT")
        assert (await client.answer())[2]["code"] == "head_too_slow"
        assert await client.rest() == b""


async def test_a_body_that_was_refused_is_not_waited_for(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(await _client(address)) as client:
        client.send(*_post("/runs", 50))
        assert (await client.answer())[0] == 401
        monkeypatch.setattr(heads, "HEAD_SECONDS", 0.2)
        client.writer.write(b"x")
        assert await client.rest() == b""


async def test_a_head_without_an_end_is_refused(address: tuple[str, int]) -> None:
    async with aclosing(await _client(address)) as client:
        client.writer.write(b"GET /health/live HTTP/1.1\r\nlong: ".ljust(heads.HEAD_BYTES + 1, b"x"))
        status, _, problem = await client.answer()
        assert (status, problem["code"], problem["limit"]) == (431, "head_too_large", heads.HEAD_BYTES)


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_a_body_that_stands_still_is_given_up(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "STILL_SECONDS", 0.2)
    async with aclosing(await _client(address)) as client:
        client.send(*_post("/runs", 100, AUTHORIZED), body=b'{"task":')
        status, headers, problem = await client.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert (problem["code"], problem["seconds"]) == ("body_too_slow", 0.2)
        assert problem["detail"] == "nothing more of the request body came within 0.2 s, after 8 bytes"
        assert await client.rest() == b""


async def test_a_body_that_comes_by_drops_is_given_up(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "STILL_SECONDS", SOON)
    monkeypatch.setattr(bodies, "SECONDS", 1.0)

    async def drops(client: Client) -> None:
        while True:
            client.writer.write(b" ")
            await asyncio.sleep(0.05)

    async with aclosing(await _client(address)) as client:
        client.send(*_post("/runs", 10_000, AUTHORIZED))
        dropping = asyncio.create_task(drops(client))
        status, _, problem = await client.answer()
        dropping.cancel()
        assert (status, problem["code"], problem["seconds"]) == (408, "body_too_slow", 1)


async def test_without_its_token_no_body_of_any_path_is_read(engine: Engine) -> None:
    async def receive() -> Message:
        raise AssertionError("it is read")

    doors = 0
    for route in routes(engine):
        assert isinstance(route.app, Resource)
        for method, access in route.app.access.items():
            if access not in (Access.TOKEN, Access.LEASE):
                continue
            doors += 1
            sent: list[Message] = []

            async def send(message: Message, sent: list[Message] = sent) -> None:
                sent.append(message)

            path = route.path_format.replace("{run_id}", "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10").replace(
                "{attempt}", "1"
            )
            for headers in ([], [(b"authorization", b"Bearer wrong")]):
                sent.clear()
                head = [*headers, (b"content-length", b"1000")]
                scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": head}
                await create_app(engine)({**scope, "root_path": ""}, receive, send)
                assert sent[0]["status"] == 401, (method, path)
    assert doors > 50


# -- webhooks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def hooks(api: httpx.AsyncClient) -> None:
    """A webhook whose sender signs, and one whose sender has a password."""
    for name, auth in {
        "signed": {"type": "github", "secret": "right"},
        "named": {"type": "basic", "username": "shop", "password": "right"},
    }.items():
        answer = await api.put(f"/webhooks/{name}", json={"auth": auth, "max_bytes": 100})
        assert answer.status_code == 201


SIGNED = "x-hub-signature-256: sha256=" + 64 * "0"
OLD = ("stripe-signature: t=1,v1=00", "webhook-id: a", "webhook-timestamp: 1", "webhook-signature: v1,aa")


@pytest.mark.usefixtures("hooks")
async def test_a_stranger_learns_nothing_of_a_webhook_before_his_body_has_come(address: tuple[str, int]) -> None:
    seen = []
    for path in ("/webhooks/nosuch", "/webhooks/signed", "/webhooks/named"):
        for more in ((), (SIGNED,), OLD, ("authorization: Basic eDp5",)):
            async with aclosing(await _client(address)) as client:
                await _is_read(client, path, 5_000, *more)
                client.writer.write(b"x" * 5_000)
                status, headers, problem = await client.answer()
                seen.append((status, {**headers, "date": ""}, problem))
    assert seen == seen[:1] * len(seen)
    assert (seen[0][0], seen[0][2]["code"]) == (401, "webhook_unauthorized")


@pytest.mark.usefixtures("hooks")
async def test_the_body_of_a_delivery_that_will_not_be_taken_is_not_held(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []

    async def read_body(*_: Any) -> bytes:
        held.append(1)
        raise AssertionError("it is held")

    monkeypatch.setattr(webhooks, "read_body", read_body)
    for path, more in {
        "/webhooks/nosuch": (SIGNED, BASIC, *OLD),
        "/webhooks/signed": (BASIC, *OLD),
        "/webhooks/named": (SIGNED, *OLD),
    }.items():
        async with aclosing(await _client(address)) as client:
            client.send(*_post(path, LARGE, *more), body=b"x" * LARGE)
            assert (await client.answer())[0] == 401
    assert held == []
    async with aclosing(await _client(address)) as client:
        client.send(*_post("/webhooks/signed", 5, SIGNED), body=b"hello")
        assert (await client.answer())[0] == 500
    assert held == [1]


@pytest.mark.usefixtures("hooks")
async def test_a_known_sender_is_told_that_his_body_is_too_large_before_he_sends_it(address: tuple[str, int]) -> None:
    async with aclosing(await _client(address)) as client:
        client.send(*_post("/webhooks/named", 101, BASIC))
        status, _, problem = await client.answer()
        assert (status, problem["code"], problem["limit"]) == (413, "body_too_large", 100)
    async with aclosing(await _client(address)) as client:
        client.send(*_post("/webhooks/named", 2, BASIC), body=b"{}")
        assert (await client.answer())[0] == 201


# -- room --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server have room for two large bodies, and for one of strangers."""
    monkeypatch.setattr(bodies, "AT_LEAST", 1)
    monkeypatch.setattr(bodies, "MOST_HELD", 2 * LARGE)


@pytest.mark.usefixtures("api")  # which has a worker for the task
async def test_large_bodies_together_have_room_for_so_many_and_small_ones_always(
    little_room: None, address: tuple[str, int]
) -> None:
    good = json.dumps({"task": "echo", "delay": 3600, "input": ""}).replace('""', f'"{"x" * (LARGE - 46)}"')
    body = good.ljust(LARGE).encode()
    assert len(body) == LARGE
    first, second, third = [await _client(address) for _ in range(3)]
    for client in (first, second):
        await _is_read(client, "/runs", LARGE, AUTHORIZED)
    third.send(*_post("/runs", LARGE, AUTHORIZED))
    status, headers, problem = await third.answer()
    assert (status, problem["code"], problem["limit"]) == (503, "too_many_bodies", 2 * LARGE)
    assert headers["retry-after"] == "2"
    for chunked in (True, False):
        async with aclosing(await _client(address)) as small:
            if chunked:
                small.send("POST /runs HTTP/1.1", "host: x", AUTHORIZED, "transfer-encoding: chunked")
                small.writer.write(b"11000\r\n" + b" " * 0x11000 + b"\r\n0\r\n\r\n")
                assert (await small.answer())[0] == 503
            else:
                small.send(*_post("/runs", 29, AUTHORIZED), body=b'{"task":"echo","delay":3600} ')
                assert (await small.answer())[0] == 201
    first.writer.write(body)
    assert (await first.answer())[0] == 201
    async with aclosing(await _client(address)) as again:
        again.send(*_post("/runs", LARGE, AUTHORIZED), body=body)
        assert (await again.answer())[0] == 201
    for client in (first, second, third):
        await client.aclose()


async def test_strangers_have_half_of_the_room_and_it_is_free_again_when_they_are_gone(
    little_room: None, address: tuple[str, int]
) -> None:
    stranger, owner = await _client(address), await _client(address)
    await _is_read(stranger, "/webhooks/nosuch", LARGE)
    async with aclosing(await _client(address)) as second:
        second.send(*_post("/webhooks/other", LARGE))
        assert (await second.answer())[2]["code"] == "too_many_bodies"
    await _is_read(owner, "/runs", LARGE, AUTHORIZED)
    await stranger.aclose()
    async with asyncio.timeout(SOON):
        while True:
            async with aclosing(await _client(address)) as again:
                again.send(*_post("/webhooks/other", LARGE, "expect: 100-continue"))
                if (await again.answer())[0] == 100:
                    break
    await owner.aclose()
