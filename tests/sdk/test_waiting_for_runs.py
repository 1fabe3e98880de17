"""Whoever waits for a run bears with a server that is away for a while. Time passes by the calls' own pauses."""

import itertools
import json
from collections.abc import Iterable

import pytest

from hurlbat import ApiError, ConnectionFailed, Run, RunTimedOut, calls
from hurlbat.runs import RunOptions
from hurlbat.sending import Call, Pause, Reply
from tests.sdk.fake_server import run_json


class Clock:
    """Time as calls see it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("hurlbat.calls.outside.monotonic", clock.monotonic)
    return clock


def test_a_wait_outlasts_the_restart_of_its_server(clock: Clock) -> None:
    gone = ConnectionFailed("refused", sent=False)
    restarting: list[Reply | ConnectionFailed] = [
        gone,
        ConnectionFailed("reset", sent=True),
        gone,
        Reply(502, {}, "bad gateway"),
    ] * 5
    replies = [Reply(200, {}, json.dumps(run_json(state))) for state in ("running", "completed")]
    found, pauses = _drive(calls.wait_for("r1", None), [*restarting, replies[0], *restarting, replies[1]], clock)
    assert found.state == "completed"
    assert all(0 < pause <= 3 for pause in pauses)
    assert 2 * 20 < sum(pauses) < 2 * 60


def test_a_wait_without_a_timeout_ends_when_its_server_stays_away(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(ConnectionFailed, match="refused"):
        _drive(calls.wait_for("r1", None), itertools.repeat(ConnectionFailed("refused", sent=False)), clock)
    assert 60 <= clock.now - began <= 63


@pytest.mark.parametrize("timeout", [5.0, 600.0])
def test_a_wait_with_a_timeout_bears_with_its_server_until_then(clock: Clock, timeout: float) -> None:
    began = clock.now
    with pytest.raises(RunTimedOut):
        _drive(calls.wait_for("r1", timeout), itertools.repeat(ConnectionFailed("refused", sent=False)), clock)
    assert clock.now - began == pytest.approx(timeout)


def test_a_wait_for_what_is_not_there_ends_at_once(clock: Clock) -> None:
    missing = json.dumps({"code": "run_not_found", "detail": "no such run", "status": 404})
    with pytest.raises(ApiError, match="no such run"):
        _drive(calls.wait_for("r1", None), [Reply(404, {}, missing)], clock)


@pytest.mark.parametrize(
    ("options", "times"),
    [
        ({}, 2),
        ({"idempotency_key": "k"}, 5),
        ({"idempotency_key": "k", "idempotency_ttl": 3600}, 5),
        ({"idempotency_key": "k", "idempotency_ttl": 60}, 1),
    ],
)
def test_a_submit_is_not_repeated_when_the_time_of_its_key_may_be_over(
    clock: Clock, options: RunOptions, times: int
) -> None:
    call = calls.submit("double", "1", options)
    asked = 0
    wanted = next(call)
    with pytest.raises(ConnectionFailed, match="slow"):
        while True:
            if isinstance(wanted, Pause):
                clock.now += wanted.seconds
                wanted = next(call)
            else:
                asked += 1
                clock.now += 60.0
                wanted = call.throw(ConnectionFailed("slow", sent=True))
    assert asked == times


def _drive(call: Call[Run], outcomes: Iterable[Reply | ConnectionFailed], clock: Clock) -> tuple[Run, list[float]]:
    """Carry out a call with these outcomes of its requests; return its own, and its pauses."""
    coming = iter(outcomes)
    pauses: list[float] = []
    outcome: Reply | ConnectionFailed | None = None
    while True:
        try:
            wanted = call.throw(outcome) if isinstance(outcome, ConnectionFailed) else call.send(outcome)
        except StopIteration as end:
            return end.value, pauses
        if isinstance(wanted, Pause):
            pauses.append(wanted.seconds)
            clock.now += wanted.seconds
            outcome = None
        else:
            outcome = next(coming)
