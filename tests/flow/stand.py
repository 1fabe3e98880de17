"""A server, and one process in which the tests declare their workers."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.stage import PATIENCE, SECRET, Api, Object, assert_no_faults, until
from tests.flow.checks import Span, stamp
from tests.support.processes import Processes, Server
from tests.support.stands import UNHURRIED

WORKER = "tests.flow.worker_app:app"
LONG = 3600
"""Seconds in which no rate limit opens by the passing of time."""
MARKER = {"name": "marker", "retries": 9, "backoff": {"initial": 0}}


@dataclass(frozen=True)
class FlowJournal:
    """What the workers have noted: when each attempt started and ended there."""

    path: Path

    def entries(self, *tasks: str, event: str | None = None) -> list[Object]:
        """Return the lines of these tasks, in order."""
        named = [f'"task": "{task}"' for task in tasks]
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []  # the last is being written
        found: list[Object] = [json.loads(line) for line in lines if any(name in line for name in named)]
        return [entry for entry in found if event in (None, entry["event"])]

    def starts(self, *tasks: str) -> list[str]:
        """Return the runs of these tasks in the order of their starts."""
        return [entry["run_id"] for entry in self.entries(*tasks, event="started")]

    def spans(self, *tasks: str) -> list[Span]:
        """Return the attempts of these tasks, when all of them have ended."""
        until(lambda: self._at_work(*tasks) == 0, f"end of all attempts of {tasks}")
        entries = self.entries(*tasks)
        ends = {(one["run_id"], one["attempt"]): one["at"] for one in entries if one["event"] == "ended"}
        started = [one for one in entries if one["event"] == "started"]
        return [Span(one["at"], ends[one["run_id"], one["attempt"]], one["run_id"]) for one in started]

    def _at_work(self, *tasks: str) -> int:
        events = [one["event"] for one in self.entries(*tasks)]
        return events.count("started") - events.count("ended")


@dataclass(frozen=True)
class Flow:
    """A server, and the process of the workers."""

    database_url: str
    server: Server
    host: Server
    journal: FlowJournal
    api: Api

    @property
    def database(self) -> str:
        """Which database it is: `sqlite` or `postgresql`."""
        return self.database_url.partition("+")[0]

    def declare(self, name: str, *tasks: Object) -> None:
        """Make a worker with the policies of its tasks, which the server does not know yet."""
        url = f"{self.host.url}/declare/{name}"
        httpx.put(url, json=tasks, timeout=PATIENCE, trust_env=False).raise_for_status()

    def worker(self, name: str, *tasks: Object, slots: int = 16, **more: Any) -> Object:
        """Declare a worker with the policies of its tasks, and register it."""
        self.declare(name, *tasks)
        self.api.register(self.host, name, path=f"/{name}/", slots=slots, **more)
        return self.proven(name)

    def proven(self, name: str) -> Object:
        """Return a worker when its proof is through: one that stood still meanwhile is asked again by itself."""
        until(lambda: self.api.call("GET", f"/workers/{name}")["state"] != "pending", f"proof of {name}")
        worker: Object = self.api.call("GET", f"/workers/{name}")
        assert worker["state"] == "ready", worker["problem"]
        return worker

    def limit(self, key: str, limit: int, duration: float = LONG) -> Object:
        """Set a static rate limit; `duration` is in seconds."""
        response = self.api.send("PUT", f"/rate-limits/{key}", {"limit": limit, "duration": duration})
        assert response.status_code in (200, 201), response.text
        found: Object = response.json()
        return found

    def submit_all(self, task: str, *inputs: Object, **more: Any) -> list[str]:
        """Submit runs together; return their ids in order."""
        runs = [{"task": task, "input": one} | more for one in inputs]
        return [run["id"] for run in self.api.call("POST", "/runs/bulk", {"runs": runs})["results"]]

    def pause(self, task: str) -> None:
        """Hold the runs of a task."""
        self.api.call("POST", f"/tasks/{task}/pause")

    def resume(self, task: str) -> None:
        """Let the runs of a task start."""
        self.api.call("POST", f"/tasks/{task}/resume")

    def runs(self, task: str) -> dict[str, Object]:
        """Return all runs of a task by id."""
        return {run["id"]: run for run in self.api.listed(task=task)}

    def states(self, ids: list[str]) -> list[str]:
        """Return the states of these runs, in order."""
        return [self.api.show(run_id)["state"] for run_id in ids]

    def until_completed(self, task: str, count: int) -> dict[str, Object]:
        """Wait until so many runs of a task have completed, and return these by id."""
        what = f"{count} completed runs of {task}"
        until(lambda: len(self.journal.entries(task, event="ended")) >= count, what)
        found: dict[str, Object] = {}

        def all_told() -> bool:
            found.update((run["id"], run) for run in self.api.listed(task=task, state="completed"))
            return len(found) >= count

        until(all_told, what)
        return found

    def until_started(self, task: str, count: int) -> None:
        """Wait until the workers have noted so many starts of a task."""
        until(lambda: len(self.journal.starts(task)) >= count, f"{count} starts of {task}")

    def settle(self) -> Object:
        """Return a run that nothing holds, submitted now, when it has ended: what could start before it has started."""
        if self.api.send("GET", "/workers/marker").status_code == 404:
            self.worker("marker", MARKER)
        marker = self.api.run("marker", {})
        assert marker["state"] == "completed"
        return marker

    def started_at(self, task: str) -> list[int]:
        """Return the committed start stamps of a task's runs, in ms since the epoch."""
        return sorted(stamp(run["started_at"]) for run in self.runs(task).values() if run["started_at"])


@contextmanager
def set_up(processes: Processes, folder: Path, database_url: str) -> Iterator[Flow]:
    """Start a server and the process of the workers. The server's log must hold no fault at the end."""
    journal = FlowJournal(folder / "journal")
    server = processes.serve(database_url, wait=False, **UNHURRIED)
    host = processes.app(WORKER, FLOW_LOG=str(journal.path), HURLBAT_SIGNING_SECRET=SECRET)
    server.answers(f"{server.url}/health/ready", below=300)
    with Api(server.url) as api:
        yield Flow(database_url, server, host, journal, api)
    assert_no_faults(server)


def wait_until(moment: float) -> None:
    """Sleep until a moment of the wall clock, in seconds since the epoch."""
    time.sleep(max(0.0, moment - time.time()))
