"""Calls about runs: submit, wait, list, move, cancel and replay them, one by one and in bulk."""

import json
from collections.abc import Sequence
from datetime import datetime
from math import inf
from typing import Any

from hurlbat import outside
from hurlbat.errors import ApiError, ConfigError, ConnectionFailed, HurlbatError, RunTimedOut
from hurlbat.jsontext import members
from hurlbat.payloads import encode
from hurlbat.runs import ReplayFrom, Run, RunFilter, RunOptions, RunQuery, run_from
from hurlbat.sending import (
    AWAY,
    REQUEST_SECONDS,
    TOO_MANY,
    Call,
    Page,
    Pause,
    Reply,
    Request,
    Together,
    api_error,
    aware,
    backoff,
    in_bulk,
    list_page,
    new_key,
    not_hurlbat,
    object_in,
    path_of,
    query,
    send,
    values_of,
)

WAIT_SECONDS = 30.0
"""How long one request waits for a run to end; proxies like to cut what is silent for a minute."""
KEY_SECONDS = 120.0
"""How long a key holds that a submit was given here, so that it can be repeated."""
KEY_MARGIN = 20.0
"""So long before a key's time is over a submit is repeated no more: it might come when the key has gone."""
FIRST_PAUSE = 0.1
LOST_SECONDS = 60.0
"""How long whoever waits without a timeout bears with a server that cannot be reached: a restart takes less."""
LOST_PAUSE = 3.0
"""The longest pause between tries to reach it."""
UNHELD_PAUSE = 2.0
"""The longest pause between requests that the server does not hold until the run ends."""


def submit(task: str, input: str, options: RunOptions) -> Call[Run]:
    """Submit a run; `input` is raw JSON."""
    return _run((yield from send(Request("POST", "/runs", _submission(task, input, options), within=_held(options)))))


def run(task: str, input: str, options: RunOptions, timeout: float | None, waiter: str | None = None) -> Call[Run]:
    """Submit a run and wait until it ended; `waiter` is the run that does, if one does.

    Raises `RunTimedOut` after `timeout` seconds; the run goes on.
    """
    until = _until(timeout)
    seconds = _wait_seconds(until)
    body = _submission(task, input, options, _is_awaited(options, waiter))
    path = f"/runs?wait={seconds:.3f}"
    request = Request("POST", path, body, within=_held(options), timeout=seconds + REQUEST_SECONDS)
    found = _run((yield from send(request)))
    if found.finished:
        return found
    return (yield from _wait(found, until, timeout, waiter))


def submit_many(
    task: str, inputs: Sequence[str], options: RunOptions, awaited: bool | None = None
) -> Call[list[Run | ApiError]]:
    """Submit runs in bulk; return each one's run or refusal, in order. A key becomes `key:0`, `key:1`, and so on."""
    bodies = [_submission(task, text, _numbered(options, number), awaited) for number, text in enumerate(inputs)]
    return [_outcome(text) for text in (yield from in_bulk("/runs/bulk", "runs", bodies, _held(options)))]


def run_many(
    task: str, inputs: Sequence[str], options: RunOptions, timeout: float | None, waiter: str | None = None
) -> Call[list[Run | HurlbatError]]:
    """Submit runs in bulk and wait until all ended; return each one's run or what went wrong, in order."""
    until, awaited = _until(timeout), _is_awaited(options, waiter)
    outcomes: list[Run | HurlbatError] = list((yield from submit_many(task, inputs, options, awaited)))
    waiting = {at: found for at, found in enumerate(outcomes) if isinstance(found, Run) and not found.finished}
    ended: list[Run | HurlbatError] = yield Together(
        [_wait(found, until, timeout, waiter) for found in waiting.values()]
    )
    for at, outcome in zip(waiting, ended, strict=True):
        outcomes[at] = outcome
    return outcomes


def wait_for(run_id: str, timeout: float | None, waiter: str | None = None) -> Call[Run]:
    """Wait until a run ended; `waiter` is the run that does, if one does.

    Raises `RunTimedOut` after `timeout` seconds; the run goes on.
    """
    return (yield from _wait(Run(run_id, task="run", state="queued"), _until(timeout), timeout, waiter))


def get_run(run_id: str) -> Call[Run]:
    """Return a run with its timeline."""
    return _run((yield from send(Request("GET", path_of("runs", run_id)))))


def list_runs(query: RunQuery) -> Call[Page[Run]]:
    """Return a page of runs, newest first."""
    asked = {**query, "delayed": query.get("delayed") or None}
    return (yield from list_page("/runs", asked, run_from))


def move_run(run_id: str, at: datetime | None, delay: float | None, priority: int | None) -> Call[Run]:
    """Let a run that waits for its time start at another, or so many seconds from now, or with another priority."""
    if at is None and delay is None and priority is None:
        raise ConfigError("give either at, a datetime with a zone, or delay, in seconds, or priority alone")
    run_at = None if at is None and delay is None else moment(at, delay)
    said = {"run_at": run_at, "delay": delay, "priority": priority}
    body = encode({name: value for name, value in said.items() if value is not None}, what="run's time")
    return _run((yield from send(Request("PATCH", path_of("runs", run_id), body))))


def cancel_run(run_id: str, reason: str | None) -> Call[Run]:
    """Cancel a run; one that has ended stays as it is."""
    body = json.dumps({"reason": reason}) if reason is not None else None
    return _run((yield from send(Request("POST", path_of("runs", run_id, "cancel"), body))))


def replay_run(run_id: str, from_: ReplayFrom | None) -> Call[Run]:
    """Queue a run that has ended once more; of a workflow's what failed, all of it, or some nodes and those after."""
    named = from_ if from_ is None or isinstance(from_, str) else list(from_)
    body = None if named is None else encode({"from": named}, what="replay")
    return _run((yield from send(Request("POST", path_of("runs", run_id, "replay"), body, repeatable=False))))


def change_runs(change: str, which: RunFilter, dry_run: bool, reason: str | None) -> Call[dict[str, Any]]:
    """Cancel or replay all runs that a filter chooses, or count them. A replay is not repeated where it was sent."""
    chosen = {name: value for name, value in which.items() if value is not None}
    said = {"filter": chosen, "dry_run": dry_run or None, "reason": reason}
    body = encode({name: value for name, value in said.items() if value is not None}, what="filter")
    repeatable = dry_run or change == "cancel"
    reply = yield from send(Request("POST", path_of("runs", change), body, repeatable))
    return values_of(object_in(reply, "an operation"))


def list_operations(cursor: str | None, limit: int | None) -> Call[Page[dict[str, Any]]]:
    """Return a page of operations on many runs, newest first."""
    asked = {"cursor": cursor, "limit": limit}
    return (yield from list_page("/operations", asked, values_of))


def moment(at: datetime | None, delay: float | None) -> datetime | None:
    """Return the time that is meant by exactly one of both, if it is a time. Raises `ConfigError`."""
    if (at is None) == (delay is None):
        raise ConfigError("give either at, a datetime with a zone, or delay, in seconds")
    return None if at is None else aware(at, "at")


def _numbered(options: RunOptions, number: int) -> RunOptions:
    """Return the options of one of many, with a key of its own."""
    numbered: RunOptions = {**options}
    key, child_key = options.get("idempotency_key"), options.get("child_key")
    if key is not None:
        numbered["idempotency_key"] = f"{key}:{number}"
    if child_key is not None:
        numbered["child_key"] = f"{child_key}:{number}"
    return numbered


def _is_awaited(options: RunOptions, waiter: str | None) -> bool | None:
    """Return whether a run's parent waits for it; None where it has none."""
    parent = options.get("parent")
    return None if parent is None else parent == waiter


def _submission(task: str, input: str, options: RunOptions, awaited: bool | None = None) -> str:
    unknown = options.keys() - RunOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(RunOptions.__annotations__)}")
    run_at = options.get("run_at")
    if isinstance(run_at, datetime):
        aware(run_at, "run_at")
    said = {name: value for name, value in {**options, "awaited": awaited}.items() if value is not None}
    if "idempotency_key" not in said:
        if "idempotency_ttl" in said:
            raise ConfigError("idempotency_ttl says how long an idempotency_key holds; give the key, too")
        if "child_key" not in said:
            said |= {"idempotency_key": new_key(), "idempotency_ttl": KEY_SECONDS}
        elif "parent" not in said:
            raise ConfigError("child_key names a child of a run: submit it inside a task, or give the parent, too")
    elif "child_key" in said:
        raise ConfigError("child_key and idempotency_key exclude each other; give one of them")
    more = encode(said, what="run's options")
    return f'{{"task":{json.dumps(task)},"input":{input},{more[1:]}'


def _held(options: RunOptions) -> float:
    """Return for how many seconds a repeat surely finds the key of a submit."""
    if options.get("child_key") is not None:
        return inf
    if options.get("idempotency_key") is None:
        return KEY_SECONDS - KEY_MARGIN
    held = options.get("idempotency_ttl")
    return inf if held is None else held - min(held / 2, KEY_MARGIN)


def _wait(found: Run, until: float, timeout: float | None, waiter: str | None) -> Call[Run]:
    pause = FIRST_PAUSE
    lost = 0
    lost_at: float | None = None
    while True:
        asked_at = outside.monotonic()
        if asked_at >= until:
            raise RunTimedOut(found, timeout or 0.0)
        seconds = _wait_seconds(until)
        path = path_of("runs", found.id) + query({"wait": f"{seconds:.3f}", "awaited_by": waiter})
        try:
            reply = yield from send(Request("GET", path, timeout=seconds + REQUEST_SECONDS), most=1)
        except (ConnectionFailed, ApiError) as error:
            now = outside.monotonic()
            lost_at = now if lost_at is None else lost_at
            if not _is_away(error) or (timeout is None and now - lost_at >= LOST_SECONDS):
                raise
            lost += 1
            yield Pause(max(0.0, min(backoff(lost, FIRST_PAUSE, LOST_PAUSE), until - now)))
            continue
        lost, lost_at = 0, None
        found = _run(reply)
        if found.finished:
            return found
        if outside.monotonic() - asked_at < min(seconds, pause):  # the server did not hold the request: do not hurry it
            yield Pause(max(0.0, min(pause, until - outside.monotonic())))
            pause = min(pause * 1.5, UNHELD_PAUSE)


def _is_away(error: ConnectionFailed | ApiError) -> bool:
    return isinstance(error, ConnectionFailed) or error.status in (*AWAY, TOO_MANY)


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
        return run_from(object_in(reply, "a run"))
    except TypeError as error:
        raise not_hurlbat(reply.status, f"the answer is not a run ({error})") from error


def _outcome(text: str) -> Run | ApiError:
    found = members(text)
    if "id" in found and "state" in found:
        return run_from(found)
    return api_error(values_of(found), 422)
