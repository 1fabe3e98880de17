"""What workflows cost: many nodes beside as many single runs, the step from a node to the next, and many that wait."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from hurlbat_app.bench import figures
from hurlbat_app.bench.figures import NS_PER_MS, Grown, Percentiles
from hurlbat_app.bench.fill import FillFailed, fill
from hurlbat_app.bench.measure import STALLED_SECONDS
from hurlbat_app.bench.stack import POLL_SECONDS, BenchFailure, Plan, Stack, running

NODES = 100
"""Nodes of a workflow that run beside each other, and single runs that are set against them."""
ROUNDS = 15
"""How often these two are measured, in turn."""
STEPS = 100
"""Nodes of a chain, one after the other; fewer where the plan has fewer runs."""
CHAINS = 3
"""How many chains are measured, one after the other."""
HOUR = 3600.0
SETTLE_SECONDS = 2.0
QUIET_SECONDS = 5.0
WAIT_SECONDS = 60
_SERVER = {"HURLBAT_DRAIN_SECONDS": "0", "HURLBAT_WAIT_MAX": f"{WAIT_SECONDS}"}


@dataclass(frozen=True, slots=True)
class Composed:
    """What was measured of workflows on a server that has nothing else to do."""

    nodes: int
    workflow_ms: float
    """From the submit of a workflow of so many nodes side by side to its stored end; the median of all rounds."""
    singles_ms: float
    """From the bulk submit of as many single runs of the same task to the stored end of the last one."""
    ratio: float
    """The first through the second, of each round; the median."""
    step_ms: Percentiles
    """In a chain of nodes that do nothing: from the end of one's function to the start of the next one's."""
    waiting: int
    step_among_others_ms: Percentiles
    """The same, while so many workflows wait."""
    memory_mb: Grown
    """Of the largest server: before, with all that wait, and at the end."""
    idle_cpu_percent: float
    """Of one core, used by all servers while all workflows wait and nothing happens."""


def compose(plan: Plan, waiting: int, folder: Path, say: Callable[[str], None]) -> Composed:
    """Measure workflows, with `waiting` of them asleep in the end. Raises `BenchFailure`."""
    steps = min(STEPS, plan.runs)
    with running(plan, folder, env=_SERVER) as stack:
        fan, chain, asleep = (f"{stack.task}-{word}" for word in ("fan", "chain", "asleep"))
        _declare(
            stack,
            {
                fan: [{"name": f"n{n}", "task": stack.task} for n in range(NODES)],
                chain: [_link(stack.task, n) for n in range(steps)],
                asleep: [{"name": "sleeps", "task": stack.task, "wait_for": [{"sleep": HOUR}]}],
            },
        )
        _steps(stack, chain, steps)  # everything is warm then
        say(f"{ROUNDS} times {NODES} nodes of a workflow, and {NODES} single runs")
        _side_by_side(stack, fan)
        rounds = [_side_by_side(stack, fan) for _ in range(ROUNDS)]
        say(f"{CHAINS} chains of {steps} nodes")
        alone = _chains(stack, chain, steps)
        time.sleep(SETTLE_SECONDS)
        before = stack.resident()
        say(f"{waiting:,} workflows begin to wait")
        _wait(stack, asleep, waiting, say)
        time.sleep(SETTLE_SECONDS)
        loaded = stack.resident()
        cpu, began = stack.used()[0], time.monotonic()
        time.sleep(QUIET_SECONDS)
        idle = (stack.used()[0] - cpu) / (time.monotonic() - began)
        say(f"{waiting:,} workflows wait: {CHAINS} chains of {steps} nodes")
        among = _chains(stack, chain, steps)
        end = stack.resident()
        stack.kill()
    return Composed(
        NODES,
        round(median(together for together, _ in rounds), 1),
        round(median(single for _, single in rounds), 1),
        round(median(together / single for together, single in rounds), 3),
        figures.percentiles(alone),
        waiting,
        figures.percentiles(among),
        Grown(before, loaded, end),
        round(100 * idle, 2),
    )


def _link(task: str, n: int) -> dict[str, Any]:
    return {"name": f"n{n}", "task": task, "parents": [f"n{n - 1}"] if n else []}


def _declare(stack: Stack, shapes: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Set workflows, and wait until every server has heard of them."""
    for name, nodes in shapes.items():
        stack.call("PUT", f"/workflows/{name}", json={"nodes": nodes})
    deadline = time.monotonic() + STALLED_SECONDS
    for server in stack.servers:
        for name in shapes:
            while stack.api.get(f"{server.url}/workflows/{name}").status_code != 200:
                if time.monotonic() > deadline:
                    raise BenchFailure("a server has not heard of the workflows")
                time.sleep(POLL_SECONDS)


def _side_by_side(stack: Stack, fan: str) -> tuple[float, float]:
    """Return the ms that a workflow took, and those of as many single runs."""
    began = time.time()
    run = _ended(stack, stack.call("POST", "/runs", json={"task": fan, "input": {}})["id"])
    together = _stamp(run) - began
    began = time.time()
    asked = [{"task": stack.task, "input": {}}] * NODES
    ids = [one["id"] for one in stack.call("POST", "/runs/bulk", json={"runs": asked})["results"]]
    single = max(_stamp(_ended(stack, run_id)) for run_id in reversed(ids)) - began  # the last is waited for
    return 1000 * together, 1000 * single


def _chains(stack: Stack, chain: str, steps: int) -> list[float]:
    return [step for _ in range(CHAINS) for step in _steps(stack, chain, steps)]


def _steps(stack: Stack, chain: str, steps: int) -> list[float]:
    """Return the ms from node to node, as the worker has written down their starts: they end as they start."""
    seen = len(stack.log.read_text().splitlines())
    _ended(stack, stack.call("POST", "/runs", json={"task": chain, "input": {}})["id"])
    starts = [one.at_ns for one in figures.read_log(stack.log.read_text().splitlines()[seen:])]
    if len(starts) != steps:
        raise BenchFailure(f"a chain of {steps} nodes had {len(starts)} starts")
    return [(after - before) / NS_PER_MS for before, after in pairwise(starts)]


def _wait(stack: Stack, asleep: str, count: int, say: Callable[[str], None]) -> None:
    """Let so many workflows begin to wait."""
    try:
        fill(stack.servers[0].url, stack.access.token, _submissions(asleep, count), count, say)
    except FillFailed as failure:
        raise BenchFailure(str(failure)) from failure
    deadline = time.monotonic() + STALLED_SECONDS
    while stack.list("queued", 1, task=asleep)["items"]:
        if time.monotonic() > deadline:
            raise BenchFailure(f"not all workflows have begun after {STALLED_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _submissions(task: str, count: int) -> Iterator[bytes]:
    for n in range(count):
        yield f'{{"task":"{task}","input":{{"n":{n}}}}}'.encode()


def _ended(stack: Stack, run_id: str) -> dict[str, Any]:
    run = stack.call("GET", f"/runs/{run_id}", params={"wait": f"{WAIT_SECONDS}"})
    if run["state"] != "completed":
        raise BenchFailure(f"a run is {run['state']}, not completed: {run['error']}")
    return run


def _stamp(run: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(run["finished_at"]).timestamp()
