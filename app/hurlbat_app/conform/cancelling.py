"""Whether a worker stops what it is told to stop."""

import json
import time
from dataclasses import dataclass
from typing import Any, Final

from hurlbat.conformance import SLEEP
from hurlbat.jsontext import JsonTextError, parse
from hurlbat.wire import DeliveredRun, cancel_body
from hurlbat_app.conform.bench import Bench, new_id, soon, timestamp
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.delivery import RESULT
from hurlbat_app.conform.probe import Answer, shown
from hurlbat_app.conform.verdicts import Failed

GROUP: Final = "cancel"
STOPPED: Final = f"{GROUP}.stopped"
CANCEL_SECONDS: Final = 10.0
SLEEPS: Final = 30.0
"""Seconds, far longer than anybody waits here."""
_TRIES: Final = 8
"""A worker that does not say when a run has begun may not have begun it at the first."""


@dataclass(frozen=True, slots=True)
class _Stop:
    """A sleeping run that was to be stopped: what was answered, and after how many seconds its delivery ended."""

    run: DeliveredRun
    answer: Answer
    ended_after: float | None


async def _stopped(bench: Bench) -> str:
    stop = await _stop(bench)
    if not stop.answer.ok:
        raise Failed(f"a cancel message was answered {stop.answer.told}")
    status = _status(stop.answer, stop.run)
    if status != "stopped":
        raise Failed(
            f"for a run that was sleeping cancel was answered {shown(stop.answer.body)}",
            "Stop the run and answer its status as stopped. Test one instance: another one does not have the run.",
        )
    if stop.answer.seconds > CANCEL_SECONDS:
        raise Failed(f"cancel was answered after {stop.answer.seconds:.1f} s")
    return f"stopped, after {stop.answer.seconds:.2f} s"


async def _ends(bench: Bench) -> str:
    stop = await _stop(bench)
    if stop.ended_after is None:
        seconds = min(CANCEL_SECONDS, bench.target.patience)
        raise Failed(f"{seconds:g} s after a run was said to be stopped its delivery was still open")
    return f"{stop.ended_after:.2f} s after cancel was sent"


async def _unknown(bench: Bench) -> str:
    run_id = new_id()
    answer = await _cancel(bench, run_id)
    if not answer.ok:
        raise Failed(f"cancel of a run that it does not have was answered {answer.told}")
    if _find(answer, run_id) == "stopped":
        raise Failed("a run that it does not have was said to be stopped")
    if _find(answer, run_id) is None:
        return "answered without a status, which is taken as unknown"
    return str(_find(answer, run_id))


async def _stop(bench: Bench) -> _Stop:
    """Let a run sleep and stop it, once for all who look at it."""
    bench.needs(SLEEP)
    if "stop" not in bench.scenes:
        bench.scenes["stop"] = await _stopping(bench)
    found: _Stop = bench.scenes["stop"]
    return found


async def _stopping(bench: Bench) -> _Stop:
    run = bench.run(SLEEP, {"seconds": SLEEPS})
    async with bench.delivering([run], patience=SLEEPS) as delivery:
        await delivery.until(lambda: delivery.started(run) or delivery.accepted, _patience(bench, 2.0))
        if delivery.ended_at is not None and not delivery.accepted:
            raise Failed(delivery.without(run))
        answer = None
        told = delivery.started(run)
        for _ in range(1 if told else _TRIES):
            if not told:
                await soon()
            sent_at = time.monotonic()
            answer = await _cancel(bench, run.run_id)
            if _status(answer, run) == "stopped":
                break
        assert answer is not None
        stopped = _status(answer, run) == "stopped"
        over = delivery.accepted
        if stopped and not over:
            over = await delivery.until(lambda: delivery.ended_at is not None, _patience(bench, CANCEL_SECONDS))
    return _Stop(run, answer, (delivery.ended_at or sent_at) - sent_at if over else None)


async def _cancel(bench: Bench, run_id: str) -> Answer:
    named = [(run_id, 1, "conform")]
    body = cancel_body(bench.target.worker, bench.target.url, timestamp(), named)
    return await bench.ask(body, patience=max(CANCEL_SECONDS, bench.target.patience))


def _patience(bench: Bench, most: float) -> float:
    return min(most, bench.target.patience)


def _status(answer: Answer, run: DeliveredRun) -> Any:
    return _find(answer, run.run_id)


def _find(answer: Answer, run_id: str) -> Any:
    try:
        said = parse(answer.body)
    except JsonTextError:
        return None
    listed = said.get("runs") if isinstance(said, dict) else None
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and (one.get("run_id"), one.get("attempt")) == (run_id, 1):
            return one.get("status")
    return None


_SHAPE: Final = json.dumps({"runs": [{"run_id": "…", "attempt": 1, "status": "stopped"}]}, ensure_ascii=False)

CHECKS: Final = (
    Check(
        GROUP,
        "stopped",
        "A run that is cancelled while it runs is stopped, and cancel is answered so within 10 seconds.",
        "Its slot is given back at once then, and not while it still works; without an answer it takes 5 s more.",
        f"Answer {_SHAPE} when it has ended.",
        _stopped,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "ends",
        "The delivery of a run that was stopped ends.",
        "An open one holds a connection, and says that the run is still there.",
        "End the run's stream when it is stopped; a failed result may come before.",
        _ends,
        after=(STOPPED,),
    ),
    Check(
        GROUP,
        "unknown",
        "Cancel of a run that the worker does not have is answered, and not with stopped.",
        "Another instance may have it: a false `stopped` sells its slot twice.",
        "Answer its status as unknown.",
        _unknown,
    ),
)
