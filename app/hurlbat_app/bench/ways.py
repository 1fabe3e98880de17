"""What waiting costs, and how punctual delayed runs are: measured on a server that has nothing else to do."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hurlbat_app.bench import figures
from hurlbat_app.bench.figures import NS_PER_MS, Grown, Percentiles
from hurlbat_app.bench.fill import FillFailed, fill
from hurlbat_app.bench.measure import STALLED_SECONDS
from hurlbat_app.bench.scenarios import Name, Sizes, scenario
from hurlbat_app.bench.stack import POLL_SECONDS, BenchFailure, Plan, Stack, running
from hurlbat_app.bench.waiter import Wait

WAIT_SECONDS = 600.0
RUNS = 300
"""Measured one after the other, each time; fewer where the plan has fewer."""
STEP_MS = 25
"""Between the times of two delayed runs."""
AHEAD_MS = 2_000
"""From the submit of the delayed runs to the time of the first."""
QUIET_SECONDS = 10.0
"""How long everybody waits while nothing happens."""
_SERVER = {"HURLBAT_WAIT_MAX": f"{WAIT_SECONDS:g}", "HURLBAT_DRAIN_SECONDS": "0"}


@dataclass(frozen=True, slots=True)
class Waited:
    """What it costs that many wait, and how soon one hears of the end of a run."""

    waiters: int
    alone_ms: Percentiles
    """From the end of a run, as it is stored, to the answer at one who waits, when nobody else does."""
    among_others_ms: Percentiles
    """The same, while all others wait."""
    memory_mb: Grown
    """Of the largest server: with nobody waiting, with all of them, and when they have gone."""
    idle_cpu_percent: float
    """Of one core, used by all servers while everybody waits and nothing happens."""


@dataclass(frozen=True, slots=True)
class Punctual:
    """How long after its time a delayed run starts."""

    timers: int
    alone_ms: Percentiles
    """From the time for which a run was submitted to the start of its task, when no other run waits for its time."""
    among_others_ms: Percentiles
    """The same, while so many timers wait for another day."""
    early: int
    """Starts before their time; there must be none."""


def waiters(plan: Plan, count: int, folder: Path, say: Callable[[str], None]) -> Waited:
    """Let so many wait at the last server, and see what that costs. Raises `BenchFailure`."""
    runs = min(RUNS, plan.runs)
    with running(plan, folder, held={}, env=_SERVER) as stack:
        with _waiting(stack, 0) as ask:
            ask(-(-runs // 10))  # everything is warm then
            say(f"alone: {runs} runs, one at a time")
            alone = ask(runs)
            before = stack.resident()
        say(f"{count:,} begin to wait")
        with _waiting(stack, count) as ask:
            ask(1)
            loaded = stack.resident()
            cpu, began = stack.used()[0], time.monotonic()
            time.sleep(QUIET_SECONDS * runs / RUNS)
            idle = (stack.used()[0] - cpu) / (time.monotonic() - began)
            say(f"{count:,} wait: {runs} runs, one at a time")
            among = ask(runs)
        time.sleep(1.0)
        end = stack.resident()
        stack.kill()
    return Waited(
        count, figures.percentiles(alone), figures.percentiles(among), Grown(before, loaded, end), round(100 * idle, 2)
    )


def delays(plan: Plan, timers: int, folder: Path, say: Callable[[str], None]) -> Punctual:
    """Start delayed runs one after the other, and see how punctual they are. Raises `BenchFailure`."""
    runs = min(RUNS, plan.runs)
    with running(plan, folder, held={}, env=_SERVER) as stack:
        _punctual(stack, -(-runs // 10))
        say(f"alone: {runs} delayed runs")
        alone = _punctual(stack, runs)
        load = scenario(Name.TIMERS, Sizes(timers=timers))
        say(f"loading {timers:,} timers")
        try:
            fill(stack.servers[0].url, stack.access.token, load.submissions(stack.held_task), timers, say)
        except FillFailed as failure:
            raise BenchFailure(str(failure)) from failure
        time.sleep(1.0)
        say(f"among {timers:,} timers: {runs} delayed runs")
        among = _punctual(stack, runs)
        stack.kill()
    early = sum(late < 0 for late in alone + among)
    return Punctual(timers, figures.percentiles(alone), figures.percentiles(among), early)


@contextmanager
def _waiting(stack: Stack, count: int) -> Iterator[Callable[[int], list[float]]]:
    """Let so many wait for as long as the block lasts; yield what measures runs beside them (ms)."""
    wanted = Wait([one.url for one in stack.servers], stack.access.token, stack.held_task, count, WAIT_SECONDS)
    command = [sys.executable, "-m", "hurlbat_app.bench.waiter", json.dumps(asdict(wanted))]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    talk, listen, complaints = process.stdin, process.stdout, process.stderr

    def heard() -> dict[str, Any]:
        line = listen.readline()
        if not line:
            raise BenchFailure(f"the one who waits failed:\n{complaints.read()[-4000:]}")
        said: dict[str, Any] = json.loads(line)
        return said

    def ask(runs: int) -> list[float]:
        talk.write(f"{runs}\n")
        talk.flush()
        took: list[float] = heard()["took_ms"]
        return took

    try:
        heard()
        yield ask
    finally:
        process.kill()
        process.wait()
        for pipe in (talk, listen, complaints):
            pipe.close()


def _punctual(stack: Stack, count: int) -> list[float]:
    """Return for runs of which one is due after the other how late each started (ms)."""
    first = time.time_ns() // NS_PER_MS + AHEAD_MS
    due = [first + STEP_MS * number for number in range(count)]
    asked = [{"task": stack.task, "input": {}, "run_at": _rfc3339(at)} for at in due]
    results = stack.call("POST", "/runs/bulk", json={"runs": asked})["results"]
    ids = [run["id"] for run in results]
    moved = time.monotonic()
    seen = -1
    while True:
        started = {one.run_id: one.at_ns for one in figures.read_log(stack.log.read_text().splitlines())}
        here = sum(run_id in started for run_id in ids)
        if here == count:
            return [started[run_id] / NS_PER_MS - at for run_id, at in zip(ids, due, strict=True)]
        if here != seen:
            seen, moved = here, time.monotonic()
        elif time.monotonic() - moved > STALLED_SECONDS:
            raise BenchFailure(f"{count - here} delayed runs have not started")
        time.sleep(POLL_SECONDS)


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
