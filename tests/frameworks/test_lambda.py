"""Tasks on AWS Lambda: each kind of event, in one process as a function has it, and behind a real server."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from hurlbat import ConfigError, Context, Hurlbat, aws
from hurlbat.policy import Manifest
from hurlbat_app.conform import conform
from tests.e2e.stage import SECRET
from tests.frameworks.lambda_events import VERSIONS, Invocation, event_of
from tests.frameworks.stand import Stand
from tests.sdk.exchange import a_run, an_app, delivery, signed
from tests.support.processes import Server

# -- against a real server ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["url", "rest"])
def bridge(request: pytest.FixtureRequest, stand: Stand) -> Iterator[tuple[str, Server]]:
    """A function behind its URL or a REST API, registered by the name of that."""
    version: str = request.param
    process = stand.start("tests.frameworks.lambda_bridge", "{port}", version)
    assert stand.register(process, version, "/")["state"] == "ready"
    yield version, process
    stand.api.call("DELETE", f"/workers/{version}", status=204)
    process.kill()


def test_runs_of_a_function_end_and_are_tried_again(bridge: tuple[str, Server], stand: Stand) -> None:
    version, _ = bridge
    task = {"task": f"{version}.add", "input": [1, 2, 3]}
    many = stand.api.call("POST", "/runs/bulk", {"runs": [task] * 10})
    assert [stand.api.ended(one["id"])["output"] for one in many["results"]] == [6] * 10
    again = stand.api.run(f"{version}.add-sync", [4, 5])
    assert (again["state"], again["output"], again["attempt"]) == ("completed", 9, 2)


def test_a_function_conforms(bridge: tuple[str, Server]) -> None:
    report = conform(f"{bridge[1].url}/", SECRET, timeout=60, skip=("sizes",))
    assert [(finding.check, finding.seen) for finding in report.failed] == []


# -- in this process ---------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def hurlbat(told: list[str]) -> Hurlbat:
    @asynccontextmanager
    async def life(hurlbat: Hurlbat) -> AsyncIterator[str]:
        told.append("opened")
        yield "open"

    hurlbat = an_app(lifespan=life)

    @hurlbat.task
    async def add(input: list[int], ctx: Context) -> Any:
        return [sum(input), ctx.state, id(asyncio.get_running_loop())]

    return hurlbat


@pytest.fixture
def handler(hurlbat: Hurlbat) -> Iterator[aws.LambdaHandler]:
    handler = hurlbat.aws_lambda()
    yield handler
    handler._background.stop()


def deliver(handler: aws.LambdaHandler, *runs: Any, version: str = "url", context: Any = None) -> dict[str, Any]:
    """Invoke the function with a delivery; return its answer with the body read."""
    body = delivery(*runs)
    answer = handler(event_of(version, "POST", "/any/where", signed(body), body), context)
    return answer | {"body": json.loads(answer["body"])}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
def test_every_kind_of_event_is_answered_in_one_piece(
    hurlbat: Hurlbat, handler: aws.LambdaHandler, version: str, spelled: Any
) -> None:
    body = delivery(a_run("add", [1, 2]))
    event = event_of(version, "POST", "/prod/hurlbat", signed(body), body)
    for name in ("headers", "multiValueHeaders"):
        if name in event:
            event[name] = {spelled(header): value for header, value in event[name].items()}
    answer = handler(event, Invocation(60))
    assert (answer["statusCode"], answer["isBase64Encoded"]) == (200, False)
    [result] = json.loads(answer["body"])["results"]
    assert (result["run_id"], result["attempt"], result["state"]) == ("run-add", 1, "completed")
    assert result["output"][:2] == [3, "open"]
    headers = answer.get("headers") or {name: value for name, [value] in answer["multiValueHeaders"].items()}
    assert ("multiValueHeaders" in answer) == (version == "balancer")
    assert headers == {"hurlbat-worker": headers["hurlbat-worker"], "content-type": "application/json"}


def test_warm_invocations_have_the_same_loop_and_what_was_opened_once(
    handler: aws.LambdaHandler, told: list[str]
) -> None:
    outputs = [deliver(handler, a_run("add", [1], run_id=f"run-{n}"))["body"]["results"][0]["output"] for n in range(3)]
    assert outputs == [outputs[0]] * 3
    assert told == ["opened"]


def test_the_manifest_says_that_a_function_answers_in_one_piece_and_takes_one_run(
    hurlbat: Hurlbat, handler: aws.LambdaHandler
) -> None:
    body = delivery(a_run("add", [1])).replace(b'"deliver"', b'"describe"')
    answer = handler(event_of("url", "POST", "/", signed(body), body), None)
    manifest = Manifest.read(answer["body"].encode())
    assert (manifest.streams, manifest.max_batch) == (False, 1)
    assert manifest.version == answer["headers"]["hurlbat-worker"] != hurlbat.manifest().version
    with pytest.raises(ConfigError, match="max_batch=65 is not between 1 and 64"):
        hurlbat.aws_lambda(max_batch=65)


@pytest.mark.parametrize("is_async", [True, False])
def test_what_the_invocation_s_time_would_cut_off_fails_before_and_may_be_repeated(
    hurlbat: Hurlbat, handler: aws.LambdaHandler, is_async: bool
) -> None:
    gate = threading.Event()

    @hurlbat.task(name="endless")
    async def endless() -> None:
        await asyncio.Event().wait()

    @hurlbat.task(name="endless-sync")
    def endless_sync(ctx: Context) -> None:
        gate.wait()

    run = a_run("endless" if is_async else "endless-sync")
    answer = deliver(handler, run, a_run("add", [1]), context=Invocation(1.0))
    gate.set()
    results = {result["run_id"]: result for result in answer["body"]["results"]}
    assert results["run-add"]["state"] == "completed"
    cut = results[run.run_id]
    assert (cut["state"], cut["error"]["type"], cut.get("retryable", True)) == ("failed", "worker_stopped", True)
    assert cut["error"]["message"] == (
        "the Lambda function had 1.0 s left for this attempt, and ends attempts a second before its time is over: "
        "raise the function's timeout, or give the task an execution_timeout of less"
    )


@pytest.mark.parametrize(
    ("left", "waits", "seconds"),
    [(60.0, None, 59.0), (0.5, None, 0.25), (900.0, 29.0, 29.0), (20.0, 29.0, 19.0), (None, 29.0, 29.0)],
)
def test_attempts_end_a_second_before_the_invocation(left: float | None, waits: float | None, seconds: float) -> None:
    limit = aws._limit(left, waits)
    assert limit is not None
    assert limit.seconds == seconds
    assert aws._limit(None, None) is None
    if left is not None:  # and the answer is there before the invocation is over
        assert seconds < aws._patience(limit, left) < left


def test_an_http_api_waits_for_less_than_the_function_may_take(
    hurlbat: Hurlbat, handler: aws.LambdaHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    @hurlbat.task
    async def endless() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aws, "GATEWAY_SECONDS", 0.1)
    answer = deliver(handler, a_run("endless"), version="http", context=Invocation(900))
    [cut] = answer["body"]["results"]
    assert cut["error"]["message"].startswith("API Gateway waits 30 s for an answer, so an attempt may take 0.1 s")


def test_an_attempt_that_blocks_the_loop_does_not_hold_the_invocation(
    hurlbat: Hurlbat, handler: aws.LambdaHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    @hurlbat.task
    async def block() -> None:
        gate.wait()

    asked: list[float] = []
    blocked = handler._background.blocked

    def ask(*patience: float) -> str | None:
        asked.extend(patience)
        return blocked(*patience)

    monkeypatch.setattr(handler._background, "blocked", ask)
    answer = deliver(handler, a_run("block"), context=Invocation(2.0))
    gate.set()
    assert 0 < asked[0] < aws.LAST_SECONDS  # there is no time to look for longer
    assert answer["statusCode"] == 500
    assert answer["body"]["code"] == "loop_blocked"
    assert "test_lambda.py:" in answer["body"]["detail"]
    assert "in block: an async task must not block; make it a sync task (def), or await" in answer["body"]["detail"]
    assert "hurlbat-worker" in answer["headers"]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"Records": [{"eventSource": "aws:sqs"}]}, "the event has Records, and is no HTTP request"),
        ({"key2": 1, "key1": 2}, "the event has key1, key2, and is no HTTP request"),
        ({}, "the event has no members, and is no HTTP request"),
        (None, "the event is NoneType, and no HTTP request"),
        ([1], "the event is list, and no HTTP request"),
        ({"requestContext": {"http": "POST"}}, "the event has requestContext, and is no HTTP request"),
    ],
)
def test_an_event_of_another_kind_is_refused_with_a_sentence(handler: aws.LambdaHandler, event: Any, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        handler(event, None)
    assert str(raised.value).startswith(told)
    assert "answers those of a function URL, of API Gateway and of a load balancer" in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"isBase64Encoded": True, "body": "{}é"}, 400, "the event's body is said to be in base64 and is not"),
        ({"isBase64Encoded": False, "body": {"type": "deliver"}}, 400, "the event's body is dict, and must be a text"),
        ({"body": None}, 401, "the body was read before it came here: "),
        ({"isBase64Encoded": False}, 401, "no signature"),
        ({"headers": None}, 401, "webhook-id"),
        ({"headers": {"x": "→", "é→": "1"}}, 401, "webhook-id"),
        ({"isBase64Encoded": False, "body": "\ud800"}, 401, "no signature"),
    ],
)
def test_a_request_that_is_not_as_it_was_sent_is_refused(
    handler: aws.LambdaHandler, changes: dict[str, Any], status: int, told: str
) -> None:
    body = delivery(a_run("add", [1]))
    answer = handler(event_of("url", "POST", "/", signed(body), body) | changes, None)
    assert (answer["statusCode"], told in answer["body"]) == (status, True), answer["body"]


def test_whoever_looks_at_it_with_a_browser_sees_that_it_is_there(handler: aws.LambdaHandler) -> None:
    answer = handler(event_of("url", "GET", "/favicon.ico", {}, b""), None)
    assert (answer["statusCode"], json.loads(answer["body"])) == (200, {"status": "ok"})
