"""A worker registers itself in the background, whatever the server does meanwhile."""

import asyncio
import logging
from typing import Any

import httpx
import pytest

from hurlbat import Hurlbat
from hurlbat.signing import new_key_pair, new_secret
from tests.sdk.exchange import SECRET, an_app
from tests.sdk.fake_server import FakeServer, answer, problem

pytestmark = pytest.mark.anyio

READY = answer(200, {"name": "thumbs", "state": "ready", "problem": None})
PENDING = answer(201, {"name": "thumbs", "state": "pending", "problem": "connection refused"})


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat.registration.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("hurlbat.sending.FIRST_PAUSE", 0.001)


def a_worker(server: FakeServer, **settings: Any) -> Hurlbat:
    known = {"worker": "thumbs", "public_url": "https://thumbs.example/hurlbat/", "slots": 7}
    hurlbat = an_app(**(known | settings))
    server.attach(hurlbat)
    return hurlbat


async def logged(caplog: pytest.LogCaptureFixture, said: str) -> logging.LogRecord:
    async with asyncio.timeout(120):
        while True:
            for record in caplog.records:
                if said in record.getMessage():
                    return record
            await asyncio.sleep(0.001)


async def test_a_worker_with_a_public_url_registers_itself(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on("POST /workers", READY)
    async with a_worker(server).lifespan():
        await logged(caplog, "worker thumbs is registered: ready")
    assert server.bodies("POST /workers") == [
        {
            "name": "thumbs",
            "url": "https://thumbs.example/hurlbat/",
            "mode": "protocol",
            "secret": SECRET,
            "slots": 7,
        }
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "trouble", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), problem(503, "unavailable"), PENDING]
)
async def test_it_is_tried_again_until_the_server_has_proved_the_worker(
    server: FakeServer, caplog: pytest.LogCaptureFixture, trouble: Any
) -> None:
    caplog.set_level(logging.INFO)
    server.on("POST /workers", *[trouble] * 8, READY)
    async with a_worker(server).lifespan():
        await logged(caplog, "worker thumbs is registered: ready")
    assert len([record for record in caplog.records if "not registered yet" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (
            answer(200, {"state": "rejected", "problem": "the worker answered 307; register …/hurlbat/ instead"}),
            "worker thumbs was rejected: the worker answered 307; register …/hurlbat/ instead",
        ),
        (
            problem(422, "url_https_required", "the URL must start with https://"),
            "worker thumbs was not registered: the URL must start with https:// (422 url_https_required)",
        ),
        (problem(401, "unauthorized", "no token"), "was not registered: no token"),
    ],
)
async def test_a_rejection_is_told_in_one_sentence_and_ends_it(
    server: FakeServer, caplog: pytest.LogCaptureFixture, reply: Any, said: str
) -> None:
    server.on("POST /workers", reply)
    async with a_worker(server).lifespan():
        assert (await logged(caplog, said)).levelno == logging.ERROR
    assert len(server.requests) == 1


async def test_a_worker_without_a_public_url_asks_nobody(server: FakeServer) -> None:
    async with a_worker(server, public_url=None).lifespan():
        await asyncio.sleep(0)
    assert server.requests == []


async def test_a_worker_without_a_secret_says_what_is_missing(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_worker(server, signing_secret=[]).lifespan():
        assert (await logged(caplog, "HURLBAT_SIGNING_SECRET is not")).levelno == logging.ERROR
    assert server.requests == []


async def test_the_app_stops_while_it_still_tries(server: FakeServer) -> None:
    server.on("POST /workers", httpx.ConnectError("refused"))
    async with asyncio.timeout(120), a_worker(server).lifespan():
        await server.asked("POST /workers")


async def test_a_worker_registers_with_the_newest_of_its_secrets(server: FakeServer) -> None:
    server.on("POST /workers", READY)
    async with a_worker(server, signing_secret=[SECRET, new_secret()]).lifespan():
        await server.asked("POST /workers")
    assert [body["secret"] for body in server.bodies("POST /workers")] == [SECRET]


async def test_a_secret_that_was_replaced_gives_way_to_the_next_one(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on("POST /workers", problem(409, "secret_replaced"), READY)
    newer = new_secret()
    async with a_worker(server, signing_secret=[SECRET, newer]).lifespan():
        await logged(caplog, "worker thumbs is registered: ready")
    assert [body["secret"] for body in server.bodies("POST /workers")] == [SECRET, newer]


async def test_a_worker_whose_only_secret_was_replaced_says_so(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.on("POST /workers", problem(409, "secret_replaced"))
    async with a_worker(server).lifespan():
        record = await logged(caplog, "worker thumbs was not registered: ")
    assert record.levelno == logging.ERROR
    assert len(server.bodies("POST /workers")) == 1


async def test_a_public_key_is_never_sent_as_a_secret(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server.on("POST /workers", READY)
    async with a_worker(server, signing_secret=[new_key_pair()[1], SECRET]).lifespan():
        await logged(caplog, "worker thumbs is registered: ready")
    assert ["secret" in body for body in server.bodies("POST /workers")] == [False]


async def test_a_new_worker_with_public_keys_only_is_told_how_its_key_comes_to_be(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    made = new_secret()
    server.on("POST /workers", answer(201, {"name": "thumbs", "state": "pending", "problem": "", "secret": made}))
    async with a_worker(server, signing_secret=[new_key_pair()[1]]).lifespan():
        record = await logged(caplog, "hurlbat workers rotate thumbs --algorithm v1a --overlap 0")
    assert record.levelno == logging.ERROR
    assert made not in caplog.text
