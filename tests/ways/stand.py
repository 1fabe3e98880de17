"""A server, and one plain worker at which the tests declare their tasks."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.e2e.stage import SECRET, Api, Object, assert_no_faults, until
from tests.support.processes import Processes, Server
from tests.support.stands import UNHURRIED

WORKER = "tests.ways.worker_app:app"
LONG = 3600
"""Seconds in which nothing becomes due by the passing of time."""


@dataclass(frozen=True)
class Ways:
    """A server, the worker, and what the worker has noted."""

    server: Server
    host: Server
    journal: Path
    api: Api

    def serve(self, *tasks: Object) -> None:
        """Declare tasks, which are served by the worker under the name of the first."""
        self.api.call("POST", "/workers", self.spec(*tasks), status=201)

    def spec(self, *tasks: Object) -> Object:
        """Return the registration of a worker that serves these tasks."""
        name, url = tasks[0]["name"], f"{self.host.url}/"
        return {"name": name, "url": url, "mode": "plain", "secret": SECRET, "slots": 64, "tasks": tasks}

    def publish(self, key: str, payload: Any = None, *, status: int = 201, **more: Any) -> Object:
        """Publish an event."""
        body = {"key": key} | ({} if payload is None else {"payload": payload}) | more
        found: Object = self.api.call("POST", "/events", body, status=status)
        return found

    def runs(self, task: str, **query: Any) -> list[Object]:
        """Return all runs of a task, the oldest first."""
        return list(self.api.listed(task=task, **query))[::-1]

    def noted(self, *tasks: str) -> list[Object]:
        """Return what the worker has noted of these tasks, in order."""
        lines = self.journal.read_text().split("\n")[:-1] if self.journal.exists() else []
        return [noted for noted in map(json.loads, lines) if noted["task"] in tasks]

    def until_noted(self, count: int, *tasks: str) -> list[Object]:
        """Wait until the worker has noted so many starts of these tasks, and return them."""
        until(lambda: len(self.noted(*tasks)) >= count, f"{count} starts of {', '.join(tasks)}")
        return self.noted(*tasks)

    def settle(self) -> None:
        """Return when a run that nothing holds has ended: what could start before it has started."""
        if self.api.send("GET", "/workers/marker").status_code == 404:
            self.serve({"name": "marker", "retries": 9, "backoff": {"initial": 0}})
        assert self.api.run("marker")["state"] == "completed"


@contextmanager
def set_up(processes: Processes, folder: Path, database_url: str) -> Iterator[Ways]:
    """Start a server and the worker. The server's log must hold no fault at the end."""
    journal = folder / "journal"
    server = processes.serve(database_url, wait=False, **UNHURRIED)
    host = processes.app(WORKER, WAYS_LOG=str(journal))
    server.answers(f"{server.url}/health/ready", below=300)
    with Api(server.url) as api:
        yield Ways(server, host, journal, api)
    assert_no_faults(server)


def in_seconds(seconds: float) -> str:
    """Return the time in so many seconds as the API writes it."""
    return datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()


def outcomes(event: Object) -> list[tuple[str, str]]:
    """Return which tasks listened to an event, and what came of it."""
    return [(start["task"], start["outcome"]) for start in event["starts"]]


def started(event: Object) -> list[str]:
    """Return the runs that an event has started."""
    return [start["run"] for start in event["starts"] if start["outcome"] == "started"]
