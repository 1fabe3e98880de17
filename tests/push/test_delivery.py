"""Whole answers: what each means for the run, for its charge and for the worker."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import respx
from standardwebhooks import Webhook

from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.domain.outcome import Cancelled, ErrorCode, Failed, Held, NotSent, PushedBack, Succeeded
from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.push import client as client_module
from hurlbat_dispatcher.push.heard import Delivery, Detached
from hurlbat_dispatcher.push.request import Target
from tests.push.delivering import (
    KEY,
    MARK,
    PLAIN,
    PROTOCOL,
    RUN_A,
    RUN_B,
    STREAM,
    URL,
    VIRTUAL_TIME,
    Pieces,
    deliver,
    make_client,
    run,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The far side is in memory: time is virtual."""
    return VIRTUAL_TIME


PROBLEM = {"content-type": "application/problem+json"}

_PROBLEM = {"content-type": "application/problem+json"}


async def _sent(target: Any) -> httpx.Request:
    router = respx.Router()
    route = router.post(URL).respond(200, headers=MARK, json={"results": []})
    client = make_client(router)
    await client.deliver(target, [run()], lambda heard: None)
    request: httpx.Request = route.calls.last.request
    return request


async def test_a_delivery_is_one_request_signed_as_a_stock_library_signs() -> None:
    request = await _sent(PROTOCOL)
    headers = dict(request.headers)
    signed_at = datetime.fromtimestamp(1_700_000_000, UTC)
    expected = Webhook(KEY).sign(headers["webhook-id"], signed_at, request.content.decode())
    assert headers["webhook-signature"] == expected
    message = json.loads(request.content)
    assert (message["type"], message["timestamp"]) == ("deliver", "2023-11-14T22:13:20.123Z")
    assert (message["data"]["worker"], message["data"]["url"]) == ("billing", URL)
    assert [(one["run_id"], one["attempt"], one["input"]) for one in message["data"]["runs"]] == [(RUN_A, 1, {"n": 1})]
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["authorization"] == "Bearer x"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("Hurlbat/")
    version, trace, span, flags = headers["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")


async def test_the_id_of_a_plain_delivery_is_the_runs_and_of_a_protocol_delivery_its_own() -> None:
    assert (await _sent(PLAIN)).headers["webhook-id"] == RUN_A
    assert (await _sent(PROTOCOL)).headers["webhook-id"] not in ("", RUN_A)


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'{"a": [1, 2.50]}', '{"a": [1, 2.50]}'),
        (b" 12 \n", "12"),
        (b"", "null"),
        (b"\n", "null"),
        (b"null", "null"),
        (b"done", '"done"'),
        (b'{"a": NaN}', '"{\\"a\\": NaN}"'),
        (b"a\0b", '"a\\u0000b"'),
        (b"\xff", '"\ufffd"'),
        ("schön".encode(), '"schön"'),
        (b"[" * 10_000, json.dumps("[" * 10_000)),
    ],
)
async def test_any_success_of_a_plain_worker_completes_the_run_with_its_body(body: bytes, output: str) -> None:
    result = await deliver(httpx.Response(200, content=body), target=PLAIN)
    assert result.ends == {RUN_A: Succeeded(output)}
    assert result.delivery == Delivery(Signal.OK)
    assert result.accepted == 1


@pytest.mark.parametrize(
    ("response", "target"),
    [
        (httpx.Response(202, headers=MARK), PROTOCOL),
        (httpx.Response(202, headers={"hurlbat-async": "1"}), PLAIN),
    ],
)
async def test_an_accepted_run_goes_on_on_its_own_lease(response: httpx.Response, target: Any) -> None:
    result = await deliver(response, target=target)
    assert result.ends == {RUN_A: Detached}
    assert result.delivery is not None
    assert result.delivery.signal is Signal.OK


@pytest.mark.parametrize(
    ("response", "target", "answer", "signal"),
    [
        (
            httpx.Response(200, text="<html>log in</html>"),
            PROTOCOL,
            Failed(
                ErrorCode.NOT_A_WORKER,
                f"the worker answered 200 without the hurlbat-worker header: something else answers at {URL}",
            ),
            Signal.TROUBLE,
        ),
        (
            httpx.Response(307, headers={"location": "/hurlbat/"}),
            PROTOCOL,
            Failed(ErrorCode.REDIRECT_REFUSED, "the worker answered 307; register https://x.example/hurlbat/ instead"),
            Signal.TROUBLE,
        ),
        (
            httpx.Response(401, text="clock skew"),
            PROTOCOL,
            Held(ErrorCode.WORKER_UNAUTHORIZED, "the worker answered 401: clock skew; signed with key fc757826"),
            Signal.UNAUTHORIZED,
        ),
        (httpx.Response(410), PLAIN, Held(ErrorCode.WORKER_GONE, "the worker answered 410"), Signal.GONE),
        (
            httpx.Response(503, headers=MARK | {"retry-after": "7"}),
            PROTOCOL,
            PushedBack("the worker answered 503", 7.0, "7"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers=[("retry-after", "1e9"), ("retry-after", "x")]),
            PLAIN,
            PushedBack("the worker answered 429", 3_600.0, "1e9, x"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers=MARK | {"retry-after": "7", "hurlbat-rate-limit-key": "cdn"}),
            PROTOCOL,
            PushedBack("the worker answered 429", 7.0, "7", "cdn"),
            Signal.OK,
        ),
        (
            httpx.Response(503, headers={"retry-after": "7"} | PROBLEM, json={"detail": "x", "rate_limit_key": "cdn"}),
            PLAIN,
            PushedBack("the worker answered 503: x", 7.0, "7", "cdn"),
            Signal.OK,
        ),
        (
            httpx.Response(429, headers=MARK | PROBLEM | {"retry-after": "7"}, json={"rate_limit_key": ["cdn"]}),
            PROTOCOL,
            PushedBack('the worker answered 429: {"rate_limit_key":["cdn"]}', 7.0, "7"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers=MARK | {"retry-after": "7", "hurlbat-rate-limit-key": "k" * 257}),
            PROTOCOL,
            PushedBack("the worker answered 429", 7.0, "7"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers=MARK | {"retry-after": "0", "hurlbat-rate-limit-key": "cdn"}),
            PROTOCOL,
            PushedBack("the worker answered 429", 0.0, "0"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers=MARK | {"hurlbat-rate-limit-key": "cdn"}),
            PROTOCOL,
            PushedBack("the worker answered 429"),
            Signal.PUSHED_BACK,
        ),
        (
            httpx.Response(429, headers={"retry-after": "7", "hurlbat-rate-limit-key": "cdn"}),
            PROTOCOL,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 429", retry_after=7.0, rate_limit_key="cdn"),
            Signal.OK,
        ),
        (
            httpx.Response(503, text="no healthy upstream"),
            PROTOCOL,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 503: no healthy upstream"),
            Signal.TROUBLE,
        ),
        (
            httpx.Response(502),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 502"),
            Signal.TROUBLE,
        ),
        (
            httpx.Response(500, text="Traceback\0 …"),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 500: Traceback\ufffd …"),
            Signal.OK,
        ),
        (
            httpx.Response(422, headers={"hurlbat-retry": "no"}),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 422", retryable=False),
            Signal.OK,
        ),
        (
            httpx.Response(
                400,
                headers={"content-type": "application/problem+json; charset=utf-8"},
                content=b'{"title":"Bad","retryable":false}',
            ),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, 'the worker answered 400: {"title":"Bad","retryable":false}', retryable=False),
            Signal.OK,
        ),
        (
            httpx.Response(400, json={"retryable": False}),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, 'the worker answered 400: {"retryable":false}'),
            Signal.OK,
        ),
        (
            httpx.Response(
                403,
                headers={"content-type": "application/problem+json"},
                content=b'{"code":"wrong_target","detail":"not for me"}',
            ),
            PROTOCOL,
            Held(ErrorCode.WRONG_TARGET, "the worker answered 403: not for me"),
            Signal.UNAUTHORIZED,
        ),
        (
            httpx.Response(500, headers={"content-encoding": "gzip"}, stream=Pieces(b"\x1f\x8b")),
            PLAIN,
            Failed(ErrorCode.HTTP_ERROR, "the worker answered 500"),
            Signal.OK,
        ),
        (
            httpx.Response(200, headers={"content-encoding": "gzip"}, stream=Pieces(b"\x1f\x8b")),
            PLAIN,
            Failed(
                ErrorCode.BAD_ENCODING,
                "the answer came with content-encoding: gzip, which was not offered; a middleware or a proxy in front "
                "of the worker compresses: exempt the worker's path",
            ),
            Signal.TROUBLE,
        ),
        (
            httpx.Response(200, stream=Pieces(b"x" * 1_048_577)),
            PLAIN,
            Failed(ErrorCode.RESPONSE_TOO_LARGE, "the answer is larger than 1,048,576 bytes"),
            Signal.TROUBLE,
        ),
        (
            httpx.ConnectError("connection refused"),
            PROTOCOL,
            NotSent(ErrorCode.CONNECT_REFUSED, "connection refused"),
            Signal.UNREACHABLE,
        ),
        (httpx.ConnectTimeout("late"), PLAIN, NotSent(ErrorCode.CONNECT_TIMEOUT, "late"), Signal.UNREACHABLE),
        (httpx.ProxyError("407"), PLAIN, NotSent(ErrorCode.PROXY_ERROR, "407"), Signal.LOCAL),
        (httpx.ReadError("reset"), PROTOCOL, Failed(ErrorCode.CONNECTION_RESET, "reset"), Signal.TROUBLE),
        (httpx.ReadTimeout("late"), PROTOCOL, Failed(ErrorCode.ATTEMPT_TIMEOUT, "late"), Signal.TROUBLE),
        (httpx.RemoteProtocolError("odd"), PLAIN, Failed(ErrorCode.PROTOCOL_ERROR, "odd"), Signal.TROUBLE),
    ],
)
async def test_an_answer_means_the_same_for_every_run_of_the_delivery(
    response: Any, target: Any, answer: object, signal: Signal
) -> None:
    runs = [run(RUN_A), run(RUN_B, 4)] if target is PROTOCOL else [run()]
    result = await deliver(response, runs, target)
    assert result.ends == {one.run_id: answer for one in runs}
    assert result.delivery is not None
    assert result.delivery.signal is signal
    assert (result.delivery.sentence is None) == (signal is Signal.OK)
    assert len(result.calls) == 1


async def test_the_manifest_and_the_wish_to_wait_are_handed_on() -> None:
    result = await deliver(httpx.Response(429, headers=MARK | {"retry-after": "-3"}))
    assert result.delivery == Delivery(Signal.PUSHED_BACK, "m1", "the worker answered 429", 0.0)


async def test_an_answer_in_json_ends_each_run_by_its_own_result() -> None:
    body = {
        "results": [
            {"run_id": RUN_B, "attempt": 4, "state": "failed", "error": {"type": "E", "message": "no"}},
            {"run_id": RUN_A, "attempt": 1, "state": "completed", "output": [1]},
        ]
    }
    result = await deliver(httpx.Response(200, headers=MARK, json=body), [run(RUN_A), run(RUN_B, 4)])
    assert result.ends == {RUN_A: Succeeded("[1]"), RUN_B: Failed(ErrorCode.TASK_ERROR, "no", type="E")}
    assert result.delivery == Delivery(Signal.OK, "m1")


@pytest.mark.parametrize("answer", ["json", "stream"])
async def test_a_task_that_ends_its_run_as_cancelled_gives_a_line_of_text_for_a_reason(answer: str) -> None:
    told = [
        {"type": "result", "run_id": RUN_A, "attempt": 1, "state": "cancelled", "reason": "no such\norder\0"},
        {"type": "result", "run_id": RUN_B, "attempt": 1, "state": "cancelled"},
    ]
    body = {"json": json.dumps({"results": told}), "stream": "\n".join(map(json.dumps, told))}[answer]
    headers = {"json": MARK | {"content-type": "application/json"}, "stream": STREAM}[answer]
    result = await deliver(httpx.Response(200, headers=headers, content=body.encode()), [run(RUN_A), run(RUN_B)])
    assert result.ends == {RUN_A: Cancelled("no such order"), RUN_B: Cancelled(None)}
    assert result.delivery == Delivery(Signal.OK, "m1")


async def test_a_single_result_needs_no_list() -> None:
    body = {"run_id": RUN_A, "attempt": 1, "state": "completed"}
    result = await deliver(httpx.Response(200, headers=MARK, json=body))
    assert result.ends == {RUN_A: Succeeded("null")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"results": []}',
        b"<html>",
        b'{"results": [{"run_id": NaN}]}',
        b"\xff\xfe",
        b'{"results":' + b"[" * 10_000,
        b'{"results": [{"run_id": "\\ud800"}]}',
        b'{"results": [{"run_id": "%s", "attempt": 2, "state": "completed"}]}' % RUN_A.encode(),
        b'{"results": [{"run_id": "someone-else", "attempt": 1, "state": "completed"}]}',
        b'{"results": [{"run_id": "%s", "attempt": 1, "state": "odd"}]}' % RUN_A.encode(),
        b'{"results": [%s, %s]}' % ((b'{"run_id": "%s", "attempt": 1, "state": "completed"}' % RUN_A.encode(),) * 2),
    ],
)
async def test_an_answer_in_json_that_cannot_be_read_is_a_bad_result_with_its_beginning_kept(body: bytes) -> None:
    result = await deliver(httpx.Response(200, headers=MARK, content=body))
    (answer,) = result.ends.values()
    assert isinstance(answer, Failed)
    assert (answer.code, answer.retryable) == (ErrorCode.BAD_RESULT, True)
    assert answer.raw == body.decode("utf-8", "replace")[:1_000]


async def test_a_run_that_a_json_answer_leaves_out_has_a_bad_result_alone() -> None:
    body = {"results": [{"run_id": RUN_A, "attempt": 1, "state": "completed", "output": 1}]}
    result = await deliver(httpx.Response(200, headers=MARK, json=body), [run(RUN_A), run(RUN_B)])
    missing = result.ends[RUN_B]
    assert result.ends[RUN_A] == Succeeded("1")
    assert isinstance(missing, Failed)
    assert missing.code == ErrorCode.BAD_RESULT


async def _forever() -> None:
    await asyncio.sleep(30)


async def _hang(request: httpx.Request) -> httpx.Response:
    await asyncio.sleep(30)
    raise AssertionError("nobody gave up")


async def test_a_plain_worker_that_does_not_answer_in_time_has_timed_out_executing() -> None:
    router = respx.Router()
    router.post(URL).mock(side_effect=_hang)
    result = await deliver(httpx.Response(200), [run(timeout=0.1)], PLAIN, make_client(router))
    assert result.ends == {RUN_A: Failed(ErrorCode.EXECUTION_TIMEOUT, "no answer within 0.1 s of sending")}
    assert (result.delivery, result.accepted) == (
        Delivery(Signal.TROUBLE, sentence="no answer within 0.1 s of sending"),
        0,
    )


async def test_a_protocol_worker_must_begin_its_answer_soon() -> None:
    router = respx.Router()
    router.post(URL).mock(side_effect=_hang)
    result = await deliver(httpx.Response(200), client=make_client(router, head_timeout=0.1))
    assert result.ends == {RUN_A: Failed(ErrorCode.ATTEMPT_TIMEOUT, "no answer within 0.1 s of sending")}


async def test_a_body_that_dribbles_past_the_deadline_is_an_attempt_that_timed_out() -> None:
    async def pause() -> None:
        await asyncio.sleep(0.2)

    body = Pieces(b"x", pause, b"x", pause, b"x", pause, b"x")
    result = await deliver(httpx.Response(200, stream=body), [run(timeout=0.5)], PLAIN)
    (answer,) = result.ends.values()
    assert isinstance(answer, Failed)
    assert answer.code == ErrorCode.ATTEMPT_TIMEOUT
    assert body.closed


async def test_an_answer_in_one_piece_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.1)
    headers = MARK | {"content-type": "application/json"}
    result = await deliver(httpx.Response(200, headers=headers, stream=Pieces(b"{", _forever)), [run(timeout=0.1)])
    assert result.ends == {RUN_A: Failed(ErrorCode.ATTEMPT_TIMEOUT, "the answer was not complete 0.2 s after sending")}


def _cancelled(attempt: int, status: str) -> dict[str, object]:
    return {"runs": [{"run_id": RUN_A, "attempt": attempt, "status": status}]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            httpx.Response(200, headers=MARK, json=_cancelled(1, "stopped")),
            "stopped",
        ),
        (
            httpx.Response(200, headers=MARK, json=_cancelled(1, "unknown")),
            "unknown",
        ),
        (
            httpx.Response(200, headers=MARK, json=_cancelled(2, "stopped")),
            "unknown",
        ),
        (httpx.Response(200, json=_cancelled(1, "stopped")), "unknown"),
        (httpx.Response(200, headers=MARK, json={"runs": [None, 1, {}, {"run_id": []}]}), "unknown"),
        (httpx.Response(200, headers=MARK, content=b"[" * 10_000), "unknown"),
        (httpx.Response(500), "unknown"),
        (httpx.ConnectError("refused"), "unknown"),
    ],
)
async def test_a_cancellation_is_confirmed_or_unknown(answer: Any, expected: str) -> None:
    router = respx.Router()
    route = router.post(URL)
    route.mock(side_effect=answer) if isinstance(answer, Exception) else route.mock(return_value=answer)
    found = await make_client(router).cancel(PROTOCOL, [(RUN_A, 1, "cancelled by ops")])
    assert found == {(RUN_A, 1): expected}
    message = json.loads(route.calls.last.request.content)
    assert message["type"] == "cancel"
    assert message["data"]["runs"] == [{"run_id": RUN_A, "attempt": 1, "reason": "cancelled by ops"}]


async def test_a_plain_worker_is_not_told_of_a_cancellation() -> None:
    router = respx.Router()
    route = router.post(URL)
    assert await make_client(router).cancel(PLAIN, [(RUN_A, 1, "x")]) == {(RUN_A, 1): "unknown"}
    assert route.call_count == 0


@pytest.mark.parametrize(("streams", "seconds"), [(True, 15.0), (False, 60.0)])
def test_a_worker_that_answers_in_one_piece_may_take_the_time_of_its_tasks_for_the_head(
    streams: bool, seconds: float
) -> None:
    target = Target("w", URL, Mode.PROTOCOL, (KEY,), streams=streams)

    limits = make_client(respx.Router())._limits(target, [run(timeout=5.0), run(timeout=30.0)])

    assert (limits.head, limits.total) == (seconds, 60.0)


async def test_an_error_that_repeats_the_worker_s_own_headers_is_kept_without_them() -> None:
    target = Target("w", URL, Mode.PLAIN, (KEY,), {"authorization": "Bearer a-gateway-s-password"})
    said = {"detail": "no to Bearer a-gateway-s-password", "retryable": False}

    plain = await deliver(httpx.Response(500, text="you sent Bearer a-gateway-s-password"), target=target)
    problem = await deliver(httpx.Response(500, json=said, headers=PROBLEM), target=target)

    [first], [second] = plain.ends.values(), problem.ends.values()
    assert first == Failed(ErrorCode.HTTP_ERROR, "the worker answered 500: you sent …")
    assert isinstance(second, Failed)
    assert ("password" in second.message, second.retryable) == (False, False)
