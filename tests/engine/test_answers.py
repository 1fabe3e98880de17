"""Every row of the table of answers, through the whole engine: what becomes of the run, of its tries, of the worker."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Run, RunState, WorkerState
from tests.engine.far_side import Answer, Call, broken, lines, marked, said, streaming
from tests.engine.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nobody_rechecks", "nothing_is_sent_again")]

ONCE = {"name": "echo"}
TWICE = {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 3600, "jitter": False}}


@pytest.fixture
def nothing_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what was put back where it is for longer than a test lasts."""
    monkeypatch.setattr("hurlbat_dispatcher.domain.verdict.PUSHED_BACK_WAIT", 3600.0)
    monkeypatch.setattr("hurlbat_dispatcher.domain.verdict.PUSHED_BACK_MOST", 3600.0)
    monkeypatch.setattr("hurlbat_dispatcher.health._MORE_ROOM", 3600.0)


def always(make: Callable[[list[Call]], httpx.Response]) -> Answer:
    async def answer(calls: list[Call]) -> httpx.Response:
        return make(calls)

    return answer


def fails(error: Exception) -> Answer:
    async def answer(_: list[Call]) -> httpx.Response:
        raise error

    return answer


def plain(status: int, content: bytes = b"", **headers: str) -> Callable[[list[Call]], httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, headers=named, content=content)


def with_mark(status: int, content: bytes = b"", **headers: str) -> Callable[[list[Call]], httpx.Response]:
    return lambda _: marked(status, content, **headers)


@dataclass(frozen=True)
class Row:
    """An answer, and what is owed for it. `kind` names the timeline's row; None: the run ends well."""

    name: str
    answer: Answer
    kind: str | None
    code: str | None = None
    charged: bool = True
    final: bool = False
    plain: bool = False
    worker: WorkerState | None = None
    shrinks: bool = False
    output: str | None = None
    words: tuple[str, ...] = field(default=())


def both(name: str, answer: Answer, kind: str, **more: Any) -> list[Row]:
    return [Row(f"{name}, protocol", answer, kind, **more), Row(f"{name}, plain", answer, kind, plain=True, **more)]


NO_RETRY = json.dumps({"type": "about:blank", "retryable": False}).encode()
PROBLEM = {"content_type": "application/problem+json"}

ROWS = [
    Row(
        "a stream",
        always(lambda calls: lines(*(call.completed('{"b": 1,"a":2}') for call in calls))),
        None,
        output='{"b": 1,"a":2}',
    ),
    Row(
        "an answer in JSON",
        always(lambda calls: marked(200, said(calls[0].completed("7")), content_type="application/json")),
        None,
        output="7",
    ),
    Row("a plain 200 with JSON", always(plain(200, b'{"x": 1}')), None, plain=True, output='{"x": 1}'),
    Row("a plain 201 with text", always(plain(201, b"done")), None, plain=True, output='"done"'),
    Row("a plain 204", always(plain(204)), None, plain=True, output="null"),
    Row("a plain 202 that will not report", always(plain(202)), None, plain=True, output="null"),
    *both(
        "refused",
        fails(httpx.ConnectError("connection refused")),
        "not_sent",
        charged=False,
        worker=WorkerState.UNREACHABLE,
    ),
    *both(
        "connect timeout",
        fails(httpx.ConnectTimeout("slow")),
        "not_sent",
        charged=False,
        worker=WorkerState.UNREACHABLE,
    ),
    Row("429 with the mark", always(with_mark(429, retry_after="3600")), "pushed_back", charged=False, shrinks=True),
    Row("503 with the mark", always(with_mark(503)), "pushed_back", charged=False, shrinks=True),
    Row(
        "429 with Retry-After",
        always(plain(429, retry_after="3600")),
        "pushed_back",
        plain=True,
        charged=False,
        shrinks=True,
    ),
    Row(
        "503 with Retry-After",
        always(plain(503, retry_after="3600")),
        "pushed_back",
        plain=True,
        charged=False,
        shrinks=True,
    ),
    *both("502", always(plain(502)), "retry", code="http_error", shrinks=True),
    *both("504", always(plain(504)), "retry", code="http_error", shrinks=True),
    *both("503 without a mark", always(plain(503)), "retry", code="http_error", shrinks=True),
    *both("429 without a mark", always(plain(429)), "retry", code="http_error", shrinks=True),
    *both("401", always(plain(401)), "held", code="worker_unauthorized", charged=False, worker=WorkerState.REJECTED),
    *both("403", always(plain(403)), "held", code="worker_unauthorized", charged=False, worker=WorkerState.REJECTED),
    *both("410", always(plain(410)), "held", code="worker_gone", charged=False, worker=WorkerState.DISABLED),
    *both("404", always(plain(404, b"nothing here")), "retry", code="http_error", words=("404", "nothing here")),
    *both("500", always(plain(500)), "retry", code="http_error"),
    *both("reset after sending", fails(httpx.ReadError("reset")), "retry", code="connection_reset", shrinks=True),
    Row("timeout after sending, protocol", fails(httpx.ReadTimeout("slow")), "retry", "attempt_timeout", shrinks=True),
    Row(
        "timeout after sending, plain",
        fails(httpx.ReadTimeout("slow")),
        "retry",
        "execution_timeout",
        plain=True,
        shrinks=True,
    ),
    *both("not HTTP", fails(httpx.RemoteProtocolError("rubbish")), "retry", code="protocol_error", shrinks=True),
    Row(
        "a result that says no retry",
        always(lambda calls: lines(calls[0].failed(retryable=False))),
        "failed",
        "task_error",
        final=True,
    ),
    *both(
        "a problem that says no retry", always(plain(500, NO_RETRY, **PROBLEM)), "failed", code="http_error", final=True
    ),
    *both(
        "the header that says no retry", always(plain(422, hurlbat_retry="no")), "failed", code="http_error", final=True
    ),
    *both(
        "a redirect",
        always(plain(307, location="https://else.example.com/")),
        "retry",
        code="redirect_refused",
        words=("307", "https://else.example.com/"),
        shrinks=True,
    ),
    Row("200 without the mark", always(plain(200, b"{}")), "retry", "not_a_worker", shrinks=True),
    Row(
        "a task that raises",
        always(lambda calls: lines(calls[0].failed("boom", type="KeyError"))),
        "retry",
        "task_error",
        words=("boom",),
    ),
    Row(
        "an input that the task refuses",
        always(lambda calls: lines(calls[0].failed(type="invalid_input"))),
        "failed",
        "invalid_input",
        final=True,
    ),
    Row("lines that are no JSON", always(lambda _: streaming(broken(b"{nonsense\n"))), "retry", "bad_result"),
    Row(
        "a result for another attempt",
        always(lambda calls: lines(calls[0]._replace(attempt=9).completed())),
        "retry",
        "bad_result",
    ),
    Row(
        "an answer larger than the cap",
        always(plain(200, b"x" * 1_100_000)),
        "retry",
        "response_too_large",
        plain=True,
        shrinks=True,
    ),
    Row(
        "an encoding that was not offered",
        always(plain(200, b"", content_encoding="br")),
        "retry",
        "bad_encoding",
        plain=True,
        shrinks=True,
    ),
    Row(
        "a stream that never started it",
        always(lambda _: streaming(broken())),
        "not_started",
        charged=False,
        shrinks=True,
    ),
    Row(
        "a stream that broke before it started",
        always(lambda _: streaming(broken(error=httpx.ReadError("gone")))),
        "not_started",
        charged=False,
        shrinks=True,
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_an_answer_does_to_the_run_and_to_its_worker_what_the_table_says(local: World, row: Row) -> None:
    await _see(local, row, "w")


async def test_the_table_of_answers_is_the_same_on_postgresql(shared: World) -> None:
    await asyncio.gather(*(_see(shared, row, f"w{n}") for n, row in enumerate(ROWS)))


async def _see(world: World, row: Row, name: str) -> None:
    worker = await world.worker(name, TWICE | {"name": name}, plain=row.plain, answer=row.answer)
    run = await world.submit(name, "1")

    if row.kind is None or row.final:
        found = await world.ended(run)
    else:
        found = await world.put_back(run, row.kind)
        worker.away = None
    await world.turns()
    shown = await world.engine.get_worker(name)

    state = RunState.COMPLETED if row.kind is None else RunState.FAILED if row.final else RunState.QUEUED
    assert (found.state, found.output, found.tries, found.max_attempts) == (state, row.output, int(row.charged), 2)
    _see_its_words(found, row)
    assert shown.state is (row.worker or (WorkerState.UNVERIFIED if row.plain else WorkerState.READY))
    if row.worker is not WorkerState.UNREACHABLE:  # that one is probed again and again
        assert found.attempt == 1
        assert shown.in_flight == 0
        good = row.kind is None or row.code in ("task_error", "invalid_input")
        assert shown.window == (17 if good else 8 if row.shrinks else 16)


def _see_its_words(run: Run, row: Row) -> None:
    entry = next((entry for entry in run.timeline if entry.kind == row.kind), None)
    assert (entry is not None) == (row.kind is not None)
    error = json.loads(run.error) if run.error else {}
    if row.charged:
        assert error.get("code") == row.code
        for word in row.words:
            assert word in error["message"]
    elif entry is not None and row.code is not None:
        assert row.code in entry.detail["message"]
