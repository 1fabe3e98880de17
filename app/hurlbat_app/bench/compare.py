"""Measure servers that are burdened, each by a scenario, beside one that is empty.

All of them run at once and are measured in turn, round by round, so that what else the machine does meets all alike.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

from hurlbat_app.bench import figures
from hurlbat_app.bench.figures import NS_PER_MS, Burdened, Comparison, Grown, Round, Start
from hurlbat_app.bench.fill import FillFailed, fill
from hurlbat_app.bench.measure import IDLE_RUNS, STALLED_SECONDS, WARM_UP_RUNS
from hurlbat_app.bench.scenarios import Scenario
from hurlbat_app.bench.stack import POLL_SECONDS, BenchFailure, Plan, Stack, running, versions

PLACE = "{scenario}"
"""What stands in a database's URL for the scenario's name."""
_SERVER = {"HURLBAT_DRAIN_SECONDS": "0"}


def compare(
    plan: Plan, scenarios: Sequence[Scenario], rounds: int, folder: Path, say: Callable[[str], None]
) -> Comparison:
    """Load the scenarios, of which the first is `empty`, and measure each in every round. Raises `BenchFailure`."""
    with ExitStack() as stacks:
        sides: list[_Side] = []
        for scenario in scenarios:
            name = scenario.name.replace("-", "_")
            room = folder / name
            room.mkdir()
            own = replace(plan, database=plan.database.replace(PLACE, name))
            held = scenario.policy if scenario.keys else None
            stack = stacks.enter_context(running(own, room, held=held, env=_SERVER))
            stacks.callback(stack.kill)
            side = _Side(scenario, stack, stacks.enter_context(stack.log.open()))
            side.load(say)
            sides.append(side)
        for number in range(rounds):
            turns = [sides[(place + number) % len(sides)] for place in range(len(sides))]
            for side in turns:
                say(f"round {number + 1} of {rounds}: {side.scenario.name}")
                side.measure()
        empty = sides[0].rounds
        found = {str(side.scenario.name): side.report(None if side is sides[0] else empty) for side in sides}
    return Comparison(found, versions(), plan.settings() | {"rounds": rounds})


@dataclass(slots=True)
class _Side:
    """One scenario, and what was seen of it."""

    scenario: Scenario
    stack: Stack
    log: IO[str]
    unread: str = ""
    seen: list[Start] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)
    before: float = 0.0
    loaded: float = 0.0
    load_seconds: float = 0.0
    idle_seconds: float = 0.0
    idle_cpu: float = 0.0
    left: tuple[float, float] | None = None

    def load(self, say: Callable[[str], None]) -> None:
        stack, scenario = self.stack, self.scenario
        if stack.call("GET", "/runs", params={"limit": "1"})["items"]:
            raise BenchFailure("a scenario needs an empty database")
        self._ended(stack.submit(min(WARM_UP_RUNS, stack.plan.runs), "single")["ids"])
        self.before = self.loaded = stack.resident()
        if not scenario.keys:
            return
        say(f"{scenario.name}: loading {len(scenario.keys):,} runs")
        server, token = stack.servers[0], stack.access.token
        submissions = scenario.submissions(stack.held_task)
        try:
            self.load_seconds = fill(server.url, token, submissions, len(scenario.keys), say)
        except FillFailed as failure:
            raise BenchFailure(str(failure)) from failure
        self._settled()
        self.loaded = stack.resident()
        say(f"{scenario.name}: {scenario.waiting:,} wait, {len(scenario.keys) / self.load_seconds:,.0f} a second")

    def measure(self) -> None:
        stack = self.stack
        if self.left is not None:  # since the last round nobody asked anything of it
            at, used = self.left
            self.idle_seconds += time.monotonic() - at
            self.idle_cpu += stack.used()[0] - used
        earlier = len(self.seen)
        idle = stack.submit(min(IDLE_RUNS, stack.plan.runs), "idle")
        self._ended(idle["ids"])
        load = stack.submit(stack.plan.runs, stack.plan.submit)
        finished = self._ended(load["ids"])
        started = self.seen[earlier:]
        took = max(max(finished.values()) - min(load["began_ns"]) / 1e9, 1e-3)

        def starts(done: dict[str, Any]) -> figures.Percentiles:
            return figures.percentiles(figures.start_latencies(done["ids"], done["began_ns"], started) or [0.0])

        self.rounds.append(
            Round(
                runs_per_second=round(stack.plan.runs / took, 1),
                submit_ms=figures.percentiles([each / NS_PER_MS for each in load["took_ns"]]),
                start_ms=starts(idle),
                loaded_start_ms=starts(load),
                refused=load["refused"],
            )
        )
        self.left = (time.monotonic(), stack.used()[0])

    def report(self, empty: Sequence[Round] | None) -> Burdened:
        return figures.burdened(
            self.rounds,
            empty,
            waiting=self.scenario.waiting,
            loaded_per_second=len(self.scenario.keys) / self.load_seconds if self.load_seconds else 0.0,
            duplicates=figures.duplicates(self.seen),
            strayed=abs(self._held_starts() - self.scenario.starts),
            memory_mb=Grown(self.before, self.loaded, self.stack.resident()),
            idle_cpu_percent=100 * self.idle_cpu / self.idle_seconds if self.idle_seconds else 0.0,
        )

    def _settled(self) -> None:
        """Wait until what the rules let through has started, and no more did."""
        deadline = time.monotonic() + STALLED_SECONDS
        while (begun := self._held_starts()) < self.scenario.starts:
            if time.monotonic() > deadline:
                raise BenchFailure(f"only {begun} of {self.scenario.starts} started of what the rules let through")
            time.sleep(POLL_SECONDS)
        if begun > self.scenario.starts:
            raise BenchFailure(f"{begun} runs started where the rules allow {self.scenario.starts}")

    def _held_starts(self) -> int:
        if not self.stack.held_log.exists():
            return 0
        with self.stack.held_log.open("rb") as log:
            return sum(1 for _ in log)

    def _ended(self, ids: Sequence[str]) -> dict[str, float]:
        """Wait until the runs have ended and return when each did; `seen` has their starts then.

        The worker's log tells when it is time to ask the server, which has better things to do until then.
        Raises `BenchFailure` for runs that are lost.
        """
        missing, moved = set(ids), time.monotonic()
        while missing:
            lines = self._read()
            self.seen += lines
            missing.difference_update(line.run_id for line in lines)
            moved = self._moved(bool(lines), moved, len(missing), "started")
        finished: dict[str, float] = {}
        while len(finished) < len(ids):
            found = {run["id"]: run["finished_at"] for run in islice(self.stack.completed(), len(ids))}
            more = {run_id: datetime.fromisoformat(found[run_id]).timestamp() for run_id in ids if run_id in found}
            moved = self._moved(len(more) > len(finished), moved, len(ids) - len(more), "been stored as completed")
            finished = more
        return finished

    def _read(self) -> list[Start]:
        """Read on in the worker's log."""
        *lines, self.unread = (self.unread + self.log.read()).split("\n")
        return figures.read_log(lines)

    def _moved(self, progress: bool, moved: float, missing: int, what: str) -> float:
        if progress or not missing:
            return time.monotonic()
        if time.monotonic() - moved > STALLED_SECONDS:
            raise BenchFailure(f"{self.scenario.name}: {missing} runs were lost: they have not {what}")
        time.sleep(POLL_SECONDS)
        return moved
