"""One measurement: start server, worker and clients, load them, wait for the last result, and count."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hurlbat_app.bench import figures
from hurlbat_app.bench.stack import POLL_SECONDS, BenchFailure, Other, Plan, Stack, running, versions
from hurlbat_app.bench.watch import Cpu, sampled_memory

WARM_UP_RUNS = 1_000
IDLE_RUNS = 300
STALLED_SECONDS = 60.0


def measure(plan: Plan, folder: Path, say: Callable[[str], None], other: Other | None = None) -> figures.Report:
    """Make one measurement with all files in the folder; `say` hears what goes on. Raises `BenchFailure`.

    With `other` it is that worker which is pushed to.
    """
    with running(plan, folder, other=other) as stack:
        try:
            counted = _run(stack, say)
        finally:
            stack.unregister()
    idle = counted.idle["ids"], counted.idle["began_ns"]
    stored = [figures.Start(run_id, 1, int(at * 1e9)) for run_id, at in counted.stored.items()]
    started = stored if other else figures.read_log(stack.log.read_text().splitlines())
    return figures.Report(
        runs_per_second=round(plan.runs / counted.seconds, 1),
        submit_ms=figures.percentiles([took / figures.NS_PER_MS for took in counted.load["took_ns"]]),
        start_ms=None if other else figures.percentiles(figures.start_latencies(*idle, started) or [0.0]),
        stored_ms=figures.percentiles(figures.start_latencies(*idle, stored) or [0.0]),
        idle_submit_ms=figures.percentiles([took / figures.NS_PER_MS for took in counted.idle["took_ns"]]),
        lost=figures.lost(counted.acknowledged, started, counted.stored),
        duplicates=None if other else figures.duplicates(started),
        refused=counted.load["refused"],
        cpu_us_per_run=counted.cpu,
        memory_mb=figures.memory(counted.memory) if counted.memory else None,
        versions=versions(),
        settings=plan.settings() | ({"worker": other.url, "task": other.task} if other else {}),
    )


@dataclass(slots=True)
class _Counted:
    idle: dict[str, Any]
    load: dict[str, Any]
    acknowledged: list[str]
    stored: dict[str, float]
    """When the result of each run was stored, in seconds since the epoch."""
    seconds: float
    cpu: Cpu
    memory: list[tuple[float, float]]


def _run(stack: Stack, say: Callable[[str], None]) -> _Counted:
    plan = stack.plan
    warm = stack.submit(min(WARM_UP_RUNS, plan.runs), "single")
    _drained(stack)
    alone = min(IDLE_RUNS, plan.runs)
    say(f"idle: {alone} runs, one at a time")
    idle = stack.submit(alone, "idle")
    _drained(stack)
    say(f"load: {plan.runs:,} runs, {plan.clients} clients")
    before = stack.used()
    with sampled_memory(stack.servers[0].process.pid, plan.memory) as memory:
        load = stack.submit(plan.runs, plan.submit)
        _drained(stack)
    seconds = [after - used for after, used in zip(stack.used(), before, strict=True)]
    cpu = Cpu(*(round(each / plan.runs * 1e6, 1) for each in (*seconds, load["cpu_seconds"])))
    say("counting")
    measured = set(load["ids"])
    stored = {run["id"]: datetime.fromisoformat(run["finished_at"]).timestamp() for run in stack.completed()}
    last = max((at for run_id, at in stored.items() if run_id in measured), default=0.0)
    took = max(last - min(load["began_ns"]) / 1e9, 1e-3)
    acknowledged = warm["ids"] + idle["ids"] + load["ids"]
    return _Counted(idle, load, acknowledged, stored, took, cpu, memory)


def _drained(stack: Stack) -> None:
    """Wait until no run of ours is running or queued.

    Polls seldom, as the server has better things to do, and asks for queued runs only when none is running.
    """
    newest, moved = "", time.monotonic()
    while True:
        waiting = stack.list("running", 1)["items"] or stack.list("queued", 1)["items"]
        if not waiting:
            return
        seen = json.dumps([waiting, stack.list("completed", 1)["items"]])
        if seen != newest:
            newest, moved = seen, time.monotonic()
        elif time.monotonic() - moved > STALLED_SECONDS:
            raise BenchFailure(f"nothing has moved for {STALLED_SECONDS:g} s; one that waits: {waiting[0]}")
        time.sleep(POLL_SECONDS)
