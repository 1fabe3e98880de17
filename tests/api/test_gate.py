"""Who may come in, and how refusals are said."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from starlette.types import Message

from hurlbat_app.api import create_app
from hurlbat_dispatcher import Engine
from tests.api.conftest import ORIGIN, TOKEN

pytestmark = pytest.mark.anyio

RUN = "/runs/00000000-0000-7000-8000-000000000000"
GUARDED = [
    ("POST", "/runs"),
    ("GET", "/runs"),
    ("POST", "/runs/bulk"),
    ("GET", RUN),
    ("POST", f"{RUN}/cancel"),
    ("POST", f"{RUN}/replay"),
    ("POST", f"{RUN}/attempts/1/heartbeat"),
    ("POST", f"{RUN}/attempts/1/complete"),
    ("POST", f"{RUN}/attempts/1/fail"),
    ("POST", f"{RUN}/attempts/1/cancel"),
    ("POST", f"{RUN}/attempts/1/log"),
    ("POST", "/workers"),
    ("GET", "/workers"),
    ("GET", "/workers/w"),
    ("PATCH", "/workers/w"),
    ("DELETE", "/workers/w"),
    ("POST", "/workers/w/sync"),
    ("POST", "/workers/w/pause"),
    ("POST", "/workers/w/resume"),
    ("GET", "/tasks"),
    ("GET", "/tasks/t"),
    ("GET", "/webhooks"),
    ("PUT", "/webhooks/w"),
    ("GET", "/webhooks/w"),
    ("DELETE", "/webhooks/w"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong-token-of-nobody", f"Bearer {TOKEN}x", TOKEN]
)
async def test_without_a_good_token_nothing_opens(stranger: httpx.AsyncClient, header: str | None) -> None:
    for method, path in GUARDED:
        headers = {} if header is None else {"authorization": header}
        answer = await stranger.request(method, path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.json()["code"] in ("token_missing", "token_invalid", "lease_token_invalid")
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("action", ["heartbeat", "complete", "fail", "log"])
async def test_the_api_token_opens_no_report(api: httpx.AsyncClient, action: str) -> None:
    answer = await api.post(f"{RUN}/attempts/1/{action}", json={"entries": []} if action == "log" else {})

    assert answer.status_code == 401


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_is_open(stranger: httpx.AsyncClient, path: str) -> None:
    assert (await stranger.get(path)).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://hurlbat.test.evil.example", ORIGIN + ":81"])
async def test_a_page_of_another_origin_changes_nothing(api: httpx.AsyncClient, origin: str) -> None:
    answer = await api.post("/runs", json={"task": "echo"}, headers={"origin": origin})

    assert (answer.status_code, answer.json()["code"]) == (403, "origin_forbidden")
    assert (await api.get("/runs")).json()["items"] == []


@pytest.mark.parametrize("host", ["hurlbat.test", "127.0.0.1:8420"])
async def test_a_page_of_our_own_origin_is_let_in(api: httpx.AsyncClient, host: str) -> None:
    headers = {"origin": f"http://{host}", "host": host}

    answer = await api.post("/runs", json={"task": "echo", "delay": 3600}, headers=headers)

    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/", "/nowhere", "/runs/", "/Runs", "/runs/a/b/c", "/favicon.ico", "/docs/"])
async def test_a_path_that_leads_nowhere_is_told_so(stranger: httpx.AsyncClient, path: str) -> None:
    answer = await stranger.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "path_not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/runs", "GET, HEAD, POST"),
        ("OPTIONS", "/runs", "GET, HEAD, POST"),
        ("DELETE", RUN, "GET, HEAD, PATCH"),
        ("POST", "/workers/w", "DELETE, GET, HEAD, PATCH"),
        ("TRACE", "/health/live", "GET, HEAD"),
        ("GET", "/runs/bulk", "POST"),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(
    stranger: httpx.AsyncClient, method: str, path: str, allow: str
) -> None:
    answer = await stranger.request(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, allow)
    assert answer.json()["allow"] == allow.split(", ")


GOOD = (b"authorization", f"Bearer {TOKEN}".encode())


async def _answer(engine: Engine, headers: list[tuple[bytes, bytes]], messages: list[Message]) -> tuple[Any, int]:
    """Send one POST /runs message by message; return the answer's start and how many messages were taken."""
    taken = 0
    sent: list[Message] = []

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        return messages[min(taken, len(messages)) - 1]

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/runs",
        "query_string": b"",
        "headers": headers,
        "root_path": "",
    }
    await create_app(engine)(scope, receive, send)
    start, body = sent
    return {**start, "json": json.loads(body["body"]), "headers": dict(start["headers"])}, taken


async def test_a_body_over_the_limit_is_refused_before_it_is_read(engine: Engine) -> None:
    answer, taken = await _answer(engine, [GOOD, (b"content-length", b"1000000000")], [{"type": "http.request"}])

    assert (answer["status"], answer["json"]["code"], answer["json"]["limit"]) == (413, "body_too_large", 100_000)
    assert (taken, answer["headers"][b"connection"]) == (0, b"close")


async def test_an_endless_body_is_read_no_further_than_the_limit(engine: Engine) -> None:
    chunk: Message = {"type": "http.request", "body": b" " * 30_000, "more_body": True}

    answer, taken = await _answer(engine, [GOOD, (b"transfer-encoding", b"chunked")], [chunk])

    assert (answer["status"], taken, answer["headers"][b"connection"]) == (413, 4, b"close")


async def test_a_large_body_without_a_token_is_not_read_and_the_connection_is_closed(engine: Engine) -> None:
    headers = [(b"authorization", b"Bearer wrong"), (b"content-length", b"100000")]

    answer, taken = await _answer(engine, headers, [{"type": "http.request"}])

    assert (answer["status"], taken, answer["headers"][b"connection"]) == (401, 0, b"close")


async def test_a_body_at_the_limit_is_taken(api: httpx.AsyncClient) -> None:
    body = json.dumps({"task": "echo", "delay": 3600, "input": ""})
    body = body.replace('""', f'"{"x" * (100_000 - len(body))}"')
    assert len(body) == 100_000

    assert (await api.post("/runs", content=body)).status_code == 201
    assert (await api.post("/runs", content=body + " ")).status_code == 413


async def test_the_unexpected_is_logged_once_and_told_without_its_inside(
    engine: Engine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the password is sesame")

    monkeypatch.setattr(engine, "list_runs", broken)

    with caplog.at_level(logging.ERROR):
        answer = await api.get("/runs")

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "sesame" not in answer.text
    assert len(caplog.records) == 1
    assert "GET /runs" in caplog.text
    assert "sesame" in caplog.text


async def test_a_client_that_leaves_in_the_middle_of_its_body_gets_no_answer(engine: Engine) -> None:
    chunk: Message = {"type": "http.request", "body": b"{", "more_body": True}

    with pytest.raises(ValueError, match="unpack"):
        await _answer(engine, [GOOD], [chunk, {"type": "http.disconnect"}])


async def test_a_stopped_engine_is_not_ready_and_says_when_to_come_again(
    engine: Engine, api: httpx.AsyncClient
) -> None:
    await engine.stop(0)

    for answer in (await api.get("/health/ready"), await api.post("/runs", json={"task": "echo"})):
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert (await api.get("/health/live")).status_code == 200


async def test_a_submit_costs_the_app_little(engine: Engine, api: httpx.AsyncClient) -> None:
    """Sixteen submits at once are one commit: the requests stand in no line behind each other."""
    answers = await asyncio.gather(*(api.post("/runs", json={"task": "echo", "delay": 3600}) for _ in range(16)))

    assert [answer.status_code for answer in answers] == [201] * 16
