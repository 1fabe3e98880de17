"""Names: rebinding, mixed answers, names that fail or hang."""

import asyncio
import socket
from collections.abc import Sequence

import pytest

from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.exchange import Limits
from hurlbat_dispatcher.push.guard import Guard, parse_networks
from hurlbat_dispatcher.push.resolver import Resolver
from hurlbat_dispatcher.push.transport import Transport
from tests.push.far_side import (
    FOREVER,
    LONG,
    LOOPBACK,
    PATIENT,
    answering,
    failure_of,
    fetch,
    listening,
    polite,
    transporting,
)

pytestmark = pytest.mark.anyio


class _Names:
    """A resolver's answers, one after the other; the last is repeated."""

    def __init__(self, *answers: Sequence[str] | OSError) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("scheme", "addresses"),
    [
        ("https", ["127.0.0.1"]),
        ("https", ["8.8.8.8", "127.0.0.1"]),
        ("https", ["127.0.0.1", "8.8.8.8"]),
        ("http", ["8.8.8.8"]),  # public, but http is for allowed networks only
    ],
)
async def test_any_bad_address_of_a_name_blocks_it_and_nothing_is_dialled(scheme: str, addresses: list[str]) -> None:
    async with listening(polite) as server, transporting(Transport(Guard(), lookup=_Names(addresses))) as transport:
        failure = await failure_of(transport, server.url(host="x.example", scheme=scheme))
    assert (failure.code, failure.sent, failure.local) == (ErrorCode.DESTINATION_BLOCKED, False, False)
    assert server.connections == 0


@pytest.mark.parametrize("addresses", [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]])
async def test_a_good_address_beside_a_bad_one_is_not_dialled_either(addresses: list[str]) -> None:
    guarded = Transport(Guard(parse_networks("127.0.0.1/32")), lookup=_Names(addresses))
    async with listening(polite) as server, transporting(guarded) as transport:
        failure = await failure_of(transport, server.url(host="x.example"))
    assert failure.code == ErrorCode.DESTINATION_BLOCKED
    assert server.connections == 0


async def test_a_name_that_turns_private_after_its_first_answer_is_blocked() -> None:
    guard = Guard(parse_networks("127.0.0.1/32"))
    names = _Names(["127.0.0.1"], ["127.0.0.2"])
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    async with listening(answering(closing)) as server, transporting(Transport(guard, lookup=names)) as transport:
        assert await fetch(transport, server.url(host="x.example")) == (200, b"{}")
        failure = await failure_of(transport, server.url(host="x.example"))
    assert failure.code == ErrorCode.DESTINATION_BLOCKED
    assert names.asked == ["x.example", "x.example"]
    assert server.connections == 1


@pytest.mark.parametrize(
    "error",
    [
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        OSError("the resolver went away"),
    ],
)
async def test_a_name_that_cannot_be_resolved_sent_nothing(error: OSError) -> None:
    async with transporting(Transport(LOOPBACK, lookup=_Names(error))) as transport:
        failure = await failure_of(transport, "http://x.example/")
    assert (failure.code, failure.sent) == (ErrorCode.DNS_ERROR, False)


async def test_a_name_without_addresses_sent_nothing() -> None:
    async with transporting(Transport(LOOPBACK, lookup=_Names([]))) as transport:
        failure = await failure_of(transport, "http://x.example/")
    assert (failure.code, failure.sent) == (ErrorCode.DNS_ERROR, False)


async def test_a_name_that_hangs_is_given_up_and_others_feel_nothing() -> None:
    async def lookup(host: str) -> Sequence[str]:
        if host.startswith("slow"):
            await asyncio.sleep(FOREVER)
        return ["127.0.0.1"]

    async with listening(polite) as server, transporting(Transport(LOOPBACK, lookup=lookup)) as transport:
        slow = [
            asyncio.create_task(failure_of(transport, f"http://slow-{n % 3}.example/", Limits(total=LONG, connect=0.5)))
            for n in range(30)
        ]
        assert await fetch(transport, server.url(host="quick.example")) == (200, b"{}")
        failures = await asyncio.gather(*slow)
    assert {(failure.code, failure.sent) for failure in failures} == {(ErrorCode.DNS_ERROR, False)}


async def test_requests_for_one_name_share_a_lookup_and_survive_each_other() -> None:
    names: list[str] = []
    go_on = asyncio.Event()

    async def lookup(host: str) -> Sequence[str]:
        names.append(host)
        await go_on.wait()
        return ["192.0.2.1"]

    resolver = Resolver(lookup)
    waiting = [asyncio.create_task(resolver.addresses("x.example")) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert answers[1:] == [["192.0.2.1"], ["192.0.2.1"]]
    assert names == ["x.example"]


async def test_the_systems_resolver_is_asked_without_blocking_the_loop() -> None:
    resolver = Resolver()
    assert "127.0.0.1" in await resolver.addresses("localhost")
    with pytest.raises(OSError):
        await resolver.addresses("no such name.invalid")
    with pytest.raises(OSError):
        await resolver.addresses("a" * 64 + ".invalid")
    await resolver.close()


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.1"])
async def test_an_address_in_disguise_is_not_dialled(host: str) -> None:
    names = _Names(["127.0.0.1"])
    async with listening(polite) as server, transporting(Transport(Guard(), lookup=names)) as transport:
        failure = await failure_of(transport, server.url(host=host))
    assert not failure.sent
    assert server.connections == 0


async def test_a_request_that_is_given_up_while_its_name_is_looked_up_was_never_sent() -> None:
    looking = asyncio.Event()
    told: list[str] = []

    async def lookup(_: str) -> Sequence[str]:
        looking.set()
        await asyncio.sleep(FOREVER)
        return ["127.0.0.1"]

    async def post(transport: Transport, url: str) -> None:
        sending = lambda: told.append(url)  # noqa: E731
        async with transport.post(url, headers={}, body=b"", limits=PATIENT, last_look=sending) as response:
            await response.read()

    async with listening(polite) as server:
        url = server.url(host="x.example")
        async with transporting(Transport(LOOPBACK, lookup=lookup)) as transport:
            posting = asyncio.ensure_future(post(transport, url))
            await looking.wait()
            posting.cancel()
            await asyncio.gather(posting, return_exceptions=True)
        assert told == []
        async with transporting(Transport(LOOPBACK, lookup=_Names(["127.0.0.1"]))) as transport:
            await post(transport, url)
        assert told == [url]
