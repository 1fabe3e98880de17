"""What the client asks of the server, without doing it: one implementation behind sync and async code.

A call is a generator. It yields what it needs (a `Request` to send, a `Pause` to wait, other calls to make `Together`),
is sent what came of it, and returns its outcome. `hurlbat.client` drives calls over httpx.
"""

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from hurlbat import outside
from hurlbat.errors import ApiError, ConfigError, ConnectionFailed, HurlbatError, RunTimedOut
from hurlbat.jsontext import JsonTextError, items, members
from hurlbat.payloads import encode
from hurlbat.runs import Run, RunOptions, run_from

REQUEST_SECONDS = 30.0
WAIT_SECONDS = 30.0
"""How long one request waits for a run to end; proxies like to cut what is silent for a minute."""
BULK_RUNS = 1_000
BULK_CHARS = 786_432
MAX_TRIES = 5
AWAY = (502, 503, 504)
"""What proxies answer for a server that is not there, and the server while it starts or stops."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
LOST_SECONDS = 60.0
"""How long whoever waits without a timeout bears with a server that cannot be reached: a restart takes less."""
LOST_PAUSE = 3.0
"""The longest pause between tries to reach it."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to send. `repeatable` says that sending it twice does no harm. `timeout` is in seconds."""

    method: str
    path: str
    body: str | None = None
    repeatable: bool = True
    timeout: float = REQUEST_SECONDS


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    """So many seconds to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Together:
    """Calls that may be made at once; what is sent back is each one's outcome or `HurlbatError`, in order."""

    calls: "Sequence[Call[Any]]"


T = TypeVar("T")
Call = Generator[Request | Pause | Together, Any, T]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list, and where the next one begins, or None at the end."""

    items: tuple[Run, ...]
    next_cursor: str | None


# -- runs --------------------------------------------------------------------------------------------------------------


def submit(task: str, input: str, options: RunOptions) -> Call[Run]:
    """Submit a run; `input` is raw JSON."""
    return _run((yield from _send(_submit("/runs", _submission(task, input, options), options))))


def run(task: str, input: str, options: RunOptions, timeout: float | None) -> Call[Run]:
    """Submit a run and wait until it ended. Raises `RunTimedOut` after `timeout` seconds; the run goes on."""
    until = _until(timeout)
    seconds = _wait_seconds(until)
    body = _submission(task, input, options)
    found = _run((yield from _send(_submit(f"/runs?wait={seconds:.3f}", body, options, seconds))))
    if found.finished:
        return found
    return (yield from _wait(found, until, timeout))


def submit_many(task: str, inputs: Sequence[str], options: RunOptions) -> Call[list[Run | ApiError]]:
    """Submit runs in bulk; return each one's run or refusal, in order. A key becomes `key:0`, `key:1`, and so on."""
    key = options.get("idempotency_key")
    bodies = [
        _submission(task, text, options if key is None else {**options, "idempotency_key": f"{key}:{number}"})
        for number, text in enumerate(inputs)
    ]
    outcomes: list[Run | ApiError] = []
    for chunk in _chunks(bodies):
        reply = yield from _send(_submit("/runs/bulk", f'{{"runs":[{",".join(chunk)}]}}', options))
        outcomes.extend([_outcome(text) for text in items(members(reply.text)["results"].text)])
    return outcomes


def run_many(
    task: str, inputs: Sequence[str], options: RunOptions, timeout: float | None
) -> Call[list[Run | HurlbatError]]:
    """Submit runs in bulk and wait until all ended; return each one's run or what went wrong, in order."""
    until = _until(timeout)
    outcomes: list[Run | HurlbatError] = list((yield from submit_many(task, inputs, options)))
    waiting = {at: found for at, found in enumerate(outcomes) if isinstance(found, Run) and not found.finished}
    ended: list[Run | HurlbatError] = yield Together([_wait(found, until, timeout) for found in waiting.values()])
    for at, outcome in zip(waiting, ended, strict=True):
        outcomes[at] = outcome
    return outcomes


def wait_for(run_id: str, timeout: float | None) -> Call[Run]:
    """Wait until a run ended. Raises `RunTimedOut` after `timeout` seconds; the run goes on."""
    return (yield from _wait(Run(run_id, task="run", state="queued"), _until(timeout), timeout))


def get_run(run_id: str) -> Call[Run]:
    """Return a run with its timeline."""
    return _run((yield from _send(Request("GET", _path("runs", run_id)))))


def list_runs(task: str | None, state: str | None, cursor: str | None, limit: int | None) -> Call[Page]:
    """Return a page of runs, newest first."""
    asked = {"task": task, "state": state, "cursor": cursor, "limit": limit}
    query = urlencode({name: value for name, value in asked.items() if value is not None})
    reply = yield from _send(Request("GET", "/runs" + (f"?{query}" if query else "")))
    found = members(reply.text)
    return Page(tuple(run_from(members(text)) for text in items(found["items"].text)), found["next_cursor"].value)


def cancel_run(run_id: str, reason: str | None) -> Call[Run]:
    """Cancel a run; one that has ended stays as it is."""
    body = json.dumps({"reason": reason}) if reason is not None else None
    return _run((yield from _send(Request("POST", _path("runs", run_id, "cancel"), body))))


def replay_run(run_id: str) -> Call[Run]:
    """Queue a run that has ended once more."""
    return _run((yield from _send(Request("POST", _path("runs", run_id, "replay"), repeatable=False))))


def ask(method: str, *path: str, body: Mapping[str, Any] | None = None) -> Call[dict[str, Any]]:
    """Ask about what is no run, e.g. `ask("GET", "workers", name)`; the answer is what the API shows."""
    text = json.dumps(body) if body is not None else None
    reply = yield from _send(Request(method, _path(*path), text))
    found: dict[str, Any] = json.loads(reply.text) if reply.text else {}
    return found


def _submission(task: str, input: str, options: RunOptions) -> str:
    unknown = options.keys() - RunOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(RunOptions.__annotations__)}")
    run_at = options.get("run_at")
    if isinstance(run_at, datetime) and run_at.tzinfo is None:
        raise ConfigError("run_at has no time zone; use datetime.now(UTC) + … or another aware datetime")
    said = {name: value for name, value in options.items() if value is not None}
    more = encode(said, what="run's options")
    return f'{{"task":{json.dumps(task)},"input":{input}{"," + more[1:] if said else "}"}'


def _submit(path: str, body: str, options: RunOptions, wait: float = 0.0) -> Request:
    """Return the request of a submit; only an idempotency key makes it safe to repeat."""
    safe = options.get("idempotency_key") is not None
    return Request("POST", path, body, repeatable=safe, timeout=wait + REQUEST_SECONDS)


# -- sending -----------------------------------------------------------------------------------------------------------


def _send(request: Request, most: int = MAX_TRIES) -> Call[Reply]:
    """Send a request until it is answered, as long as repeating it is safe. Raises `ApiError`, `ConnectionFailed`."""
    pause = FIRST_PAUSE
    tries = 0
    while True:
        tries += 1
        wait = pause
        try:
            reply: Reply = yield request
        except ConnectionFailed as error:
            if tries >= most or (error.sent and not request.repeatable):
                raise
        else:
            if reply.status < 300:
                return reply
            refusal = _refusal(reply)
            if tries >= most or not _may_repeat(request, refusal):
                raise refusal
            wait = _retry_after(reply, pause)
        yield Pause(wait * outside.uniform(0.5, 1.0) if wait == pause else wait)
        pause *= 2


def _may_repeat(request: Request, refusal: ApiError) -> bool:
    """Return whether a refusal is worth another try: the server's own 'overloaded' says that nothing was stored."""
    if refusal.status == 503 and refusal.code == "overloaded":
        return True
    return refusal.status in AWAY and request.repeatable


def _retry_after(reply: Reply, default: float) -> float:
    asked = reply.headers.get("retry-after", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isascii() and asked.isdigit() else default


def _refusal(reply: Reply) -> ApiError:
    try:
        problem = json.loads(reply.text)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        where = reply.headers.get("location")
        said = (
            f"the server answered {reply.status}"
            + (f" to {where}" if where else "")
            + ", which is no answer of Hurlbat"
        )
        return ApiError(reply.status, "not_hurlbat", f"{said}; is HURLBAT_URL right?", {})
    return _api_error(problem, reply.status)


def _api_error(problem: Mapping[str, Any], status: int) -> ApiError:
    detail = str(problem.get("detail") or problem.get("title") or "refused")
    return ApiError(int(problem.get("status", status)), str(problem["code"]), detail, problem)


def _wait(found: Run, until: float, timeout: float | None) -> Call[Run]:
    pause = lost_pause = FIRST_PAUSE
    lost_at: float | None = None
    while True:
        asked_at = outside.monotonic()
        if asked_at >= until:
            raise RunTimedOut(found, timeout or 0.0)
        seconds = _wait_seconds(until)
        path = f"{_path('runs', found.id)}?wait={seconds:.3f}"
        try:
            reply = yield from _send(Request("GET", path, timeout=seconds + REQUEST_SECONDS), most=1)
        except (ConnectionFailed, ApiError) as error:
            now = outside.monotonic()
            lost_at = now if lost_at is None else lost_at
            if not _is_away(error) or (timeout is None and now - lost_at >= LOST_SECONDS):
                raise
            yield Pause(max(0.0, min(lost_pause * outside.uniform(0.5, 1.0), until - now)))
            lost_pause = min(lost_pause * 2, LOST_PAUSE)
            continue
        lost_pause, lost_at = FIRST_PAUSE, None
        found = _run(reply)
        if found.finished:
            return found
        if outside.monotonic() - asked_at < min(seconds, pause):  # the server did not hold the request: do not hurry it
            yield Pause(max(0.0, min(pause, until - outside.monotonic())))
            pause = min(pause * 1.5, 2.0)


def _is_away(error: ConnectionFailed | ApiError) -> bool:
    return isinstance(error, ConnectionFailed) or error.status in AWAY


def _until(timeout: float | None) -> float:
    if timeout is None:
        return float("inf")
    if timeout <= 0:
        raise ConfigError("timeout must be above 0; run_no_wait does not wait")
    return outside.monotonic() + timeout


def _wait_seconds(until: float) -> float:
    return min(max(until - outside.monotonic(), 0.001), WAIT_SECONDS)


def _run(reply: Reply) -> Run:
    try:
        return run_from(members(reply.text))
    except (JsonTextError, TypeError) as error:
        raise ApiError(
            reply.status, "not_hurlbat", f"the answer is not a run ({error}); is HURLBAT_URL right?", {}
        ) from error


def _outcome(text: str) -> Run | ApiError:
    found = members(text)
    if "id" in found and "state" in found:
        return run_from(found)
    return _api_error({name: member.value for name, member in found.items()}, 422)


def _chunks(bodies: Sequence[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    size = 0
    for body in bodies:
        if chunk and (len(chunk) >= BULK_RUNS or size + len(body) > BULK_CHARS):
            yield chunk
            chunk, size = [], 0
        chunk.append(body)
        size += len(body)
    if chunk:
        yield chunk


def _path(*parts: str) -> str:
    return "".join("/" + quote(part, safe="") for part in parts)
