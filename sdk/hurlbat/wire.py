"""The push protocol's messages, owned by this package so that the two ends cannot drift.

The dispatcher writes requests (`deliver`, `cancel`, `describe`, `probe`) and reads answer lines; a worker does the
reverse. All messages are JSON. Payloads (`input`, `output`, `metadata`) travel as raw JSON text and are never
re-serialised.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from hurlbat.jsontext import JsonTextError, Member, items, members

PROTOCOL_VERSION: Final = 1
HEADER_WORKER: Final = "hurlbat-worker"
"""The worker's mark: on every answer of a protocol worker. Its value is the digest of the worker's manifest."""
HEADER_KEY_IDS: Final = "hurlbat-key-ids"
"""Which keys have signed a request, for people who look for the wrong one; nothing is to trust it."""
HEADER_ASYNC: Final = "hurlbat-async"
"""`1` on a 202 answer of a plain worker: the result will be reported to `report_url`."""
HEADER_RETRY: Final = "hurlbat-retry"
"""`no` on an error answer: the attempt failed and must not be repeated."""
HEADER_RATE_LIMIT_KEY: Final = "hurlbat-rate-limit-key"
"""On a 429 or 503 with `Retry-After`: the rate limit that has to wait so long."""
STREAM_TYPE: Final = "application/x-ndjson"
JSON_TYPE: Final = "application/json"
PROBLEM_TYPE: Final = "application/problem+json"

NAME_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,128}$"
"""Names of tasks, workers and keys."""
MAX_KEY_BYTES: Final = 256
"""Of the key of a rate limit, in UTF-8."""
HEARTBEAT_SECONDS: Final = 5.0
LEASE_SECONDS: Final = 15.0
MAX_BATCH: Final = 64
"""Attempts in one delivery, at most."""
MAX_BODY_BYTES: Final = 1_048_576
MAX_LINE_CHARS: Final = 1_048_576 + 65_536
MAX_MESSAGE_CHARS: Final = 8_192
"""A log line's, progress line's or error's message; longer ones are cut."""
MAX_STACK_CHARS: Final = 16_384
MAX_REASON_CHARS: Final = 256
"""Of the reason with which a task ends its own run as cancelled; a longer one is cut."""


class MessageType(StrEnum):
    """What a request to a worker asks for."""

    DELIVER = "deliver"
    CANCEL = "cancel"
    DESCRIBE = "describe"
    PROBE = "probe"


class BadLine(ValueError):
    """A line of an answer that is not in the protocol; `run_id` where it could be read."""

    def __init__(self, message: str, run_id: str | None = None) -> None:
        super().__init__(message)
        self.run_id = run_id


class DeliveredRun(NamedTuple):
    """One attempt in a `deliver` message; the timeout is in seconds.

    `input`, `metadata`, `trigger` and `parents` are raw JSON.
    """

    run_id: str
    task: str
    attempt: int
    max_attempts: int
    input: str
    metadata: str
    execution_timeout: float
    lease_token: str
    report_url: str
    trigger: str | None = None
    """What started the run, if nobody submitted it."""
    parents: str | None = None
    """Of a workflow's node, an object with the output of each parent by its name."""


@dataclass(frozen=True, slots=True)
class StartedLine:
    """The handler of this attempt begins; the execution timeout counts from here."""

    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class CompletedLine:
    """The attempt succeeded; `output` is raw JSON."""

    run_id: str
    attempt: int
    output: str


@dataclass(frozen=True, slots=True)
class FailedLine:
    """The attempt failed. `retry_after` is in seconds and overrides the task's backoff.

    With `rate_limit_key` all runs that draw on that rate limit wait so long, if this one does.
    """

    run_id: str
    attempt: int
    type: str
    message: str
    stack: str | None = None
    retryable: bool = True
    retry_after: float | None = None
    details: str | None = None
    """Raw JSON with more about the error, e.g. the fields that a model refused."""
    rate_limit_key: str | None = None


@dataclass(frozen=True, slots=True)
class CancelledLine:
    """The task ended its run as cancelled, for this reason."""

    run_id: str
    attempt: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class HeartbeatLine:
    """The worker is alive; it names no run."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """Something the task wants to be remembered."""

    run_id: str
    attempt: int
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class ProgressLine:
    """How far the task has come: `value` from 0 to 1, or null where only the message tells."""

    run_id: str
    attempt: int
    value: float | None
    message: str | None


Result = CompletedLine | FailedLine | CancelledLine
"""How an attempt ended."""
Line = StartedLine | Result | HeartbeatLine | LogLine | ProgressLine


# -- requests: dispatcher → worker -----------------------------------------------------------------------------------


def deliver_body(
    worker: str, url: str, timestamp: str, runs: Iterable[DeliveredRun], *, heartbeat: float = HEARTBEAT_SECONDS
) -> bytes:
    """Return the exact bytes to sign and send for a delivery. `timestamp` is RFC 3339.

    `heartbeat` tells the worker after how many seconds of silence, at most, it should show a sign of life.
    """
    listed = ",".join(
        f'{{"run_id":"{run.run_id}","task":"{run.task}","attempt":{run.attempt},"max_attempts":{run.max_attempts},'
        f'"input":{run.input},"metadata":{run.metadata},"execution_timeout":{run.execution_timeout!r},'
        f'"lease_token":"{run.lease_token}","report_url":{json.dumps(run.report_url)}'
        + ("" if run.trigger is None else f',"trigger":{run.trigger}')
        + ("}" if run.parents is None else f',"parents":{run.parents}}}')
        for run in runs
    )
    return _request(MessageType.DELIVER, worker, url, timestamp, f'"heartbeat":{heartbeat!r},"runs":[{listed}]')


def cancel_body(worker: str, url: str, timestamp: str, runs: Iterable[tuple[str, int, str]]) -> bytes:
    """Return a `cancel` message for (run id, attempt, reason) triples."""
    listed = [{"run_id": run_id, "attempt": attempt, "reason": reason} for run_id, attempt, reason in runs]
    return _request(MessageType.CANCEL, worker, url, timestamp, f'"runs":{json.dumps(listed)}')


def describe_body(worker: str, url: str, timestamp: str) -> bytes:
    """Return a `describe` message; the answer is the worker's manifest."""
    return _request(MessageType.DESCRIBE, worker, url, timestamp, "")


def probe_body(worker: str, url: str, timestamp: str) -> bytes:
    """Return a `probe` message, which runs nothing."""
    return _request(MessageType.PROBE, worker, url, timestamp, "")


def _request(kind: MessageType, worker: str, url: str, timestamp: str, more: str) -> bytes:
    comma = "," if more else ""
    return (
        f'{{"type":"{kind}","timestamp":"{timestamp}",'
        f'"data":{{"worker":{json.dumps(worker)},"url":{json.dumps(url)}{comma}{more}}}}}'
    ).encode()


# -- answers: worker → dispatcher ------------------------------------------------------------------------------------


def write_line(line: Line) -> str:
    """Return the line as one JSON object without its newline."""
    match line:
        case StartedLine(run_id, attempt):
            return f'{{"type":"started","run_id":"{run_id}","attempt":{attempt}}}'
        case CompletedLine(run_id, attempt, output):
            return f'{{"type":"result","run_id":"{run_id}","attempt":{attempt},"state":"completed","output":{output}}}'
        case FailedLine():
            return _write_failed(line)
        case CancelledLine(run_id, attempt, reason):
            said: dict[str, Any] = {"type": "result", "run_id": run_id, "attempt": attempt, "state": "cancelled"}
            return json.dumps(said | {"reason": reason[:MAX_REASON_CHARS] if reason else None})
        case HeartbeatLine():
            return '{"type":"heartbeat"}'
        case LogLine(run_id, attempt, level, message):
            body: dict[str, Any] = {"type": "log", "run_id": run_id, "attempt": attempt, "level": level}
            return json.dumps(body | {"message": message[:MAX_MESSAGE_CHARS]})
        case ProgressLine(run_id, attempt, value, message):
            body = {"type": "progress", "run_id": run_id, "attempt": attempt, "value": value}
            return json.dumps(body | {"message": message[:MAX_MESSAGE_CHARS] if message else None})


def _write_failed(line: FailedLine) -> str:
    error = {"type": line.type, "message": line.message[:MAX_MESSAGE_CHARS]}
    if line.stack is not None:
        error["stack"] = line.stack[-MAX_STACK_CHARS:]
    text = json.dumps(error)
    if line.details is not None:
        text = f'{text[:-1]},"details":{line.details}}}'
    more = f',"retry_after":{float(line.retry_after)!r}' if line.retry_after is not None else ""
    if line.rate_limit_key is not None:
        more += f',"rate_limit_key":{json.dumps(line.rate_limit_key)}'
    return (
        f'{{"type":"result","run_id":"{line.run_id}","attempt":{line.attempt},"state":"failed",'
        f'"error":{text},"retryable":{json.dumps(line.retryable)}{more}}}'
    )


def read_line(text: str) -> Line | None:
    """Read one line of a streamed answer; None for a type that this version does not know. Raises `BadLine`."""
    if len(text) > MAX_LINE_CHARS:
        raise BadLine(f"a line of more than {MAX_LINE_CHARS} characters")
    try:
        found = members(text)
    except JsonTextError as error:
        raise BadLine(f"{error.message} at character {error.position}") from error
    kind = _value(found, "type")
    if kind == "heartbeat":
        return HeartbeatLine()
    if kind not in ("started", "result", "log", "progress"):
        if isinstance(kind, str):
            return None
        raise BadLine("a line without a type")
    run_id = _value(found, "run_id")
    attempt = _value(found, "attempt")
    if not isinstance(run_id, str) or type(attempt) is not int:
        raise BadLine(f"a {kind} line without run_id and attempt")
    if kind == "started":
        return StartedLine(run_id, attempt)
    if kind == "result":
        return read_result(found, run_id, attempt)
    message = _value(found, "message")
    if message is not None and not isinstance(message, str):
        raise BadLine(f"the message of a {kind} line is not a string", run_id)
    if kind == "log":
        level = _string(found, "level", "info")
        return LogLine(run_id, attempt, level, (message or "")[:MAX_MESSAGE_CHARS])
    return ProgressLine(run_id, attempt, _number(found, "value", run_id), message and message[:MAX_MESSAGE_CHARS])


def read_results(text: str) -> list[Result]:
    """Read a whole answer in JSON, `{"results": [result, …]}` or one result. Raises `BadLine`."""
    try:
        found = members(text)
        listed = items(found["results"].text) if "results" in found else [text]
        parsed = [members(item) for item in listed]
    except JsonTextError as error:
        raise BadLine(f"{error.message} at character {error.position}") from error
    results = []
    for result in parsed:
        run_id, attempt = _value(result, "run_id"), _value(result, "attempt")
        if not isinstance(run_id, str) or type(attempt) is not int:
            raise BadLine("a result without run_id and attempt")
        results.append(read_result(result, run_id, attempt))
    return results


def read_result(found: Mapping[str, Member], run_id: str, attempt: int) -> Result:
    """Read a result: `state`, then `output`, or `reason`, or `error`, `retryable`, `retry_after` and `rate_limit_key`.

    Raises `BadLine`.
    """
    state = _value(found, "state")
    if state == "completed":
        output = found.get("output")
        return CompletedLine(run_id, attempt, output.text if output else "null")
    if state == "cancelled":
        reason = _value(found, "reason")
        if not (reason is None or isinstance(reason, str)):
            raise BadLine("reason is not a string", run_id)
        return CancelledLine(run_id, attempt, (reason or "")[:MAX_REASON_CHARS] or None)
    if state != "failed":
        raise BadLine('the state of a result is none of "completed", "failed" and "cancelled"', run_id)
    retryable = _value(found, "retryable")
    if not (retryable is None or isinstance(retryable, bool)):
        raise BadLine("retryable is not a boolean", run_id)
    rate_limit_key = _value(found, "rate_limit_key")
    if not (rate_limit_key is None or is_rate_limit_key(rate_limit_key)):
        raise BadLine(f"rate_limit_key is not a string of 1 to {MAX_KEY_BYTES} bytes", run_id)
    error = found.get("error")
    if error and not (error.value is None or isinstance(error.value, dict | str)):
        raise BadLine("error is neither an object nor a string", run_id)
    try:
        parts = members(error.text) if error and isinstance(error.value, dict) else {}
    except JsonTextError as bad:
        raise BadLine(bad.message, run_id) from bad
    details = parts.get("details")
    return FailedLine(
        run_id,
        attempt,
        type=_string(parts, "type", "Error")[:128],
        message=_string(parts, "message", error.value if error and isinstance(error.value, str) else "")[
            :MAX_MESSAGE_CHARS
        ],
        stack=_string(parts, "stack", "")[-MAX_STACK_CHARS:] or None,
        retryable=retryable is not False,
        retry_after=_number(found, "retry_after", run_id),
        details=details.text if details and len(details.text) <= MAX_STACK_CHARS else None,
        rate_limit_key=rate_limit_key,
    )


def is_rate_limit_key(value: object) -> bool:
    """Tell whether a value can be the key of a rate limit: a text of 1 to `MAX_KEY_BYTES` bytes in UTF-8."""
    try:
        return isinstance(value, str) and 1 <= len(value.encode()) <= MAX_KEY_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON must not have
        return False


def _value(found: Mapping[str, Member], name: str) -> Any:
    member = found.get(name)
    return member.value if member else None


def _string(found: Mapping[str, Member], name: str, default: str) -> str:
    value = _value(found, name)
    return value if isinstance(value, str) else default


def _number(found: Mapping[str, Member], name: str, run_id: str) -> float | None:
    value = _value(found, name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
        raise BadLine(f"{name} is not a number", run_id)
    return float(value)
