"""The worker's door: who gets in, and what those who do not are told."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from hurlbat import Hurlbat, signing, wire
from hurlbat.messages import read_message
from tests.sdk.exchange import SECRET, URL, WORKER, Exchange, a_run, an_app, cancellation, delivery, signed

pytestmark = pytest.mark.anyio

DESCRIBE = wire.describe_body(WORKER, URL, "2026-11-21T12:00:00.000Z")
PROBE = wire.probe_body(WORKER, URL, "2026-11-21T12:00:00.000Z")


def a_worker(**settings: Any) -> Hurlbat:
    hurlbat = an_app(**settings)

    @hurlbat.task(retries=2)
    async def double(number: int) -> int:
        return number * 2

    return hurlbat


async def ask(hurlbat: Hurlbat, body: bytes, headers: dict[str, str] | None = None, **more: Any) -> Exchange:
    return await Exchange(hurlbat.asgi(), body, headers=headers, **more).finish()


# -- the four messages -------------------------------------------------------------------------------------------------


async def test_a_delivery_is_answered_with_the_result_and_the_mark() -> None:
    hurlbat = a_worker()
    answer = await ask(hurlbat, delivery(a_run("double", 21)))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["hurlbat-worker"] == hurlbat.manifest().version
    assert answer.lines == [
        {"type": "started", "run_id": "run-double", "attempt": 1},
        {"type": "result", "run_id": "run-double", "attempt": 1, "state": "completed", "output": 42},
    ]


async def test_describe_is_answered_with_the_manifest() -> None:
    hurlbat = a_worker()
    answer = await ask(hurlbat, DESCRIBE)
    assert answer.status == 200
    assert answer.json["version"] == answer.headers["hurlbat-worker"] == hurlbat.manifest().version == hurlbat.mark()
    task = answer.json["tasks"][0]
    assert (task["name"], task["retries"]) == ("double", 2)
    assert (task["input_schema"], task["output_schema"]) == ({"type": "integer"}, {"type": "integer"})


async def test_the_digest_changes_with_the_tasks() -> None:
    hurlbat = a_worker()
    before = hurlbat.mark()
    assert hurlbat.manifest().version == before
    hurlbat.task(name="another")(lambda: None)
    assert hurlbat.manifest().version == hurlbat.mark() != before


async def test_a_signed_probe_runs_nothing_and_is_answered() -> None:
    answer = await ask(a_worker(), PROBE)
    assert (answer.status, answer.json) == (200, {"ok": True})


async def test_a_cancel_for_a_run_that_is_not_here_says_unknown() -> None:
    answer = await ask(a_worker(), cancellation(("nowhere", 1)))
    assert answer.json == {"runs": [{"run_id": "nowhere", "attempt": 1, "status": "unknown"}]}


# -- who gets in -------------------------------------------------------------------------------------------------------


async def test_an_unsigned_body_is_refused() -> None:
    answer = await ask(a_worker(), PROBE, headers={})
    assert answer.status == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["code"] == "signature_refused"
    assert "not signed" in answer.json["detail"]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        (lambda: signed(PROBE, keys=[signing.new_secret()]), "no signature matches"),
        (lambda: signed(PROBE + b" "), "re-serialises"),
        (lambda: signed(PROBE, at=time.time() - 600), "behind this clock"),
        (lambda: signed(PROBE, at=time.time() + 3600), "ahead of this clock"),
        (lambda: signed(PROBE) | {"webhook-signature": "v2,AAAA v9,x"}, "no signature matches"),
        (
            lambda: signed(PROBE) | {"webhook-signature": signed(PROBE)["webhook-signature"][:-4]},
            "no signature matches",
        ),
        (lambda: signed(PROBE) | {"webhook-timestamp": "now"}, "not a number of seconds"),
    ],
)
async def test_a_bad_signature_is_refused_with_a_hint(headers: Callable[[], dict[str, str]], said: str) -> None:
    answer = await ask(a_worker(), PROBE, headers())
    assert answer.status == 401
    assert said in answer.json["detail"]
    assert answer.headers["hurlbat-worker"]


@pytest.mark.parametrize("junk", ["v1", "v1,a,b", "v1,\xff\xfe", ",", "v1a,x", "\x00"])
async def test_one_good_signature_counts_beside_junk(junk: str) -> None:
    headers = signed(PROBE)
    headers["webhook-signature"] = f"{junk} {headers['webhook-signature']}"
    assert (await ask(a_worker(), PROBE, headers)).status == 200
    assert (await ask(a_worker(), PROBE, headers | {"webhook-signature": junk})).status == 401


async def test_a_body_that_is_no_json_is_refused_before_it_is_read() -> None:
    assert (await ask(a_worker(), b"\xff{[", signed(PROBE))).status == 401


async def test_both_secrets_are_good_during_a_rotation_and_the_old_one_fails_after_it() -> None:
    new = signing.new_secret()
    during, after = a_worker(signing_secret=f"{new},{SECRET}"), a_worker(signing_secret=new)
    assert (await ask(during, PROBE, signed(PROBE, keys=[SECRET]))).status == 200
    assert (await ask(during, PROBE, signed(PROBE, keys=[new]))).status == 200
    assert (await ask(after, PROBE, signed(PROBE, keys=[new, SECRET]))).status == 200
    assert (await ask(after, PROBE, signed(PROBE, keys=[SECRET]))).status == 401


async def test_a_worker_without_a_secret_refuses_everything_and_says_so_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HURLBAT_SIGNING_SECRET", raising=False)
    hurlbat = Hurlbat()
    handler = hurlbat.asgi()
    for _ in range(2):
        answer = await Exchange(handler, PROBE).finish()
        assert answer.status == 401
        assert "HURLBAT_SIGNING_SECRET" in answer.json["detail"]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


async def test_a_refusal_and_a_log_never_show_the_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    hurlbat = a_worker(worker="other")
    bad = signed(PROBE, keys=[signing.new_secret()])
    answers = [await ask(hurlbat, PROBE, bad), await ask(hurlbat, PROBE, {}), await ask(hurlbat, PROBE)]
    shown = b"".join(answer.body + repr(answer.headers).encode() for answer in answers) + caplog.text.encode()
    assert SECRET.encode() not in shown
    assert b"token-token-token" not in shown


# -- meant for another -------------------------------------------------------------------------------------------------


async def test_a_body_for_another_worker_is_refused() -> None:
    answer = await ask(a_worker(worker="videos"), delivery(a_run("double", 1)))
    assert (answer.status, answer.json["code"]) == (403, "wrong_target")
    assert "'thumbs'" in answer.json["detail"]


async def test_a_body_for_another_url_is_refused() -> None:
    answer = await ask(a_worker(public_url="https://other.example/hurlbat/"), PROBE)
    assert (answer.status, answer.json["code"]) == (403, "wrong_target")


@pytest.mark.parametrize("public", [URL, URL.rstrip("/"), URL + "/"])
async def test_a_trailing_slash_makes_no_other_url(public: str) -> None:
    assert (await ask(a_worker(worker=WORKER, public_url=public), PROBE)).status == 200


async def test_a_run_of_an_unknown_task_fails_and_its_neighbours_do_not() -> None:
    answer = await ask(a_worker(), delivery(a_run("missing"), a_run("double", 2)))
    assert answer.results["run-double"]["output"] == 4
    failed = answer.results["run-missing"]
    assert failed["error"] == {"type": "unknown_task", "message": "this worker serves no task missing"}
    assert failed["retryable"] is False


# -- other methods, large and broken bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused(method: str) -> None:
    answer = await ask(a_worker(), b"", {}, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, POST")
    assert answer.headers["hurlbat-worker"]


async def test_a_get_is_bare_health_and_names_nothing() -> None:
    answer = await ask(a_worker(worker=WORKER), b"", {}, method="GET")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    assert set(answer.headers) == {"content-type", "content-length"}


async def test_a_declared_length_beyond_the_limit_is_refused_before_a_byte_is_read() -> None:
    hurlbat = a_worker()
    exchange = Exchange(hurlbat.asgi(max_body_bytes=100), b"x" * 101, headers={"content-length": "101"})
    await exchange.finish()
    assert (exchange.status, exchange.json["code"], exchange.bytes_read) == (413, "too_large", 0)


async def test_an_endless_body_is_refused_at_the_limit() -> None:
    hurlbat, sent, read = a_worker(), list[Any](), 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 60
        return {"type": "http.request", "body": b"x" * 60, "more_body": read < 6_000}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await hurlbat.asgi(max_body_bytes=100)(scope, receive, send)
    assert (sent[0]["status"], read) == (413, 120)


@pytest.mark.parametrize("length", ["", "-1", "1e9", "²", "9" * 400])
async def test_a_hostile_content_length_is_no_error_of_ours(length: str) -> None:
    answer = await ask(a_worker(), PROBE, signed(PROBE) | {"content-length": length})
    assert answer.status in (200, 413)


async def test_a_client_that_leaves_while_it_sends_is_no_error() -> None:
    hurlbat, sent = a_worker(), list[Any]()
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await hurlbat.asgi()({"type": "http", "method": "POST", "path": "/", "headers": []}, receive, send)
    assert sent == []


GOOD = json.loads(delivery(a_run("double", 1)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[]", ""),
        (b"{}", "'type'"),
        (b'{"type":"reboot","data":{}}', "reboot"),
        (b'{"type":"probe"}', "'data'"),
        (b'{"type":"probe","data":{"worker":1,"url":"x"}}', "strings"),
        (b"[" * 100_000, ""),
        (json.dumps(GOOD | {"data": GOOD["data"] | {"runs": [{}]}}).encode(), "'execution_timeout'"),
        (json.dumps(GOOD | {"data": GOOD["data"] | {"runs": 1}}).encode(), ""),
        (
            json.dumps(GOOD | {"data": GOOD["data"] | {"runs": [GOOD["data"]["runs"][0] | {"attempt": "1"}]}}).encode(),
            "",
        ),
        (
            json.dumps(
                GOOD | {"data": GOOD["data"] | {"runs": [GOOD["data"]["runs"][0] | {"execution_timeout": -1}]}}
            ).encode(),
            "above 0",
        ),
        (
            json.dumps(GOOD | {"data": GOOD["data"] | {"runs": [GOOD["data"]["runs"][0] | {"metadata": 1}]}}).encode(),
            "",
        ),
    ],
)
async def test_a_signed_body_that_is_no_message_is_refused_with_what_is_wrong(body: bytes, said: str) -> None:
    answer = await ask(a_worker(), body)
    assert (answer.status, answer.json["code"]) == (400, "bad_message")
    assert said in answer.json["detail"]


async def test_members_that_a_later_dispatcher_may_add_are_ignored() -> None:
    run = GOOD["data"]["runs"][0] | {"journal": []}
    answer = await ask(a_worker(), json.dumps(GOOD | {"data": GOOD["data"] | {"runs": [run], "more": 1}}).encode())
    assert answer.results["run-double"]["state"] == "completed"


def test_the_lease_token_stays_out_of_sight() -> None:
    assert "lease-token" not in repr(read_message(delivery(a_run("double", 1))))


async def test_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await a_worker().asgi()({"type": "websocket"}, None, send)  # type: ignore[arg-type]  # nothing is received
    assert sent == [{"type": "websocket.close", "code": 1008}]
