"""Streamed answers, line by line: who ends how, whatever comes."""

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import respx
from hypothesis import given
from hypothesis import strategies as st

from hurlbat.wire import (
    MAX_LINE_CHARS,
    BadLine,
    CompletedLine,
    DeliveredRun,
    FailedLine,
    HeartbeatLine,
    Line,
    LogLine,
    ProgressLine,
    StartedLine,
    read_line,
    write_line,
)
from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, PushedBack, Succeeded, Unstarted
from hurlbat_dispatcher.push import client as client_module
from hurlbat_dispatcher.push.heard import Beat, Delivery, Detached, Ended, Logged, Progressed, Started
from hurlbat_dispatcher.push.lines import LineSplitter, read
from tests.push.delivering import (
    PROTOCOL,
    RUN_A,
    RUN_B,
    STREAM,
    URL,
    VIRTUAL_TIME,
    Pieces,
    Result,
    deliver,
    make_client,
    run,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """The far side is in memory: time is virtual."""
    return VIRTUAL_TIME


_BOTH = (run(RUN_A), run(RUN_B))


def _lines(*lines: Line | bytes) -> bytes:
    return b"".join((line if isinstance(line, bytes) else write_line(line).encode()) + b"\n" for line in lines)


async def _stream(*pieces: object, runs: Sequence[DeliveredRun] = _BOTH) -> Result:
    return await deliver(httpx.Response(200, headers=STREAM, stream=Pieces(*pieces)), runs)  # type: ignore[arg-type] # pieces of any kind


def _code(end: object) -> ErrorCode:
    assert isinstance(end, Failed), end
    return end.code


async def test_what_comes_in_one_piece_is_told_in_one_call() -> None:
    result = await _stream(
        _lines(StartedLine(RUN_A, 1), StartedLine(RUN_B, 1)),
        _lines(
            LogLine(RUN_A, 1, "info", "hello"),
            ProgressLine(RUN_B, 1, 0.5, None),
            CompletedLine(RUN_A, 1, '{"a": 1.0}'),
            HeartbeatLine(),
        ),
        _lines(FailedLine(RUN_B, 1, "ValueError", "no", stack="…", retry_after=3, details="[1]")),
    )
    failed = Failed(ErrorCode.TASK_ERROR, "no", "ValueError", "…", "[1]", retry_after=3.0)
    assert result.calls == [
        [Started(RUN_A, 1), Started(RUN_B, 1)],
        [
            Logged(RUN_A, 1, "info", "hello"),
            Progressed(RUN_B, 1, 0.5, None),
            Ended(RUN_A, 1, Succeeded('{"a": 1.0}')),
            Beat(),
        ],
        [Ended(RUN_B, 1, failed)],
    ]
    assert result.delivery == Delivery(Signal.OK, "m1")


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (
            FailedLine(RUN_A, 1, "invalid_input", "x"),
            Failed(ErrorCode.INVALID_INPUT, "x", "invalid_input", retryable=False),
        ),
        (FailedLine(RUN_A, 1, "execution_timeout", "x"), Failed(ErrorCode.EXECUTION_TIMEOUT, "x", "execution_timeout")),
        (FailedLine(RUN_A, 1, "connect_refused", "x"), Failed(ErrorCode.TASK_ERROR, "x", "connect_refused")),
        (FailedLine(RUN_A, 1, "E", "x", retryable=False), Failed(ErrorCode.TASK_ERROR, "x", "E", retryable=False)),
        (FailedLine(RUN_A, 1, "E", "x", retry_after=-5), Failed(ErrorCode.TASK_ERROR, "x", "E", retry_after=0.0)),
        (
            FailedLine(RUN_A, 1, "E", "x", retry_after=5, rate_limit_key="cdn"),
            Failed(ErrorCode.TASK_ERROR, "x", "E", retry_after=5.0, rate_limit_key="cdn"),
        ),
        (FailedLine(RUN_A, 1, "E", "x", rate_limit_key="cdn"), Failed(ErrorCode.TASK_ERROR, "x", "E")),
    ],
)
async def test_a_task_may_say_how_it_failed_but_not_in_the_dispatchers_words(line: FailedLine, answer: Failed) -> None:
    result = await _stream(_lines(line), runs=[run()])
    assert result.ends == {RUN_A: answer}


@pytest.mark.parametrize("type", ["unknown_task", "wrong_target"])
async def test_a_run_that_the_worker_does_not_serve_is_put_back_by_itself(type: str) -> None:
    result = await _stream(
        _lines(FailedLine(RUN_A, 1, type, "not here", retryable=False), CompletedLine(RUN_B, 1, "2"))
    )
    pushed_back = PushedBack(f"the worker answered {type}: not here")
    assert result.calls == [[Ended(RUN_A, 1, pushed_back), Ended(RUN_B, 1, Succeeded("2"))]]
    assert result.delivery == Delivery(Signal.OK, "m1")


async def test_a_run_that_started_is_charged_whatever_its_error_is_called() -> None:
    result = await _stream(_lines(StartedLine(RUN_A, 1), FailedLine(RUN_A, 1, "unknown_task", "x")), runs=[run()])
    assert result.ends == {RUN_A: Failed(ErrorCode.TASK_ERROR, "x", "unknown_task")}


_DEEP = b"[" * 10_000 + b"]" * 10_000
_GARBAGE = [
    b"not json",
    b'{"type": "result", "run_id": NaN}',
    b'{"type": "result"}',
    b"[]",
    b"\xff\xfe",
    b'{"type":' + b"[" * 10_000,
    b'{"type": "result", "x": "\\ud800"}',
    b'{"type": 1}',
    b'{"type": "started", "run_id": "someone-else", "attempt": 1}',
    b'{"type": "result", "run_id": "someone-else", "attempt": 1, "state": "completed"}',
]


@pytest.mark.parametrize("garbage", _GARBAGE)
async def test_a_line_that_cannot_be_laid_to_one_run_ends_all_that_have_no_answer(garbage: bytes) -> None:
    result = await _stream(_lines(CompletedLine(RUN_A, 1, "1")), _lines(garbage, CompletedLine(RUN_B, 1, "2")))
    ended = result.ends[RUN_B]
    assert result.ends[RUN_A] == Succeeded("1")
    assert isinstance(ended, Failed)
    assert (ended.code, ended.raw) == (ErrorCode.BAD_RESULT, garbage.decode("utf-8", "replace")[:1_000])


@pytest.mark.parametrize(
    "garbage",
    [
        b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":NaN}',
        b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":1e400}',
        b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":"\\udead"}',
        b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":'
        + b"[" * 10_000
        + b"]" * 10_000
        + b"}",
        b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":{"a":1}',
        b'{"type":"result","run_id":"%s","attempt":1,"state":"odd"}',
        b'{"type":"result","run_id":"%s","attempt":2,"state":"completed","output":1}',
        b'{"type":"started","run_id":"%s","attempt":2}',
        b'{"type":"progress","run_id":"%s","attempt":1,"value":"half"}',
    ],
)
async def test_a_bad_line_that_names_its_run_ends_that_run_alone(garbage: bytes) -> None:
    bad = garbage.replace(b"%s", RUN_A.encode())
    result = await _stream(_lines(bad, CompletedLine(RUN_B, 1, "2")))
    assert _code(result.ends[RUN_A]) == ErrorCode.BAD_RESULT
    assert result.ends[RUN_B] == Succeeded("2")


async def test_two_answers_for_one_run_in_one_piece_are_a_bad_result() -> None:
    result = await _stream(_lines(CompletedLine(RUN_A, 1, "1"), CompletedLine(RUN_A, 1, "2")), runs=[run()])
    assert _code(result.ends[RUN_A]) == ErrorCode.BAD_RESULT


async def test_an_answer_that_was_told_stands() -> None:
    first, second = CompletedLine(RUN_A, 1, "1"), CompletedLine(RUN_A, 1, "2")
    result = await _stream(_lines(first), _lines(second, CompletedLine(RUN_B, 1, "3")))
    assert result.ends == {RUN_A: Succeeded("1"), RUN_B: Succeeded("3")}


async def test_unknown_kinds_of_lines_blank_lines_and_foreign_logs_are_passed_over() -> None:
    result = await _stream(
        _lines(
            b'{"type": "chunk", "run_id": 1}',
            b"",
            b"\r",
            LogLine("someone-else", 1, "info", "x"),
            LogLine(RUN_A, 2, "info", "x"),
            ProgressLine("someone-else", 1, 1, None),
            write_line(CompletedLine(RUN_A, 1, "1")).encode() + b"\r",
        ),
        runs=[run()],
    )
    assert result.heard == [Ended(RUN_A, 1, Succeeded("1"))]


async def test_a_line_too_long_ends_its_run_and_leaves_its_neighbours() -> None:
    begin = b'{"type":"result","run_id":"%s","attempt":1,"state":"completed","output":"' % RUN_A.encode()
    huge = [b"x" * 100_000] * 15
    result = await _stream(begin, *huge, b'"}\n', _lines(CompletedLine(RUN_B, 1, "2")))
    assert _code(result.ends[RUN_A]) == ErrorCode.RESPONSE_TOO_LARGE
    assert result.ends[RUN_B] == Succeeded("2")


async def test_a_line_without_end_is_cut_at_its_limit() -> None:
    pieces = [b"x" * 1_000_000] * 3
    result = await _stream(_lines(StartedLine(RUN_A, 1)), *pieces)
    assert {_code(end) for end in result.ends.values()} == {ErrorCode.RESPONSE_TOO_LARGE}


async def test_a_stream_without_end_is_cut_at_the_cap() -> None:
    many_logs = _lines(*[LogLine(RUN_A, 1, "info", "x" * 8_000)] * 100)
    body = Pieces(_lines(StartedLine(RUN_A, 1)), *[many_logs] * 10)
    result = await deliver(httpx.Response(200, headers=STREAM, stream=body), _BOTH)
    assert {_code(end) for end in result.ends.values()} == {ErrorCode.RESPONSE_TOO_LARGE}
    assert body.closed


async def test_a_stream_that_breaks_leaves_started_runs_going_and_gives_the_others_back() -> None:
    result = await _stream(_lines(StartedLine(RUN_A, 1)), httpx.ReadError("reset"))
    assert result.ends == {RUN_A: Detached, RUN_B: Unstarted("reset")}
    assert result.delivery == Delivery(Signal.TROUBLE, "m1", "reset")


async def test_half_a_line_before_a_break_says_nothing() -> None:
    half = write_line(CompletedLine(RUN_A, 1, "1")).encode()
    result = await _stream(_lines(StartedLine(RUN_A, 1)), half, httpx.ReadError("reset"), runs=[run()])
    assert result.ends == {RUN_A: Detached}


async def test_a_whole_line_at_the_end_needs_no_newline() -> None:
    result = await _stream(write_line(CompletedLine(RUN_A, 1, "1")).encode(), runs=[run()])
    assert result.ends == {RUN_A: Succeeded("1")}


async def test_the_end_of_a_drain_detaches_what_had_started() -> None:
    result = await _stream(_lines(StartedLine(RUN_A, 1)))
    assert result.ends == {RUN_A: Detached, RUN_B: Unstarted("the worker ended its answer early")}


async def test_a_stream_that_is_let_go_in_good_order_is_no_trouble() -> None:
    result = await _stream(_lines(StartedLine(RUN_A, 1), StartedLine(RUN_B, 1)))
    assert result.ends == {RUN_A: Detached, RUN_B: Detached}
    assert result.delivery == Delivery(Signal.OK, "m1")


async def test_an_answer_that_says_nothing_at_all_is_trouble() -> None:
    result = await _stream()
    assert set(result.ends.values()) == {Unstarted("the worker ended its answer early")}
    assert result.delivery == Delivery(Signal.TROUBLE, "m1", "the worker ended its answer without a result")


async def _long() -> None:
    await asyncio.sleep(30)


async def test_a_silent_stream_is_cut_after_three_heartbeats() -> None:
    router = respx.Router()
    body = Pieces(_lines(StartedLine(RUN_A, 1)), _long)
    router.post(URL).respond(200, headers=STREAM, stream=body)
    result = await deliver(httpx.Response(200), _BOTH, PROTOCOL, make_client(router, heartbeat=0.2))
    assert result.ends == {RUN_A: Detached, RUN_B: Unstarted("the worker was silent for 0.6 s")}
    assert body.closed


async def test_heartbeats_keep_a_stream_open() -> None:
    async def pause() -> None:
        await asyncio.sleep(0.4)  # four of them are longer than the silence that a stream may keep

    router = respx.Router()
    beats = [piece for _ in range(4) for piece in (pause, _lines(HeartbeatLine()))]
    router.post(URL).respond(200, headers=STREAM, stream=Pieces(*beats, _lines(CompletedLine(RUN_A, 1, "1"))))
    result = await deliver(httpx.Response(200), [run()], PROTOCOL, make_client(router, heartbeat=0.5))
    assert result.ends == {RUN_A: Succeeded("1")}
    assert result.heard.count(Beat()) == 4


async def test_each_runs_timeout_counts_from_its_own_started_line_and_neighbours_go_on() -> None:
    passed = asyncio.Event()

    async def until_expired() -> None:
        async with asyncio.timeout(20):
            await passed.wait()

    router = respx.Router()
    body = Pieces(
        _lines(StartedLine(RUN_B, 1), StartedLine(RUN_A, 1)),
        until_expired,
        _lines(CompletedLine(RUN_A, 1, "1"), CompletedLine(RUN_B, 1, "2")),
    )
    router.post(URL).respond(200, headers=STREAM, stream=body)
    result = Result()

    def hear(heard: Sequence[object]) -> None:
        result.calls.append(list(heard))  # type: ignore[arg-type] # what a client tells
        if any(isinstance(one, Ended) for one in heard):
            passed.set()

    await make_client(router).deliver(PROTOCOL, [run(RUN_A, timeout=0.05), run(RUN_B)], hear)
    assert result.ends == {
        RUN_A: Failed(ErrorCode.EXECUTION_TIMEOUT, "still running 0.05 s after it started"),
        RUN_B: Succeeded("2"),
    }


async def test_a_run_that_waits_for_its_workers_turn_is_not_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GRACE_SECONDS", 0.1)

    async def past_the_delivery_s_total() -> None:
        await asyncio.sleep(0.8)

    result = await _stream(
        _lines(StartedLine(RUN_A, 1)),
        _lines(CompletedLine(RUN_A, 1, "1")),
        past_the_delivery_s_total,
        _lines(StartedLine(RUN_B, 1), CompletedLine(RUN_B, 1, "2")),
        runs=[run(RUN_A, timeout=0.5), run(RUN_B, timeout=0.5)],
    )
    assert result.ends == {RUN_A: Succeeded("1"), RUN_B: Succeeded("2")}


async def test_every_run_of_a_delivery_can_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AFTERMATH_SECONDS", 0.05)
    body = Pieces(_lines(StartedLine(RUN_A, 1), StartedLine(RUN_B, 1)), _long)
    runs = [run(RUN_A, timeout=0.02), run(RUN_B, timeout=0.1)]
    result = await deliver(httpx.Response(200, headers=STREAM, stream=body), runs)
    assert {_code(end) for end in result.ends.values()} == {ErrorCode.EXECUTION_TIMEOUT}


async def test_a_delivery_ends_when_its_last_run_has_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AFTERMATH_SECONDS", 0.05)
    body = Pieces(_lines(StartedLine(RUN_A, 1)), _long)
    async with asyncio.timeout(20):
        result = await deliver(httpx.Response(200, headers=STREAM, stream=body), [run(timeout=0.05)])
    assert _code(result.ends[RUN_A]) == ErrorCode.EXECUTION_TIMEOUT
    assert body.closed


async def test_a_stream_that_stays_open_after_its_last_result_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "AFTERMATH_SECONDS", 0.05)
    body = Pieces(_lines(CompletedLine(RUN_A, 1, "1")), _long)
    async with asyncio.timeout(20):
        result = await deliver(httpx.Response(200, headers=STREAM, stream=body), [run()])
    assert result.ends == {RUN_A: Succeeded("1")}
    assert result.delivery == Delivery(Signal.OK, "m1")


async def test_a_cancelled_delivery_closes_its_stream_and_says_nothing_more() -> None:
    heard: list[object] = []
    body = Pieces(_lines(StartedLine(RUN_A, 1)), _long)
    router = respx.Router()
    router.post(URL).respond(200, headers=STREAM, stream=body)
    began = asyncio.Event()

    def hear(told: Sequence[object]) -> None:
        heard.extend(told)
        began.set()

    task = asyncio.create_task(make_client(router).deliver(PROTOCOL, [run(timeout=0.3)], hear))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.4)  # past the run's own timeout
    assert heard == [Started(RUN_A, 1)]
    assert body.closed


@given(st.lists(st.binary(max_size=20), max_size=8), st.data())
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], data: st.DataObject) -> None:
    whole = b"\n".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    splitter = LineSplitter(limit=8)
    found = [line for piece in pieces for line in splitter.feed(piece)] + splitter.end()
    expected = [line[:9] for line in whole.split(b"\n")]
    assert [line for line in found if line] == [line for line in expected if line]


_ids = st.sampled_from([RUN_A, RUN_B, "other", "", RUN_A.upper()])
_attempts = st.sampled_from(["1", "0", "01", "-1", "1.0", "1234567890", "true", "null"])
_outputs = st.sampled_from(
    [
        *(
            "1",
            " 1 ",
            "",
            "NaN",
            "{}",
            '{"a":1}',
            '{"a":1},"x":2',
            "[" * 64 + "]" * 64,
            "[" * 70 + "]" * 70,
            "1}",
            "1,",
        ),
        *('"\\ud800"', "\u00a01", '"a\nb"', "1e400", '"\u2028"'),
    ]
)


@given(_ids, _attempts, _outputs, st.sampled_from(["", " ", "\r"]))
def test_the_shortcut_reads_what_the_long_way_reads(run_id: str, attempt: str, output: str, end: str) -> None:
    for text in (
        f'{{"type":"started","run_id":"{run_id}","attempt":{attempt}}}{end}',
        f'{{"type":"result","run_id":"{run_id}","attempt":{attempt},"state":"completed","output":{output}}}{end}',
    ):
        try:
            expected: object = read_line(text)
        except BadLine:
            expected = BadLine
        try:
            found: object = read(text)
        except BadLine:
            found = BadLine
        assert found == expected, text


def test_the_shortcut_keeps_the_limit_of_a_line() -> None:
    text = write_line(CompletedLine(RUN_A, 1, '"' + "x" * MAX_LINE_CHARS + '"'))
    with pytest.raises(BadLine):
        read(text)
