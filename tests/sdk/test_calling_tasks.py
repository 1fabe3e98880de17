"""Runs are submitted, waited for and read the same way in async and sync code, by one implementation."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from hurlbat import (
    ApiError,
    BlockingCall,
    ConfigError,
    ConnectionFailed,
    Hurlbat,
    HurlbatError,
    PayloadError,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    Task,
)
from tests.sdk.exchange import an_app
from tests.sdk.fake_server import Caller, FakeServer, answer, problem, run_json

pytestmark = pytest.mark.anyio


class Thumb(BaseModel):
    url: str
    width: int = 1


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def hurlbat(server: FakeServer) -> Hurlbat:
    hurlbat = an_app()
    server.attach(hurlbat)
    return hurlbat


@pytest.fixture
def double(hurlbat: Hurlbat) -> Task[int, int]:
    @hurlbat.task
    async def double(number: int) -> int:
        return number * 2

    return double


@pytest.fixture(autouse=True)
def pauses(noted_pauses: list[float]) -> list[float]:
    return noted_pauses


# -- run and wait ------------------------------------------------------------------------------------------------------


async def test_run_submits_waits_and_returns_the_output(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", answer(200, run_json(output=42)))
    assert await call(double, "run", 21) == 42
    (request,) = server.requests
    assert server.bodies("POST /runs") == [{"task": "double", "input": 21}]
    assert request.headers["authorization"] == "Bearer token-token-token"
    assert request.headers["user-agent"].startswith("hurlbat-python/")
    assert float(request.url.params["wait"]) == 30


async def test_run_keeps_waiting_until_the_run_ends(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", answer(202, run_json("running")))
    server.on("GET /runs/r1", answer(200, run_json("running")), answer(200, run_json(output=2)))
    assert await call(double, "run", 1) == 2
    assert server.calls() == ["POST /runs", "GET /runs/r1", "GET /runs/r1"]


async def test_a_server_that_does_not_hold_the_request_is_not_hurried(
    server: FakeServer, double: Any, call: Caller, pauses: list[float]
) -> None:
    server.on("POST /runs", answer(202, run_json("running")))
    server.on("GET /runs/r1", *[answer(200, run_json("running"))] * 4, answer(200, run_json(output=2)))
    await call(double, "run", 1)
    assert len(pauses) == 4
    assert pauses == sorted(pauses)
    assert pauses[0] > 0


async def test_a_wait_that_is_over_raises_with_the_run_that_goes_on(
    server: FakeServer, double: Any, call: Caller
) -> None:
    server.on("POST /runs", answer(202, run_json("running")))
    server.on("GET /runs/r1", answer(200, run_json("running")))
    with pytest.raises(RunTimedOut, match=r"not ended within 0\.05 s; run r1 is running and goes on") as raised:
        await call(double, "run", 1, timeout=0.05)
    assert raised.value.run.id == "r1"
    assert isinstance(raised.value, TimeoutError)


async def test_a_failed_run_raises_with_its_error(server: FakeServer, double: Any, call: Caller) -> None:
    error = {"code": "task_error", "type": "ValueError", "message": "no such image", "details": None}
    server.on("POST /runs", answer(200, run_json("failed", error=error)))
    with pytest.raises(RunFailed, match="double failed: ValueError: no such image") as raised:
        await call(double, "run", 1)
    assert (raised.value.code, raised.value.type, raised.value.run.state) == ("task_error", "ValueError", "failed")


@pytest.mark.parametrize("state", ["cancelled", "skipped"])
async def test_a_run_that_did_not_happen_raises(server: FakeServer, double: Any, call: Caller, state: str) -> None:
    server.on("POST /runs", answer(200, run_json(state, reason="user")))
    with pytest.raises(RunCancelled, match=f"double was {state}: user"):
        await call(double, "run", 1)


async def test_a_run_that_made_room_for_another_says_so(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", answer(200, run_json("cancelled", reason="concurrency")))
    with pytest.raises(RunCancelled) as raised:
        await call(double, "run", 1)
    assert raised.value.reason == "concurrency"


async def test_an_output_comes_back_as_the_declared_type(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    @hurlbat.task
    async def thumb(input: Thumb) -> Thumb:
        return input

    server.on("POST /runs", answer(200, run_json(output={"url": "u", "width": 3})))
    assert await call(thumb, "run", Thumb(url="u")) == Thumb(url="u", width=3)
    assert server.bodies("POST /runs") == [{"task": "thumb", "input": {"url": "u", "width": 1}}]


async def test_an_output_of_another_type_is_a_clear_error(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", answer(200, run_json(output="many")))
    with pytest.raises(PayloadError, match="output: Input should be a valid integer"):
        await call(double, "run", 1)


# -- submit ------------------------------------------------------------------------------------------------------------


async def test_run_no_wait_returns_a_reference_that_can_wait_look_and_cancel(
    server: FakeServer, double: Any, call: Caller
) -> None:
    server.on("POST /runs", answer(201, run_json("queued")))
    server.on("GET /runs/r1", answer(200, run_json("running")), answer(200, run_json(output=4)))
    server.on("POST /runs/r1/cancel", answer(200, run_json("cancelled")))
    ref = await call(double, "run_no_wait", 2)
    assert (ref.id, repr(ref)) == ("r1", "RunRef('double', 'r1')")
    assert (await call(ref, "status")).state == "running"
    assert await call(ref, "result", timeout=5) == 4
    assert (await call(ref, "cancel", "enough")).state == "cancelled"
    assert server.bodies("POST /runs/r1/cancel") == [{"reason": "enough"}]
    assert "wait" not in server.requests[0].url.params


async def test_options_are_sent_as_the_api_has_them(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", answer(201, run_json("queued")))
    at = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
    options = {"metadata": {"user": "u1"}, "priority": 3, "delay": None, "run_at": at}
    keys = {"idempotency_key": "k", "idempotency_ttl": 60.0, "ttl": 5.5}
    await call(double, "run_no_wait", 1, **options, **keys)
    sent = {"metadata": {"user": "u1"}, "priority": 3, "run_at": "2026-11-21T12:00:00Z", **keys}
    assert server.bodies("POST /runs") == [{"task": "double", "input": 1} | sent]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"retries": 3}, TypeError, "unknown option 'retries'"),
        ({"run_at": datetime(2026, 1, 1)}, ConfigError, "time zone"),  # noqa: DTZ001 - that it has none is the point
        ({"metadata": {"x": float("nan")}}, PayloadError, "NaN"),
        ({"metadata": {"x": object()}}, PayloadError, "the run's options cannot be JSON"),
    ],
)
async def test_options_that_cannot_be_are_refused_before_anything_is_sent(
    server: FakeServer, double: Any, call: Caller, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await call(double, "run_no_wait", 1, **options)
    assert server.requests == []


@pytest.mark.parametrize("input", [object(), {"x": float("inf")}, "\ud800"])
async def test_an_input_that_is_no_json_is_refused_before_it_is_sent(
    server: FakeServer, hurlbat: Hurlbat, call: Caller, input: Any
) -> None:
    task = hurlbat.task(name="any")(lambda value: value)
    with pytest.raises(PayloadError, match="the input cannot be JSON"):
        await call(task, "run", input)
    assert server.requests == []


async def test_a_timeout_of_nothing_is_refused(server: FakeServer, double: Any, call: Caller) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        await call(double, "run", 1, timeout=0)


# -- many --------------------------------------------------------------------------------------------------------------


async def test_run_many_returns_outputs_in_the_inputs_order(server: FakeServer, double: Any, call: Caller) -> None:
    bulk = {"results": [run_json("queued", "a"), run_json("completed", "b", output=4), run_json("queued", "c")]}
    server.on("POST /runs/bulk", answer(201, bulk))
    server.on("GET /runs/a", answer(200, run_json(id="a", output=2)))
    server.on("GET /runs/c", answer(200, run_json(id="c", output=6)))
    assert await call(double, "run_many", [1, 2, 3], priority=3) == [2, 4, 6]
    assert server.bodies("POST /runs/bulk") == [
        {"runs": [{"task": "double", "input": number, "priority": 3} for number in (1, 2, 3)]}
    ]


async def test_run_many_raises_the_first_failure_or_returns_them_all(
    server: FakeServer, double: Any, call: Caller
) -> None:
    refused = {"type": "t", "title": "T", "status": 422, "code": "invalid", "detail": "no such task"}
    bulk = {"results": [run_json("completed", output=2), run_json("failed", error={}), refused]}
    server.on("POST /runs/bulk", answer(201, bulk))
    with pytest.raises(RunFailed):
        await call(double, "run_many", [1, 2, 3])
    outputs = await call(double, "run_many", [1, 2, 3], return_exceptions=True)
    assert outputs[0] == 2
    assert [type(output) for output in outputs[1:]] == [RunFailed, ApiError]


async def test_bulk_submits_are_cut_at_a_thousand_and_by_size(server: FakeServer, double: Any, call: Caller) -> None:
    async def sizes(inputs: list[Any]) -> list[int]:
        server.requests.clear()
        with contextlib.suppress(HurlbatError):
            await call(double, "run_many_no_wait", inputs)
        return [len(body["runs"]) for body in server.bodies("POST /runs/bulk")]

    server.on("POST /runs/bulk", answer(201, {"results": []}))
    assert await sizes([1] * 2500) == [1000, 1000, 500]
    assert await sizes(["x" * 400_000] * 3) == [1, 1, 1]
    assert await sizes([]) == []


async def test_run_many_no_wait_returns_references_and_gives_each_run_a_key_of_its_own(
    server: FakeServer, double: Any, call: Caller
) -> None:
    server.on("POST /runs/bulk", answer(201, {"results": [run_json("queued", "a"), run_json("queued", "b")]}))
    refs = await call(double, "run_many_no_wait", [1, 2], idempotency_key="batch")
    assert [ref.id for ref in refs] == ["a", "b"]
    (body,) = server.bodies("POST /runs/bulk")
    assert [run["idempotency_key"] for run in body["runs"]] == ["batch:0", "batch:1"]


# -- trouble on the way ------------------------------------------------------------------------------------------------

Trouble = httpx.Response | Exception
OVERLOADED = problem(503, "overloaded", retry_after="2")


@pytest.mark.parametrize("trouble", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), OVERLOADED])
async def test_a_submit_of_which_nothing_was_stored_is_repeated(
    server: FakeServer, double: Any, call: Caller, trouble: Trouble
) -> None:
    server.on("POST /runs", trouble, answer(201, run_json("queued")))
    assert (await call(double, "run_no_wait", 1)).id == "r1"
    assert server.calls() == ["POST /runs"] * 2


LOST = [httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("closed")]


@pytest.mark.parametrize("trouble", [*LOST, problem(503, "unavailable"), problem(502, "bad_gateway")])
@pytest.mark.parametrize("options", [{}, {"idempotency_key": "k"}, {"idempotency_key": "k", "idempotency_ttl": 60}])
async def test_a_submit_that_may_have_been_stored_is_repeated_under_its_key(
    server: FakeServer, double: Any, call: Caller, trouble: Trouble, options: dict[str, Any]
) -> None:
    server.on("POST /runs", trouble, answer(201, run_json("queued")))
    assert (await call(double, "run_no_wait", 1, **options)).id == "r1"
    first, again = server.raw_bodies("POST /runs")
    assert first == again
    assert first["idempotency_key"] == options.get("idempotency_key", first["idempotency_key"])


async def test_reading_is_repeated_whatever_breaks(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("GET /runs/r1", *LOST, problem(504, "gateway_timeout"), answer(200, run_json(output=1)))
    assert await call(double.ref("r1"), "result") == 1


async def test_retry_after_is_honoured(server: FakeServer, double: Any, call: Caller, pauses: list[float]) -> None:
    server.on("POST /runs", OVERLOADED, problem(503, "overloaded", retry_after="9999"), answer(201, run_json("queued")))
    await call(double, "run_no_wait", 1)
    assert pauses == [2, 30]


async def test_trying_ends(server: FakeServer, double: Any, call: Caller, pauses: list[float]) -> None:
    server.on("POST /runs", httpx.ConnectError("refused"))
    with pytest.raises(ConnectionFailed, match=r"http://server\.test was not reached: refused") as raised:
        await call(double, "run", 1)
    assert raised.value.sent is False
    assert len(server.requests) == 5
    assert sum(pauses) < 3


async def test_a_refusal_is_raised_with_its_code(server: FakeServer, double: Any, call: Caller) -> None:
    server.on("POST /runs", problem(409, "idempotency_conflict", "the key belongs to another input"))
    with pytest.raises(ApiError, match="the key belongs to another input") as raised:
        await call(double, "run", 1)
    assert (raised.value.status, raised.value.code) == (409, "idempotency_conflict")


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(404, text="<h1>nginx</h1>"),
        httpx.Response(302, headers={"location": "https://login.example"}),
        httpx.Response(200, text="<h1>welcome</h1>"),
        httpx.Response(200, json={"hello": "world"}),
    ],
)
async def test_an_answer_of_something_else_asks_whether_the_url_is_right(
    server: FakeServer, double: Any, call: Caller, reply: httpx.Response
) -> None:
    server.on("POST /runs", reply)
    with pytest.raises(ApiError, match="is HURLBAT_URL right") as raised:
        await call(double, "run", 1)
    assert raised.value.code == "not_hurlbat"


# -- loops and threads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attempt",
    [
        lambda task: task.run_sync(1),
        lambda task: task.run_no_wait_sync(1),
        lambda task: task.run_many_sync([1]),
        lambda task: task.ref("r1").status_sync(),
    ],
)
async def test_a_sync_call_in_a_running_loop_is_refused_and_never_hangs(
    server: FakeServer, double: Any, attempt: Callable[[Any], Any]
) -> None:
    with pytest.raises(BlockingCall, match="await"):
        attempt(double)
    assert server.requests == []


def test_one_app_object_serves_one_event_loop_after_another(server: FakeServer, double: Task[int, int]) -> None:
    server.on("POST /runs", answer(200, run_json(output=2)))

    async def once(call: Callable[[], Awaitable[int]]) -> int:
        try:
            return await call()
        finally:
            await double.callers.client.aclose()

    for _ in range(3):
        assert asyncio.run(once(lambda: double.run(1))) == 2


# -- the rest of the API -----------------------------------------------------------------------------------------------


async def test_the_clients_list_replay_and_submit_by_name(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    server.on("GET /runs", answer(200, {"items": [run_json(), run_json(id="r2")], "next_cursor": "c2"}))
    server.on("POST /runs/r1/replay", answer(200, run_json("queued")))
    server.on("POST /runs", answer(201, run_json("queued")))
    page = await call(client, "list_runs", task="double", state="failed", limit=2)
    assert ([run.id for run in page.items], page.next_cursor) == (["r1", "r2"], "c2")
    assert dict(server.requests[0].url.params) == {"task": "double", "state": "failed", "limit": "2"}
    assert (await call(client, "replay_run", "r1")).state == "queued"
    assert (await call(client, "submit", "elsewhere", {"a": 1}, priority=1)).id == "r1"
    assert server.bodies("POST /runs") == [{"task": "elsewhere", "input": {"a": 1}, "priority": 1}]


async def test_the_clients_look_after_workers(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    server.on("POST /workers", answer(201, {"name": "w", "state": "pending"}))
    server.on("GET /workers/w", answer(200, {"name": "w", "state": "ready"}))
    server.on("POST /workers/w/sync", answer(200, {"name": "w", "state": "ready"}))
    server.on("DELETE /workers/w", httpx.Response(204))
    assert (await call(client, "register_worker", "w", "https://w.example", slots=5))["state"] == "pending"
    assert server.bodies("POST /workers") == [{"name": "w", "url": "https://w.example", "slots": 5}]
    assert (await call(client, "get_worker", "w"))["state"] == "ready"
    assert (await call(client, "sync_worker", "w"))["state"] == "ready"
    assert await call(client, "delete_worker", "w") is None


async def test_the_clients_look_after_flow_control(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    server.on("PUT /rate-limits/cdn", answer(201, {"key": "cdn", "limit": 9}))
    server.on("DELETE /rate-limits/cdn", httpx.Response(204))
    server.on("POST /tasks/t/pause", answer(200, {"name": "t", "paused": True}))
    server.on("POST /tasks/t/resume", answer(200, {"name": "t", "paused": False}))
    server.on("GET /runs/r1/explain", answer(200, {"summary": "Task t is paused."}))
    assert (await call(client, "put_rate_limit", "cdn", 9, 1.5))["limit"] == 9
    assert server.bodies("PUT /rate-limits/cdn") == [{"limit": 9, "duration": 1.5}]
    assert await call(client, "delete_rate_limit", "cdn") is None
    assert (await call(client, "pause_task", "t"))["paused"]
    assert not (await call(client, "resume_task", "t"))["paused"]
    assert (await call(client, "explain_run", "r1"))["summary"] == "Task t is paused."


async def test_an_id_cannot_lead_to_another_path(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    with pytest.raises(ApiError):
        await call(client, "get_run", "../workers?x")
    assert server.requests[0].url.raw_path == b"/runs/..%2Fworkers%3Fx"
