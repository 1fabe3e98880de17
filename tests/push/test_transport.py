"""The transport against servers that misbehave on the wire. Deadlines are short; nothing here waits for luck."""

import asyncio
import dataclasses
import gzip
import random
import time

import pytest

from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push import connections
from hurlbat_dispatcher.push.exchange import Limits
from hurlbat_dispatcher.push.guard import Guard
from hurlbat_dispatcher.push.transport import Transport
from tests.push.far_side import (
    LONG,
    LOOPBACK,
    OK,
    PATIENT,
    Script,
    Talk,
    answering,
    failure_of,
    fetch,
    hang,
    listening,
    polite,
    transporting,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The server runs on uvloop where it can, whose sockets are its own."""
    return "asyncio", {"use_uvloop": request.param}


_HEAD = b"HTTP/1.1 200 OK\r\n"


async def _drip_head(talk: Talk) -> None:
    await talk.drip(_HEAD + b"x: " + b"y" * 1_000, 0.05)


async def _drip_body(talk: Talk) -> None:
    await talk.say(_HEAD + b"content-length: 1000\r\n\r\n")
    await talk.drip(b"x" * 1_000, 0.05)


async def _drip_interim(talk: Talk) -> None:
    while True:
        await talk.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.05)


async def _flood(talk: Talk, head: bytes, piece: bytes) -> None:
    await talk.say(head)
    while True:
        await talk.say(piece)
        await asyncio.sleep(0)


async def _endless_body(talk: Talk) -> None:
    await _flood(talk, _HEAD + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65_536 + b"\r\n")


async def _endless_head(talk: Talk) -> None:
    await _flood(talk, _HEAD, b"x-%d: y\r\n" % time.monotonic_ns())


async def _interim_flood(talk: Talk) -> None:
    await _flood(talk, b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000)


async def _reset(talk: Talk) -> None:
    talk.reset()


def _with(header: bytes, body: bytes = b"{}") -> bytes:
    return _HEAD + header + b"\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("script", "code"),
    [
        pytest.param(answering(then=hang), ErrorCode.ATTEMPT_TIMEOUT, id="no answer"),
        pytest.param(answering(then=_drip_head), ErrorCode.ATTEMPT_TIMEOUT, id="a head, byte by byte"),
        pytest.param(answering(then=_drip_body), ErrorCode.ATTEMPT_TIMEOUT, id="a body, byte by byte"),
        pytest.param(answering(then=_drip_interim), ErrorCode.ATTEMPT_TIMEOUT, id="103 again and again"),
        pytest.param(answering(then=_interim_flood), ErrorCode.PROTOCOL_ERROR, id="a flood of 103"),
        pytest.param(answering(then=_endless_body), ErrorCode.RESPONSE_TOO_LARGE, id="an endless body"),
        pytest.param(answering(then=_endless_head), ErrorCode.PROTOCOL_ERROR, id="an endless head"),
        pytest.param(
            answering(_with(b"x: y", b"x" * 2_000_000)), ErrorCode.RESPONSE_TOO_LARGE, id="a body above the cap"
        ),
        pytest.param(
            answering(_with(b"content-encoding: gzip", gzip.compress(b"\0" * 10_000_000))),
            ErrorCode.BAD_ENCODING,
            id="a gzip bomb",
        ),
        pytest.param(answering(_with(b"content-encoding: br")), ErrorCode.BAD_ENCODING, id="brotli"),
        pytest.param(answering(b"HTTP/1.1 abc\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="an invalid status line"),
        pytest.param(answering(b"SSH-2.0-OpenSSH_9\r\n"), ErrorCode.PROTOCOL_ERROR, id="another protocol"),
        pytest.param(
            answering(b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="status 999"
        ),
        pytest.param(
            answering(b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
            ErrorCode.PROTOCOL_ERROR,
            id="status 101",
        ),
        pytest.param(
            answering(_HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{} "),
            ErrorCode.PROTOCOL_ERROR,
            id="two lengths",
        ),
        pytest.param(
            answering(_HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}"),
            ErrorCode.PROTOCOL_ERROR,
            id="a length and chunks",
        ),
        pytest.param(answering(_HEAD + b"content-length: 9\r\n\r\n{}"), ErrorCode.PROTOCOL_ERROR, id="a short body"),
        pytest.param(
            answering(_HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"), ErrorCode.PROTOCOL_ERROR, id="a bad chunk"
        ),
        pytest.param(
            answering(_HEAD + b"".join(b"x-%d: y\r\n" % n for n in range(5_000)) + b"\r\n"),
            ErrorCode.PROTOCOL_ERROR,
            id="5,000 headers",
        ),
        pytest.param(
            answering(_HEAD + b"x: " + b"y" * 200_000 + b"\r\n\r\n"), ErrorCode.PROTOCOL_ERROR, id="a 200 KB header"
        ),
        pytest.param(answering(_HEAD + b"x: "), ErrorCode.PROTOCOL_ERROR, id="half a head"),
        pytest.param(answering(), ErrorCode.CONNECTION_RESET, id="closed unanswered"),
        pytest.param(answering(then=_reset), ErrorCode.CONNECTION_RESET, id="reset unanswered"),
        pytest.param(
            answering(_HEAD + b"content-length: 9\r\n\r\n{}", then=_reset),
            ErrorCode.CONNECTION_RESET,
            id="reset in the body",
        ),
    ],
)
async def test_what_a_hostile_server_does_ends_with_its_code(script: Script, code: ErrorCode) -> None:
    limits = Limits(total=0.3, connect=LONG) if code is ErrorCode.ATTEMPT_TIMEOUT else PATIENT
    async with listening(script) as server, transporting() as transport:
        failure = await failure_of(transport, server.url(), limits)
        again = await failure_of(transport, server.url(), limits)
    assert (failure.code, failure.sent, failure.local) == (code, True, False)
    assert again.code == code
    assert server.connections == 2, "a connection that misbehaved was used again"


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    async with listening(polite) as goal, transporting() as transport:
        moved = answering(b"HTTP/1.1 307 Moved\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % goal.url().encode())
        async with listening(moved) as server:
            assert await fetch(transport, server.url()) == (307, b"")
    assert goal.connections == 0


async def test_good_answers_share_a_connection() -> None:
    async with listening(polite) as server, transporting() as transport:
        for _ in range(5):
            assert await fetch(transport, server.url()) == (200, b"{}")
    assert server.connections == 1


async def test_a_connection_that_was_idle_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.05)
    async with listening(polite) as server, transporting() as transport:
        await fetch(transport, server.url())
        await asyncio.sleep(0.1)  # what is tested is that this much time matters
        await fetch(transport, server.url())
    assert server.connections == 2


async def test_a_reset_on_a_connection_that_is_used_again_may_have_run() -> None:
    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(OK)
        await talk.request()
        talk.reset()

    async with listening(script) as server, transporting() as transport:
        await fetch(transport, server.url())
        failure = await failure_of(transport, server.url())
    assert (failure.code, failure.sent) == (ErrorCode.CONNECTION_RESET, True)
    assert server.connections == 1, "the request was sent a second time"


async def test_a_refused_connection_sent_nothing(free_port: int) -> None:
    async with transporting() as transport:
        failure = await failure_of(transport, f"http://127.0.0.1:{free_port}/")
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.CONNECT_REFUSED, False, False)


async def test_an_address_that_swallows_everything_times_out_before_sending() -> None:
    """A listener whose queue is full drops further connections, like a black hole."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(address)
            async with transporting() as transport:
                failure = await failure_of(
                    transport, f"http://127.0.0.1:{address[1]}/", Limits(total=LONG, connect=0.3)
                )
        finally:
            for filler in fillers:
                filler.close()
    assert (failure.code, failure.sent) == (ErrorCode.CONNECT_TIMEOUT, False)


async def test_waiting_for_a_free_connection_is_our_own_fault() -> None:
    arrived = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        arrived.set()
        await hang(talk)

    async with listening(script) as server, transporting(Transport(LOOPBACK, max_connections=1)) as one:
        slow = asyncio.create_task(failure_of(one, server.url()))
        await arrived.wait()
        failure = await failure_of(one, server.url(), Limits(total=LONG, connect=0.2))
        slow.cancel()
        await asyncio.gather(slow, return_exceptions=True)
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.CONNECT_FAILED, False, True)
    assert "at most, and to one worker half of them (HURLBAT_MAX_CONNECTIONS)" in failure.message


async def test_a_worker_that_takes_long_does_not_keep_others_from_their_connections() -> None:
    arrived: asyncio.Queue[None] = asyncio.Queue()

    async def slow(talk: Talk) -> None:
        await talk.request()
        arrived.put_nowait(None)
        await hang(talk)

    async def quick(talk: Talk) -> None:
        while True:
            await talk.request()
            await talk.say(OK)

    async with (
        listening(slow) as hog,
        listening(quick) as other,
        transporting(Transport(LOOPBACK, max_connections=4)) as transport,
    ):
        hanging = [asyncio.create_task(fetch(transport, hog.url())) for _ in range(20)]
        try:
            async with asyncio.timeout(LONG):
                for _ in range(2):
                    await arrived.get()
                assert [await fetch(transport, other.url()) for _ in range(5)] == [(200, b"{}")] * 5
            assert arrived.empty()
        finally:
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)


async def test_the_pool_is_clean_after_hundreds_of_aborted_requests() -> None:
    chance = random.Random(1)
    most = 10
    together = asyncio.Barrier(most)

    async def script(talk: Talk) -> None:
        while True:
            _, body = await talk.request()
            if body == b"abort":
                await asyncio.sleep(chance.random() * 0.02)
            else:
                await together.wait()  # passes only when every connection of the pool is in use at once
            await talk.say(OK)

    async with listening(script) as server, transporting(Transport(LOOPBACK, max_connections=2 * most)) as transport:

        async def aborted() -> None:
            task = asyncio.create_task(fetch(transport, server.url(), PATIENT, b"abort"))
            await asyncio.wait({task}, timeout=chance.random() * 0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        for _ in range(25):
            await asyncio.gather(*(aborted() for _ in range(20)))
        answers = await asyncio.gather(*(fetch(transport, server.url()) for _ in range(most)))
    assert answers == [(200, b"{}")] * most


async def test_leaving_an_answer_early_closes_its_connection() -> None:
    closed = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(_HEAD + b"content-length: 100\r\n\r\n{}")
        assert await talk.reader.read() == b""
        closed.set()

    async with listening(script) as server, transporting() as transport:
        async with transport.post(server.url(), headers={}, body=b"{}", limits=PATIENT) as response:
            assert response.status == 200
        async with asyncio.timeout(LONG):
            await closed.wait()


async def test_silence_in_a_body_is_told_from_a_body_that_takes_too_long() -> None:
    script = answering(_HEAD + b"content-length: 9\r\n\r\n{}", then=hang)
    async with listening(script) as server, transporting() as transport:
        failure = await failure_of(transport, server.url(), dataclasses.replace(PATIENT, silence=0.1))
    assert failure.code == ErrorCode.HEARTBEAT_LOST


async def test_an_exchange_that_is_finishing_ends_without_a_failure() -> None:
    heard, by_itself = [], False
    script = answering(_HEAD + b"content-length: 9\r\n\r\n{}", then=hang)
    async with (
        listening(script) as server,
        transporting() as transport,
        transport.post(server.url(), headers={}, body=b"{}", limits=PATIENT) as response,
    ):
        async for chunk in response.chunks():
            heard.append(chunk)
            response.finish(0.05)
        by_itself = True
    assert (heard, by_itself) == ([b"{}"], False)


async def test_a_body_of_several_megabytes_arrives_whole() -> None:
    got: list[bytes] = []

    async def script(talk: Talk) -> None:
        got.append((await talk.request())[1])
        await talk.say(OK)

    body = random.Random(2).randbytes(5_000_000)
    async with listening(script) as server, transporting() as transport:
        await fetch(transport, server.url(), PATIENT, body)
    assert got == [body]


async def test_only_our_headers_are_sent_and_the_url_as_it_was_registered() -> None:
    heads: list[bytes] = []

    async def script(talk: Talk) -> None:
        heads.append((await talk.request())[0])
        await talk.say(OK)

    async with listening(script) as server, transporting() as transport:
        await fetch(transport, server.url("/a%7Eb//c?x=%41&y"))
    line, *headers = heads[0].decode().strip().split("\r\n")
    assert line == "POST /a%7Eb//c?x=%41&y HTTP/1.1"
    assert {header.partition(":")[0].lower() for header in headers} == {"host", "content-length", "accept-encoding"}


async def test_cookies_are_not_remembered() -> None:
    heads: list[bytes] = []

    async def script(talk: Talk) -> None:
        for _ in range(2):
            heads.append((await talk.request())[0])
            await talk.say(_HEAD + b"set-cookie: a=b\r\ncontent-length: 2\r\n\r\n{}")

    async def lookup(host: str) -> list[str]:
        return ["127.0.0.1"]

    async with listening(script) as server, transporting(Transport(LOOPBACK, lookup=lookup)) as transport:
        await fetch(transport, server.url(host="x.example"))
        await fetch(transport, server.url(host="x.example"))
    assert b"cookie" not in heads[1].lower()


async def test_an_address_in_the_url_is_judged_although_nothing_is_resolved() -> None:
    async with listening(polite) as server, transporting(Transport(Guard())) as transport:
        failure = await failure_of(transport, server.url())
    assert (failure.code, failure.sent) == (ErrorCode.DESTINATION_BLOCKED, False)
    assert server.connections == 0
