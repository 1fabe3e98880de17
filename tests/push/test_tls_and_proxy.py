"""Certificates that do not hold, and the proxy between us and the worker."""

import asyncio
import base64
import ssl
from pathlib import Path

import pytest

from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.exchange import Limits
from hurlbat_dispatcher.push.guard import Guard, parse_networks
from hurlbat_dispatcher.push.transport import Transport
from tests.push.far_side import (
    LONG,
    LOOPBACK,
    OK,
    PATIENT,
    Authority,
    Script,
    Talk,
    answering,
    failure_of,
    fetch,
    hang,
    listening,
    localhost,
    make_authority,
    polite,
    transporting,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The server runs on uvloop where it can, whose sockets are its own."""
    return "asyncio", {"use_uvloop": request.param}


async def test_a_good_certificate_is_taken(authority: Authority) -> None:
    trusting = Transport(LOOPBACK, ssl_context=authority.trust(), lookup=localhost)
    async with listening(polite, authority.serve(host="x.example")) as server, transporting(trusting) as transport:
        assert await fetch(transport, server.url(host="x.example", scheme="https"), PATIENT) == (200, b"{}")


async def _tls_failure(authority: Authority, served: ssl.SSLContext) -> None:
    requests = []

    async def script(talk: Talk) -> None:
        requests.append(await talk.request())

    trusting = Transport(LOOPBACK, ssl_context=authority.trust(), lookup=localhost)
    async with listening(script, served) as server, transporting(trusting) as transport:
        failure = await failure_of(transport, server.url(host="x.example", scheme="https"), PATIENT)
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.TLS_ERROR, False, False)
    assert requests == []


async def test_an_expired_certificate_is_a_tls_error(authority: Authority) -> None:
    await _tls_failure(authority, authority.serve(host="x.example", days=-1))


async def test_a_certificate_for_another_host_is_a_tls_error(authority: Authority) -> None:
    await _tls_failure(authority, authority.serve(host="y.example"))


async def test_a_certificate_that_nobody_vouches_for_is_a_tls_error(authority: Authority, tmp_path: Path) -> None:
    await _tls_failure(authority, make_authority(tmp_path).serve(host="x.example"))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated:DeprecationWarning")
async def test_a_server_that_only_speaks_tls_1_0_is_a_tls_error(authority: Authority) -> None:
    context = authority.serve(host="x.example")
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    await _tls_failure(authority, context)


async def test_a_server_without_tls_is_a_tls_error() -> None:
    async def script(talk: Talk) -> None:
        await talk.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with listening(script) as server, transporting() as transport:
        failure = await failure_of(transport, server.url(scheme="https"), PATIENT)
    assert (failure.code, failure.sent) == (ErrorCode.TLS_ERROR, False)


async def test_a_handshake_that_never_ends_times_out_before_sending() -> None:
    async with listening(hang) as server, transporting() as transport:
        failure = await failure_of(transport, server.url(scheme="https"), Limits(total=LONG, connect=0.2))
    assert (failure.code, failure.sent) == (ErrorCode.CONNECT_TIMEOUT, False)


# -- the proxy -------------------------------------------------------------------------------------------------------


def _proxy(port: int) -> Transport:
    return Transport(Guard(), proxy=f"http://user:p%40ss@127.0.0.1:{port}")


async def test_proxy_variables_are_ignored(monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    async with listening(polite) as server, transporting() as transport:
        assert await fetch(transport, server.url()) == (200, b"{}")


async def test_a_configured_proxy_gets_the_request_with_its_credentials() -> None:
    heads: list[bytes] = []

    async def script(talk: Talk) -> None:
        heads.append((await talk.request())[0])
        await talk.say(OK)

    async with listening(script) as server, transporting(_proxy(server.port)) as transport:
        assert await fetch(transport, "http://x.example/hook", PATIENT) == (200, b"{}")
    credentials = base64.b64encode(b"user:p@ss")
    assert heads[0].startswith(b"POST http://x.example/hook HTTP/1.1\r\n")
    assert b"proxy-authorization: basic " + credentials.lower() in heads[0].lower()


async def test_a_tunnel_through_the_proxy_reaches_the_worker(authority: Authority) -> None:
    async def tunnel(talk: Talk) -> None:
        head = await talk.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"CONNECT x.example:443 ")
        await talk.say(b"HTTP/1.1 200 Connected\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        there = asyncio.create_task(_pipe(talk.reader, writer))
        await _pipe(reader, talk.writer)
        await there

    async with listening(polite, authority.serve(host="x.example")) as worker, listening(tunnel) as server:
        proxied = Transport(Guard(), proxy=f"http://127.0.0.1:{server.port}", ssl_context=authority.trust())
        async with transporting(proxied) as transport:
            assert await fetch(transport, "https://x.example/", PATIENT) == (200, b"{}")
            assert await fetch(transport, "https://x.example/", PATIENT) == (200, b"{}")
    assert worker.connections == 1


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return
    finally:
        writer.close()


async def _refuse_connect(talk: Talk) -> None:
    await talk.reader.readuntil(b"\r\n\r\n")
    await talk.say(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")


async def _close_connect(talk: Talk) -> None:
    await talk.reader.readuntil(b"\r\n\r\n")


async def _hang_connect(talk: Talk) -> None:
    await talk.reader.readuntil(b"\r\n\r\n")
    await hang(talk)


@pytest.mark.parametrize(
    ("url", "script"),
    [
        ("http://x.example/", answering(b"HTTP/1.1 407 Auth\r\ncontent-length: 0\r\n\r\n")),
        ("https://x.example/", _refuse_connect),
        ("https://x.example/", _close_connect),
        ("https://x.example/", _hang_connect),
    ],
    ids=["407", "403 to CONNECT", "closed at CONNECT", "silent at CONNECT"],
)
async def test_a_proxy_that_does_not_let_us_through_is_our_own_fault(url: str, script: Script) -> None:
    async with listening(script) as server, transporting(_proxy(server.port)) as transport:
        failure = await failure_of(transport, url, Limits(total=LONG, connect=0.5))
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.PROXY_ERROR, False, True)


@pytest.mark.parametrize("url", ["http://x.example/", "https://x.example/"])
async def test_a_proxy_that_is_down_is_our_own_fault(url: str, free_port: int) -> None:
    async with transporting(_proxy(free_port)) as transport:
        failure = await failure_of(transport, url, PATIENT)
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.PROXY_ERROR, False, True)


async def test_a_proxy_is_not_asked_for_a_forbidden_address() -> None:
    async with listening(polite) as server, transporting(_proxy(server.port)) as transport:
        failure = await failure_of(transport, "https://169.254.169.254/")
    assert failure.code == ErrorCode.DESTINATION_BLOCKED
    assert server.connections == 0


async def test_a_certificate_behind_the_proxy_that_does_not_hold_is_the_workers_fault(authority: Authority) -> None:
    async def tunnel(talk: Talk) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        await talk.say(b"HTTP/1.1 200 Connected\r\n\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", worker.port)
        there = asyncio.create_task(_pipe(talk.reader, writer))
        await _pipe(reader, talk.writer)
        await there

    async with listening(polite, authority.serve(host="y.example")) as worker, listening(tunnel) as server:
        guard = Guard(parse_networks("127.0.0.0/8"))
        proxied = Transport(guard, proxy=f"http://127.0.0.1:{server.port}", ssl_context=authority.trust())
        async with transporting(proxied) as transport:
            failure = await failure_of(transport, "https://x.example/", PATIENT)
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.TLS_ERROR, False, False)
