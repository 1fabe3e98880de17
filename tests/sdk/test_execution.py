"""What a delivery makes of tasks: inputs, outputs, errors, time, cancellation, once per process."""

import asyncio
import contextvars
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from hurlbat import Context, Hurlbat, NonRetryable, RetryAfter, wire
from tests.sdk.exchange import Exchange, a_run, an_app, delivery, result_of

pytestmark = pytest.mark.anyio


class Resize(BaseModel):
    url: str
    width: int = Field(gt=0, default=100)


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    at: datetime
    price: Decimal


@dataclass
class Point:
    x: float
    y: float = 0.0


class Movie(TypedDict):
    title: str
    year: int


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


# -- inputs and outputs ------------------------------------------------------------------------------------------------


async def test_a_model_comes_in_and_goes_out(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def resize(input: Resize) -> Resize:
        return input.model_copy(update={"width": input.width * 2})

    assert (await result_of(hurlbat, a_run("resize", {"url": "u"})))["output"] == {"url": "u", "width": 200}


async def test_a_strict_model_reads_what_json_can_only_say_as_a_string(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def when(input: Strict) -> str:
        return f"{input.at.year} {input.price}"

    result = await result_of(hurlbat, a_run("when", {"at": "2026-01-02T03:04:05Z", "price": "1.10"}))
    assert result["output"] == "2026 1.10"


async def test_dataclasses_typed_dicts_lists_and_scalars_come_in_by_their_types(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def point(input: Point) -> Point:
        assert type(input) is Point
        return Point(input.x + 1)

    @hurlbat.task
    async def movie(movie: Movie) -> str:
        return f"{movie['title']} {movie['year']}"

    @hurlbat.task
    async def days(days: list[datetime]) -> list[datetime]:
        return sorted(days)

    @hurlbat.task
    async def anything(input):  # type: ignore[no-untyped-def]  # a task without annotations
        return {"got": input}

    assert (await result_of(hurlbat, a_run("point", {"x": 1})))["output"] == {"x": 2.0, "y": 0.0}
    assert (await result_of(hurlbat, a_run("movie", {"title": "Alien", "year": 1979})))["output"] == "Alien 1979"
    two = ["2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"]
    assert (await result_of(hurlbat, a_run("days", two)))["output"] == two[::-1]
    assert (await result_of(hurlbat, a_run("anything", [1, {"a": None}])))["output"] == {"got": [1, {"a": None}]}


async def test_a_task_may_take_nothing_or_only_a_context(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def nothing() -> None: ...

    @hurlbat.task
    def alone(ctx: Context) -> str:
        return ctx.run_id

    assert (await result_of(hurlbat, a_run("nothing", {"ignored": 1})))["output"] is None
    assert (await result_of(hurlbat, a_run("alone")))["output"] == "run-alone"


async def test_a_context_may_stand_anywhere_in_the_signature(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def first(ctx: Context, number: int) -> int:
        return number + ctx.attempt

    @hurlbat.task
    async def named(number: int, *, ctx: Context) -> int:
        return number + ctx.max_attempts

    assert (await result_of(hurlbat, a_run("first", 1)))["output"] == 2
    assert (await result_of(hurlbat, a_run("named", 1)))["output"] == 4


async def test_a_null_input_leaves_a_parameter_to_its_default(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def greet(name: str = "world") -> str:
        return f"hello {name}"

    assert (await result_of(hurlbat, a_run("greet")))["output"] == "hello world"
    assert (await result_of(hurlbat, a_run("greet", "you", attempt=2)))["output"] == "hello you"


async def test_an_input_that_the_model_refuses_names_the_fields_and_is_not_retried(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def resize(input: Resize) -> None: ...

    result = await result_of(hurlbat, a_run("resize", {"width": -1, "secret": "hunter2"}))
    assert (result["state"], result["retryable"], result["error"]["type"]) == ("failed", False, "invalid_input")
    assert result["error"]["message"] == "input.url: Field required; input.width: Input should be greater than 0"
    assert [problem["loc"] for problem in result["error"]["details"]] == [["url"], ["width"]]
    assert "hunter2" not in str(result)


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (object(), "Unable to serialize"),
        (float("nan"), "NaN"),
        ({"deep": float("-inf")}, "Infinity"),
        ("\ud800", "surrogates"),
        ("x" * 1_048_577, "1,048,579 bytes"),
        (b"\xff\xfe", "utf-8"),
    ],
)
async def test_an_output_that_is_no_json_is_a_clear_failure(hurlbat: Hurlbat, output: Any, said: str) -> None:
    @hurlbat.task
    async def make() -> Any:
        return output

    result = await result_of(hurlbat, a_run("make"))
    assert (result["state"], result["retryable"], result["error"]["type"]) == ("failed", False, "invalid_output")
    assert said in result["error"]["message"]


async def test_an_output_nested_beyond_the_limit_is_a_clear_failure(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def nest(depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value]
        return value

    assert (await result_of(hurlbat, a_run("nest", 64)))["state"] == "completed"
    assert "nested deeper" in (await result_of(hurlbat, a_run("nest", 65, run_id="deeper")))["error"]["message"]


# -- errors ------------------------------------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "type", "message", "retryable", "retry_after"),
    [
        (ValueError("no such image"), "ValueError", "no such image", True, None),
        (NonRetryable("gone"), "NonRetryable", "gone", False, None),
        (RetryAfter(90), "RetryAfter", "try again after 90 s", True, 90),
        (RetryAfter(0.5, "busy"), "RetryAfter", "busy", True, 0.5),
        (RetryAfter(30, rate_limit_key='c"dn'), "RetryAfter", "try again after 30 s", True, 30),
        (TimeoutError("theirs"), "TimeoutError", "theirs", True, None),
        (SystemExit(3), "SystemExit", "3", True, None),
        (Unprintable(), "Unprintable", "(the error's text cannot be shown)", True, None),
        (ValueError("\ud800"), "ValueError", "?", True, None),
        (asyncio.CancelledError("mine"), "CancelledError", "mine", True, None),
    ],
)
@pytest.mark.parametrize("sync", [False, True])
async def test_an_error_is_told_with_its_type_and_what_shall_follow(
    hurlbat: Hurlbat,
    error: BaseException,
    type: str,
    message: str,
    retryable: bool,
    retry_after: float | None,
    sync: bool,
) -> None:
    def in_thread() -> None:
        raise error

    async def in_loop() -> None:
        raise error

    hurlbat.task(name="fail")(in_thread if sync else in_loop)
    result = await result_of(hurlbat, a_run("fail"))
    told = (result["error"]["type"], result["error"]["message"], result["retryable"], result.get("retry_after"))
    assert told == (type, message, retryable, retry_after)
    assert result.get("rate_limit_key") == getattr(error, "rate_limit_key", None)


async def test_a_stack_begins_in_the_user_s_own_code(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def fail() -> None:
        raise ValueError("here")

    @hurlbat.task
    def fail_in_thread() -> None:
        raise ValueError("there")

    for name in ("fail", "fail_in_thread"):
        lines = (await result_of(hurlbat, a_run(name)))["error"]["stack"].splitlines()
        assert lines[0] == "Traceback (most recent call last):"
        assert f"in {name}" in lines[1]
        assert "test_execution.py" in lines[1]


async def test_a_stop_iteration_in_a_thread_ends_its_run(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def stop() -> None:
        raise StopIteration

    assert (await result_of(hurlbat, a_run("stop")))["state"] == "failed"


# -- time --------------------------------------------------------------------------------------------------------------


async def test_a_task_that_takes_too_long_is_stopped_and_says_so(hurlbat: Hurlbat) -> None:
    ended = asyncio.Event()

    @hurlbat.task
    async def slow() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    result = await result_of(hurlbat, a_run("slow", execution_timeout=0.05))
    assert (result["error"]["type"], result["retryable"]) == ("execution_timeout", True)
    assert ended.is_set()


async def test_a_sync_task_beyond_its_time_sees_the_flag_and_its_end_changes_nothing(hurlbat: Hurlbat) -> None:
    seen = threading.Event()

    @hurlbat.task
    def slow(ctx: Context) -> str:
        while not ctx.cancelled:
            threading.Event().wait(0.005)
        ctx.log("too late")
        seen.set()
        return "late"

    gate = asyncio.Event()

    @hurlbat.task
    async def neighbour() -> None:
        await gate.wait()

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("slow", execution_timeout=0.05), a_run("neighbour")))
    assert await asyncio.to_thread(seen.wait, 120)
    gate.set()
    await exchange.finish()
    assert [line["type"] for line in exchange.lines if line["run_id"] == "run-slow"] == ["started", "result"]
    assert exchange.results["run-slow"]["error"]["type"] == "execution_timeout"


async def test_the_deadline_is_the_start_plus_the_execution_timeout(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def left(ctx: Context) -> float:
        return (ctx.deadline - datetime.now(UTC)).total_seconds()

    assert 3540 < (await result_of(hurlbat, a_run("left", execution_timeout=3600)))["output"] <= 3600


# -- sync functions ----------------------------------------------------------------------------------------------------

TENANT = contextvars.ContextVar("TENANT", default="none")


async def test_a_sync_task_runs_in_a_thread_with_the_caller_s_context_variables(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def where() -> list[Any]:
        return [threading.current_thread() is threading.main_thread(), TENANT.get()]

    TENANT.set("acme")
    assert (await result_of(hurlbat, a_run("where")))["output"] == [False, "acme"]


async def test_sync_tasks_beyond_the_threads_wait_and_say_started_only_when_they_do() -> None:
    hurlbat, gate = an_app(threads=1), threading.Event()

    @hurlbat.task
    def hold() -> None:
        gate.wait(120)

    runs = [a_run("hold", run_id=f"run-{number}") for number in range(3)]
    exchange = Exchange(hurlbat.asgi(), delivery(*runs))
    lines = await exchange.until(1, "started")
    assert [line["run_id"] for line in lines] == ["run-0"]
    gate.set()
    await exchange.finish()
    assert list(exchange.results) == ["run-0", "run-1", "run-2"]


async def test_a_sync_function_that_returns_a_coroutine_is_awaited(hurlbat: Hurlbat) -> None:
    async def inner() -> str:
        return "awaited"

    hurlbat.task(name="wrapped")(lambda: inner())
    assert (await result_of(hurlbat, a_run("wrapped")))["output"] == "awaited"


# -- what a context tells ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
async def test_log_progress_and_heartbeat_are_lines_between_start_and_result(hurlbat: Hurlbat, sync: bool) -> None:
    def tell(ctx: Context) -> None:
        ctx.log("looking")
        ctx.log("odd", level="warning")
        ctx.log({"a": 1}, level=10)
        ctx.progress(0.5, "half")
        ctx.progress(message="nearly")
        ctx.heartbeat()

    async def tell_async(ctx: Context) -> None:
        tell(ctx)

    hurlbat.task(name="tell")(tell if sync else tell_async)
    answer = await Exchange(hurlbat.asgi(), delivery(a_run("tell"))).finish()
    mark = {"run_id": "run-tell", "attempt": 1}
    assert answer.lines[1:-1] == [
        {"type": "log", **mark, "level": "info", "message": "looking"},
        {"type": "log", **mark, "level": "warning", "message": "odd"},
        {"type": "log", **mark, "level": "debug", "message": "{'a': 1}"},
        {"type": "progress", **mark, "value": 0.5, "message": "half"},
        {"type": "progress", **mark, "value": None, "message": "nearly"},
        {"type": "heartbeat"},
    ]


async def test_a_context_shows_metadata_and_refuses_what_makes_no_sense(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def look(ctx: Context) -> Any:
        with pytest.raises(ValueError, match="from 0 to 1"):
            ctx.progress(1.5)
        with pytest.raises(ValueError, match="debug, info"):
            ctx.log("x", level="loud")  # type: ignore[arg-type]  # that it is refused is the point
        return [ctx.metadata["user"], ctx.task, ctx.cancelled, repr(ctx)]

    output = (await result_of(hurlbat, a_run("look", metadata='{"user":"u1"}')))["output"]
    assert output == ["u1", "look", False, "Context(run_id='run-look', task='look', attempt=1)"]


def test_the_wire_reads_what_the_worker_writes() -> None:
    line = wire.FailedLine("r", 1, "invalid_input", "m", details='[{"loc":["url"]}]', retryable=False)
    assert wire.read_line(wire.write_line(line)) == line
    paused = wire.FailedLine("r", 1, "E", "m", retry_after=30.0, rate_limit_key='c"d\u00f6')
    assert wire.read_line(wire.write_line(paused)) == paused


@pytest.mark.parametrize("key", ['""', "7", '["cdn"]', f'"{"k" * 257}"'])
def test_a_rate_limit_key_that_cannot_be_is_no_good_line(key: str) -> None:
    line = f'{{"type":"result","run_id":"r","attempt":1,"state":"failed","retry_after":1,"rate_limit_key":{key}}}'
    with pytest.raises(wire.BadLine, match="rate_limit_key is not a string of 1 to 256 bytes"):
        wire.read_line(line)


@pytest.mark.parametrize("error", ["7", "true", '["ValueError", "no luck"]'])
def test_an_error_that_is_neither_an_object_nor_a_string_is_no_good_line(error: str) -> None:
    line = f'{{"type":"result","run_id":"r","attempt":1,"state":"failed","error":{error}}}'
    with pytest.raises(wire.BadLine, match="error is neither an object nor a string"):
        wire.read_line(line)


async def test_a_task_that_fails_is_seen_in_the_apps_log(caplog: pytest.LogCaptureFixture) -> None:
    hurlbat = an_app()

    @hurlbat.task
    async def breaks() -> None:
        raise ValueError("no luck")

    await result_of(hurlbat, a_run("breaks"))
    [record] = [record for record in caplog.records if record.name == "hurlbat"]
    assert record.levelname == "WARNING"
    said = record.getMessage()
    assert "breaks failed" in said
    assert "ValueError: no luck" in said
    assert "Traceback" in said
