"""How soon a running task is stopped by a cancel, on a server that has nothing else to do."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hurlbat_app.bench import figures
from hurlbat_app.bench.figures import NS_PER_MS, Percentiles
from hurlbat_app.bench.measure import STALLED_SECONDS
from hurlbat_app.bench.stack import BenchFailure, Plan, Stack, running

RUNS = 300
"""Cancelled one after the other, each time; fewer where the plan has fewer."""
OTHERS = 500
"""Runs that run all the while, for the second time; fewer where the plan has fewer runs or slots."""
LOOK_SECONDS = 0.001
_SERVER = {"HURLBAT_DRAIN_SECONDS": "0"}


@dataclass(frozen=True, slots=True)
class Stopped:
    """How soon an async task of the SDK, on a live worker of one process, is stopped."""

    others: int
    alone_ms: Percentiles
    """From sending the cancel until the task was stopped at its `await`, when nothing else runs."""
    among_others_ms: Percentiles
    """The same, while so many others run."""


def cancels(plan: Plan, folder: Path, say: Callable[[str], None]) -> Stopped:
    """Cancel runs that would never end, one after the other. Raises `BenchFailure`."""
    runs, others = min(RUNS, plan.runs), min(OTHERS, plan.runs, plan.slots // 2)
    with running(plan, folder, held={}, env=_SERVER) as stack:
        _stopped(stack, -(-runs // 10))
        say(f"alone: {runs} cancels")
        alone = _stopped(stack, runs)
        say(f"{others} others begin")
        _start(stack, others)
        say(f"among {others} that run: {runs} cancels")
        among = _stopped(stack, runs)
        stack.kill()
    return Stopped(others, figures.percentiles(alone), figures.percentiles(among))


def _stopped(stack: Stack, count: int) -> list[float]:
    """Return for each of so many cancels how long the task went on (ms)."""
    took: list[float] = []
    for _ in range(count):
        [run_id] = _start(stack, 1)
        asked = time.time_ns()
        stack.call("POST", f"/runs/{run_id}/cancel", json={})
        took.append((_noted(stack.stopped_log, [run_id], "stopped") - asked) / NS_PER_MS)
    return took


def _start(stack: Stack, count: int) -> list[str]:
    """Start so many that never end by themselves; return their ids when their tasks have begun."""
    if not count:
        return []
    asked = [{"task": stack.held_task, "input": {"hang": True}}] * count
    ids = [run["id"] for run in stack.call("POST", "/runs/bulk", json={"runs": asked})["results"]]
    _noted(stack.held_log, ids, "begun")
    return ids


def _noted(log: Path, ids: Sequence[str], what: str) -> int:
    """Wait until the worker has written all of them down; return when the last one was (ns)."""
    deadline = time.monotonic() + STALLED_SECONDS
    missing, at, read = set(ids), 0, 0
    while True:
        text = log.read_bytes()[read:] if log.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        read += len(whole)
        for one in figures.read_log(whole.decode().splitlines()):
            if one.run_id in missing:
                missing.discard(one.run_id)
                at = max(at, one.at_ns)
        if not missing:
            return at
        if time.monotonic() > deadline:
            raise BenchFailure(f"{len(missing)} runs have not {what} after {STALLED_SECONDS:g} s")
        time.sleep(LOOK_SECONDS)
