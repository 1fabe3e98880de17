"""What is remembered of a delivery: how long each step took, over real connections."""

import asyncio
import dataclasses
import json
from collections.abc import Callable

import httpx
import pytest
import respx

from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.push.exchange import MAX_KEPT_BYTES, Exchange, Limits, Phase, TransportFailure
from hurlbat_dispatcher.push.record import Record, timings
from hurlbat_dispatcher.push.transport import Transport
from tests.push.delivering import PROTOCOL, URL, deliver, make_client, run
from tests.push.far_side import (
    LOOPBACK,
    PATIENT,
    Authority,
    Talk,
    hang,
    listening,
    localhost,
    polite,
    transporting,
)

pytestmark = pytest.mark.anyio
STEPS = ("dns", "connect", "tls", "first_byte", "total")


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """The server runs on uvloop where it can, whose sockets and handshakes are its own."""
    return "asyncio", {"use_uvloop": request.param}


async def _taken(
    transport: Transport, url: str, limits: Limits = PATIENT, opened: Callable[[], None] = lambda: None
) -> dict[str, object]:
    """Post, and return the timings as they are stored; `opened` is called when the head of the answer has come."""
    record = Record("d", "w", Mode.PROTOCOL, url, 0, {}, 2, "", 1)
    try:
        async with transport.post(url, headers={}, body=b"{}", limits=limits, record=record) as response:
            opened()
            await response.read()
    except TransportFailure as failure:
        record.trouble = failure.message
    found: dict[str, object] = json.loads(record.as_json())["timings"]
    return found


def _took(found: dict[str, object]) -> set[str]:
    return {step for step in STEPS if found[step] is not None}


async def test_a_new_connection_with_tls_takes_every_step_and_a_used_one_only_the_last(authority: Authority) -> None:
    trusting = Transport(LOOPBACK, ssl_context=authority.trust(), lookup=localhost)
    async with listening(polite, authority.serve(host="x.example")) as server, transporting(trusting) as transport:
        url = server.url(host="x.example", scheme="https")
        first, second = await _taken(transport, url), await _taken(transport, url)

    assert (_took(first), first["reused"]) == (set(STEPS), False)
    assert (_took(second), second["reused"]) == ({"first_byte", "total"}, True)
    parts = [first[step] for step in ("dns", "connect", "tls", "first_byte")]
    assert isinstance(first["total"], float)
    assert sum(part for part in parts if isinstance(part, float)) <= first["total"] + 0.001


async def test_an_address_without_tls_has_neither_a_name_to_look_up_nor_a_handshake() -> None:
    async with listening(polite) as server, transporting() as transport:
        assert _took(await _taken(transport, server.url())) == {"connect", "first_byte", "total"}


async def test_an_exchange_that_ends_on_the_way_says_how_far_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Exchange.enter

    def soon_over(exchange: Exchange, phase: Phase) -> None:
        enter(exchange, phase)
        if phase is Phase.HANDSHAKING:  # so far it has come when its time is over
            exchange.timer.reschedule(asyncio.get_running_loop().time() + 0.05)

    monkeypatch.setattr(Exchange, "enter", soon_over)
    async with listening(hang) as server, transporting() as transport:
        handshake = await _taken(transport, server.url(scheme="https"))
        silence = await _taken(transport, server.url(), dataclasses.replace(PATIENT, total=0.1))
    assert _took(handshake) == {"connect", "total"}
    assert _took(silence) == {"connect", "total"}


async def test_the_first_byte_is_that_of_the_head_however_long_the_body_takes() -> None:
    came = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")
        await came.wait()
        await asyncio.sleep(0.1)
        await talk.say(b"{}")

    async with listening(script) as server, transporting() as transport:
        found = await _taken(transport, server.url(), opened=came.set)
    assert isinstance(found["first_byte"], float)
    assert isinstance(found["total"], float)
    assert found["total"] - found["first_byte"] > 0.05


def test_steps_that_were_not_reached_are_none() -> None:
    assert timings(0.0, {}, None, 1.5) == dict.fromkeys(STEPS) | {"total": 1.5, "reused": False}


async def test_a_long_list_of_headers_is_cut_and_cookies_are_hidden() -> None:
    kept: list[Record] = []
    router = respx.Router()
    many = [("x-long", "a" * 1_000), ("set-cookie", "secret"), *((f"x-{n}", "1") for n in range(100))]
    router.post(URL).mock(return_value=httpx.Response(500, headers=many, content=b"\xff\x00oops"))
    client = make_client(router)
    client._keep = kept.append

    await deliver(httpx.Response(500), [run()], PROTOCOL, client)

    shown = json.loads(kept[0].as_json())["response"]
    assert len(shown["headers"]) == 40
    assert (len(shown["headers"]["x-long"]), shown["headers"]["set-cookie"]) == (300, "…")
    assert (shown["body"], shown["bytes"], shown["cut"]) == ("\ufffd\ufffdoops", 6, False)
    assert not kept[0].clean


async def test_what_opens_doors_is_not_kept_where_the_answer_repeats_it() -> None:
    kept: list[Record] = []
    target = dataclasses.replace(PROTOCOL, headers={"authorization": "Bearer open-sesame", "x-mode": "test"})
    delivered = run()._replace(lease_token="lease-token-1")
    router = respx.Router()

    async def repeat(request: httpx.Request) -> httpx.Response:
        signature = request.headers["webhook-signature"]
        said = (
            f"{request.headers['authorization']} open-sesame! {signature} {signature[3:]} {delivered.lease_token} test"
        )
        return httpx.Response(
            500, headers={"x-said": f"{signature} test"}, text=f"{said:x<{MAX_KEPT_BYTES - 10}}open-sesame"
        )

    router.post(URL).mock(side_effect=repeat)
    client = make_client(router)
    client._keep = kept.append

    await deliver(httpx.Response(500), [delivered], target, client)

    shown = json.loads(kept[0].as_json())["response"]
    assert shown["headers"]["x-said"] == "… test"
    assert shown["body"].rstrip("…").rstrip("x") == "… …! … … … test"
    assert (shown["body"][-2:], shown["cut"]) == ("x…", True)
