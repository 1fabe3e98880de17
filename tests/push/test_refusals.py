"""What is said of a 401: which keys signed, and whether the body came as it was sent."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from hurlbat import Hurlbat, signing
from hurlbat_dispatcher.clock import Chance, Ids
from hurlbat_dispatcher.domain.answers import Received, Words
from hurlbat_dispatcher.domain.outcome import ErrorCode, Held
from hurlbat_dispatcher.domain.workers import Mode, SigningKey
from hurlbat_dispatcher.push.client import PushClient
from hurlbat_dispatcher.push.guard import Guard
from hurlbat_dispatcher.push.proof import ProofFailed
from hurlbat_dispatcher.push.refusal import explained
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.push.transport import Transport
from tests.push.delivering import KEY, RUN_A, URL, VIRTUAL_TIME, StillClock, deliver

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The far side is in memory: time is virtual."""
    return VIRTUAL_TIME


BODY = b'{"a": 1}'
NOW = 1_700_000_000_123
DAY = 86_400_000
NEW = "whsec_" + "B" * 32
ONE, TWO = signing.key_id(NEW), signing.key_id(KEY)
SHA = hashlib.sha256(BODY).hexdigest()


def said(words: Words, *told: SigningKey, keys: tuple[str, ...] = (KEY,)) -> str:
    return explained(words, Target("w", URL, Mode.PROTOCOL, keys, told=told), BODY, NOW).beside


SKEW = "; clock skew -299 s (the worker's clock minus this server's)"


@pytest.mark.parametrize(
    ("received", "sentence"),
    [
        (
            Received(9, SHA),
            "the worker received 9 bytes where 8 were sent: something on the way changed the body",
        ),
        (
            Received(8, "0" * 64),
            "the worker received other bytes than the 8 sent: something on the way changed the body",
        ),
        (Received(8, SHA), "the body came as it was sent, so the worker has another secret"),
        (
            Received(8, SHA, 1.5, known=2),
            "the body came as it was sent, so the worker has another secret (it knows 2)",
        ),
        (
            Received(8, SHA, -299.4, known=2, hint="no v1a here"),
            f"the body came as it was sent, so the worker has another secret (it knows 2); no v1a here{SKEW}",
        ),
        (
            Received(8, SHA, signed=False),
            "the worker received no signature: something on the way dropped the webhook headers",
        ),
        (
            Received(8, SHA, -301.0),
            "one of the two clocks is wrong, which may differ by 300 s" + SKEW.replace("-299", "-301"),
        ),
    ],
)
def test_what_came_is_held_against_what_was_sent(received: Received, sentence: str) -> None:
    words = Words("all of it", "what the worker guesses", received=received)
    assert explained(words, Target("w", URL, Mode.PROTOCOL, (KEY,)), BODY, NOW).for_people == sentence


def test_the_words_of_a_worker_that_does_not_tell_what_came_stay() -> None:
    words = Words("all of it", "what the worker guesses")
    assert explained(words, Target("w", URL, Mode.PROTOCOL, (KEY,)), BODY, NOW).for_people == "what the worker guesses"
    assert said(words) == f"; signed with key {TWO}"


def test_the_keys_that_signed_are_named_with_their_times() -> None:
    newest = SigningKey(ONE, "v1", None, NOW - DAY, None)
    older = SigningKey(TWO, "v1", None, None, NOW + DAY)
    assert said(Words(), newest, older, keys=(NEW, KEY)) == (
        f"; signed with key {ONE} (v1 since 2023-11-13T22:13:20.123Z) and key {TWO} (v1 until"
        " 2023-11-15T22:13:20.123Z): the worker must know one of them, and the first when the others end"
    )


@pytest.mark.parametrize(("days", "told"), [(1, True), (29, True), (31, False)])
def test_a_key_that_ended_not_long_ago_is_named_as_the_one_that_the_worker_may_still_have(
    days: int, told: bool
) -> None:
    over = SigningKey("0badcafe", "v1", None, None, NOW - days * DAY)
    assert ("key 0badcafe was replaced, and signs no more since 2023-1" in said(Words(), over)) is told


# -- with the worker's side of it --------------------------------------------------------------------------------------


def between(app: Any, change: Callable[[bytes], bytes]) -> Any:
    """Return an ASGI application that changes the body on its way, as a gateway may: with a length that fits."""

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        body = change((await receive())["body"])
        headers = [(name, value) for name, value in scope["headers"] if name != b"content-length"]
        length = (b"content-length", str(len(body)).encode())

        async def changed() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope | {"headers": [*headers, length]}, changed, send)

    return changing


def a_client(change: Callable[[bytes], bytes], *, secret: str = KEY, ahead: float = 0.0) -> PushClient:
    hurlbat = Hurlbat(signing_secret=secret)
    handler = hurlbat.asgi()
    handler._clock = lambda: NOW / 1000 + ahead
    clock = StillClock()
    transport = Transport(Guard(), transport=httpx.ASGITransport(between(handler, change)))
    return PushClient(transport, clock, ids=Ids(clock, Chance(1)))


async def held(client: PushClient) -> str:
    answer = (await deliver(httpx.Response(500), client=client)).ends[RUN_A]
    assert isinstance(answer, Held)
    assert answer.code is ErrorCode.WORKER_UNAUTHORIZED
    return answer.message


async def test_a_body_that_grew_on_the_way_is_told_by_its_lengths() -> None:
    message = await held(a_client(lambda body: body.replace(b":", b": ", 2)))
    came, sent = [int(part) for part in message.split("the worker received ")[1].split() if part.isdigit()]
    assert came == sent + 2
    assert "were sent: something on the way changed the body" in message


async def test_a_body_that_changed_and_kept_its_length_is_told_by_its_digest() -> None:
    message = await held(a_client(lambda body: body.replace(b'"n":1', b'"n":2')))
    assert "the worker received other bytes than the " in message


async def test_a_wrong_secret_is_told_from_a_changed_body() -> None:
    message = await held(a_client(lambda body: body, secret=NEW))
    start = (
        "the worker answered 401: the body came as it was sent, so the worker has another secret (it knows 1); signed"
    )
    assert message.startswith(start)
    assert message.endswith(f"; signed with key {TWO}")
    assert ONE not in message  # the worker's own key is its own affair


async def test_a_wrong_clock_is_told_with_its_skew() -> None:
    message = await held(a_client(lambda body: body, ahead=600.0))
    assert "one of the two clocks is wrong, which may differ by 300 s; clock skew +600 s (the worker's" in message


async def test_a_proof_says_the_same() -> None:
    target = Target("billing", URL, Mode.PROTOCOL, (KEY,))
    with pytest.raises(ProofFailed) as failed:
        await a_client(lambda body: body + b" ").prove(target)
    assert "bytes where" in failed.value.sentence
    assert f"signed with key {TWO}" in failed.value.sentence


@pytest.mark.parametrize(
    "members",
    [
        '"body_bytes": "9", "body_sha256": 7',
        '"body_bytes": -1, "body_sha256": "short"',
        '"body_bytes": true, "body_sha256": null',
        '"body_bytes": 1e3, "body_sha256": ["a"]',
        f'"body_bytes": 9, "body_sha256": "{"g" * 64}", "clock_skew": 7',
    ],
)
async def test_what_a_worker_tells_of_the_body_in_another_shape_is_ignored(members: str) -> None:
    headers = {"content-type": "application/problem+json"}
    answer = httpx.Response(401, headers=headers, content=f'{{"detail": "no", {members}}}')
    ended = (await deliver(answer)).ends[RUN_A]
    assert ended == Held(ErrorCode.WORKER_UNAUTHORIZED, f"the worker answered 401: no; signed with key {TWO}")


async def test_members_beside_those_of_the_body_are_ignored_in_another_shape() -> None:
    headers = {"content-type": "application/problem+json"}
    odd = '"clock_skew": 1e300, "known_keys": "two", "hint": 7, "signature_versions": "v1"'
    content = f'{{"detail": "no", "body_bytes": 1, "body_sha256": "{SHA}", {odd}}}'
    ended = (await deliver(httpx.Response(401, headers=headers, content=content))).ends[RUN_A]
    assert isinstance(ended, Held)
    assert ended.message.startswith("the worker answered 401: the worker received 1 bytes where ")


async def test_every_signed_request_names_its_keys_in_the_order_of_the_signatures() -> None:
    seen: list[httpx.Request] = []

    def note(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(401)

    clock = StillClock()
    client = PushClient(Transport(Guard(), transport=httpx.MockTransport(note)), clock, ids=Ids(clock, Chance(1)))
    target = Target("billing", URL, Mode.PROTOCOL, (NEW, KEY))
    with pytest.raises(ProofFailed):
        await client.describe(target)
    await asyncio.wait_for(client.cancel(target, [(RUN_A, 1, "no")]), 30)
    assert [request.headers["hurlbat-key-ids"] for request in seen] == [f"{ONE} {TWO}"] * 2
    for request in seen:
        first, second = request.headers["webhook-signature"].split()
        body, now = request.content, int(request.headers["webhook-timestamp"])
        for key, signature in ((NEW, first), (KEY, second)):
            assert signing.verify([key], dict(request.headers) | {"webhook-signature": signature}, body, now)
