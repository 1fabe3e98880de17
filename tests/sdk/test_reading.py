"""A body is read as it was sent, or it is said why it cannot be."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hurlbat.outbox import StreamBroken
from hurlbat.reading import BodyRefused, read_body
from tests.sdk.exchange import Exchange, an_app, signed

pytestmark = pytest.mark.anyio
LIMIT = 100
GONE = {"type": "http.disconnect"}


def came(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def read(headers: dict[str, str], *messages: dict[str, Any], patience: float = 60) -> bytes:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return await read_body(headers, receive, LIMIT, patience)


async def refused(headers: dict[str, str], *messages: dict[str, Any], patience: float = 60) -> tuple[int, str, str]:
    with pytest.raises(BodyRefused) as caught:
        await read(headers, *messages, patience=patience)
    return caught.value.status, caught.value.code, str(caught.value)


@pytest.mark.parametrize(
    ("declared", "messages"),
    [
        ({"content-length": "5"}, [came(b"hello")]),
        ({"content-length": "5"}, [came(b"he", True), came(b"", True), came(b"llo")]),
        ({}, [came(b"hel", True), came(b"lo")]),
        ({"content-length": "five"}, [came(b"hello")]),
    ],
)
async def test_a_body_is_what_came(declared: dict[str, str], messages: Sequence[dict[str, Any]]) -> None:
    assert await read(declared, *messages) == b"hello"


@pytest.mark.parametrize("messages", [[came(b"")], [GONE], [came(b"", True), GONE]])
async def test_a_body_that_was_read_before_is_told(messages: Sequence[dict[str, Any]]) -> None:
    status, code, said = await refused({"content-length": "50"}, *messages)
    assert (status, code) == (401, "body_consumed")
    assert said.startswith("the body was read before it came here: content-length says 50 bytes, and nothing came.")
    assert said.endswith('app = hurlbat.mount(app, "/hurlbat")')


async def test_a_signed_request_without_a_length_has_a_body() -> None:
    status, code, said = await refused({"webhook-signature": "v1,abc"}, came(b""))
    assert (status, code) == (401, "body_consumed")
    assert said.startswith("the body was read before it came here: the request is signed, and nothing came.")


@pytest.mark.parametrize("came_so_many", [4, 6])
async def test_a_body_of_another_length_was_changed(came_so_many: int) -> None:
    status, code, said = await refused({"content-length": "5"}, came(b"x" * came_so_many))
    assert (status, code) == (401, "body_changed")
    assert f"content-length says 5 bytes, and {came_so_many} came" in said


async def test_a_body_that_does_not_begin_is_not_waited_for_for_ever() -> None:
    status, code, said = await refused({"content-length": "5"}, patience=0.01)
    assert (status, code) == (408, "body_late")
    assert said.startswith(
        "nothing of the body of 5 bytes came within 0.01 s: the sender is stuck, or the body was read"
    )


async def test_a_body_that_has_begun_may_take_its_time() -> None:
    reading = asyncio.create_task(read({"content-length": "5"}, came(b"he", True), patience=0.01))
    await asyncio.sleep(0.05)
    assert not reading.done()
    reading.cancel()


@pytest.mark.parametrize("messages", [[came(b"he", True), GONE], []])
async def test_a_body_that_breaks_off_is_not_answered(messages: Sequence[dict[str, Any]]) -> None:
    with pytest.raises(StreamBroken):
        await read({"content-length": "5"} if messages else {}, *(messages or [GONE]))


@pytest.mark.parametrize(
    ("declared", "messages"), [({"content-length": "101"}, []), ({}, [came(b"x" * 60, True), came(b"x" * 60)])]
)
async def test_a_body_over_the_limit_is_refused(declared: dict[str, str], messages: Sequence[dict[str, Any]]) -> None:
    assert await refused(declared, *messages) == (413, "too_large", "the body has more than 100 bytes")


async def test_who_sees_only_the_log_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    app = an_app().asgi()
    for _ in range(2):
        answer = await Exchange(app, b"", headers=signed(b"{}") | {"content-length": "2"}).finish()
        assert (answer.status, answer.json["code"]) == (401, "body_consumed")
        assert answer.headers["hurlbat-worker"]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["this worker refuses requests"]


async def test_names_of_headers_may_be_written_in_any_case() -> None:
    hurlbat = an_app()
    body = b'{"type":"probe","timestamp":"2026-11-21T12:00:00.000Z","data":{"worker":"thumbs","url":"https://a.b/"}}'
    headers = {name.title(): value for name, value in signed(body).items()} | {"Content-Length": str(len(body))}
    answer = await Exchange(hurlbat.asgi(), body, headers=headers).finish()
    assert (answer.status, answer.json) == (200, {"ok": True})
