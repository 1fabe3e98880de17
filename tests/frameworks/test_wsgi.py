"""Workers in Flask and Django below gunicorn and waitress, and alone: whatever a server does with them, over HTTP."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from hurlbat_app.conform import conform
from tests.e2e.stage import SECRET, until
from tests.frameworks.stand import Stand
from tests.support.processes import Server

APPS = "tests.frameworks.wsgi_apps"
GUNICORN = ("gunicorn", "--workers", "1", "--bind", "127.0.0.1:{port}", "--no-control-socket")
THREADS = (*GUNICORN, "--threads", "8")
SYNC = (*GUNICORN, "--preload")
WAITRESS = ("waitress", "--threads", "8", "--listen", "127.0.0.1:{port}")


@dataclass(frozen=True)
class Kind:
    """A way to serve tasks: the server's command, the app, and where the worker is."""

    name: str
    command: tuple[str, ...]
    app: str
    path: str = "/hurlbat"
    streams: bool = True

    def start(self, stand: Stand, **env: str) -> Server:
        prefix = self.path.rstrip("/").removesuffix("/hurlbat")
        more = {"SCRIPT_NAME": prefix} if prefix else {}
        return stand.start(*self.command, f"{APPS}:{self.app}", WORKER=self.name, **more, **env)


@dataclass(frozen=True)
class Worker:
    """One of a kind that runs and is registered."""

    kind: Kind
    stand: Stand
    process: Server

    def run(self, task: str, input: Any = None, **more: Any) -> Any:
        return self.stand.api.run(f"{self.kind.name}.{task}", input, **more)

    def hold(self, gate: Path) -> str:
        """Start a run that lasts until the gate exists; return its id."""
        run: str = self.stand.api.submit(f"{self.kind.name}.hold", str(gate))["id"]
        self.process.until(begun(gate).exists, "run that has begun")
        return run


KINDS = [
    Kind("flask", THREADS, "flask_app"),
    Kind("dispatched", WAITRESS, "dispatched", "/hurlbat/"),
    Kind("django", THREADS, "django_app", "/shop/hurlbat"),
    Kind("whole", WAITRESS, "whole", "/", streams=False),
    Kind("sync", SYNC, "flask_app"),
]


def begun(gate: Path) -> Path:
    return gate.with_name(f"{gate.name}.begun")


def cancelled(gate: Path) -> Path:
    return gate.with_name(f"{gate.name}.cancelled")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def worker(request: pytest.FixtureRequest, stand: Stand) -> Iterator[Worker]:
    kind: Kind = request.param
    # the loop of this one was running before the fork, in the other process
    process = kind.start(stand, HOLD_SECONDS="2", START_EARLY="1")
    found = stand.register(process, kind.name, kind.path)
    assert (found["state"], found["problem"]) == ("ready", None)
    yield Worker(kind, stand, process)
    stand.api.call("DELETE", f"/workers/{kind.name}", status=204)
    process.kill()


def test_tasks_run_on_one_loop_of_the_process_that_serves_and_in_its_threads(worker: Worker) -> None:
    run = worker.run("where")
    seen = run["output"]
    assert (seen["thread"], seen["opened_here"]) == ("hurlbat-loop", True)
    assert (seen["pid"] != seen["imported_in"]) == ("--preload" in worker.kind.command)
    told = [entry["message"] for entry in run["timeline"] if entry.get("message") == "looking"]
    assert told == (["looking"] if worker.kind.streams else [])
    seen = worker.run("where-sync")["output"]
    assert seen["thread"].startswith("hurlbat_")
    assert seen["opened"]


def test_failures_and_batches_end_as_they_must(worker: Worker) -> None:
    third = worker.run("third")
    assert (third["state"], third["output"], third["attempt"]) == ("completed", 3, 3)
    refused = worker.run("refuse", "it")
    assert (refused["state"], refused["attempt"]) == ("failed", 1)
    assert refused["error"]["message"] == "it is out of the question"
    task = f"{worker.kind.name}.where-sync"
    many = worker.stand.api.call("POST", "/runs/bulk", {"runs": [{"task": task}] * 40})
    ends = [worker.stand.api.ended(one["id"])["state"] for one in many["results"]]
    assert ends == ["completed"] * 40


def test_a_cancelled_run_stops(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = worker.hold(gate)
    worker.stand.api.call("POST", f"/runs/{run}/cancel")
    worker.process.until(cancelled(gate).exists, "end of the cancelled task")
    assert worker.stand.api.ended(run)["state"] == "cancelled"


def test_the_app_answers_while_a_run_goes_on(worker: Worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = worker.hold(gate)
    prefix = worker.kind.path.rstrip("/").removesuffix("/hurlbat")
    assert httpx.get(f"{worker.process.url}{prefix}/", timeout=60).status_code == 200
    gate.touch()
    ended = worker.stand.api.ended(run)
    assert (ended["state"], ended["output"], ended["attempt"]) == ("completed", "let go", 1)


def test_it_conforms(worker: Worker) -> None:
    report = conform(f"{worker.process.url}{worker.kind.path}", SECRET, timeout=60, skip=("sizes",))
    assert [(finding.check, finding.seen) for finding in report.failed] == []


# -- the end of the process --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [THREADS, SYNC], ids=["threads", "sync"])
def test_gunicorn_stops_at_once_and_its_runs_are_reported(
    stand: Stand, tmp_path: Path, command: tuple[str, ...]
) -> None:
    kind = Kind("stopping", command, "flask_app")
    process = kind.start(stand, HURLBAT_GRACE="60")
    stand.register(process, kind.name)
    gate = tmp_path / "gate"
    run = Worker(kind, stand, process).hold(gate)
    process.signal(signal.SIGTERM)
    until(lambda: _answer_ended(stand, run), "end of the answer")
    gate.touch()
    ended = stand.api.ended(run)
    assert (ended["state"], ended["output"], ended["attempt"]) == ("completed", "let go", 1)
    assert process.wait() == 0
    stand.api.call("DELETE", "/workers/stopping", status=204)


def test_a_run_that_does_not_end_within_the_grace_is_given_back(stand: Stand, tmp_path: Path) -> None:
    kind = Kind("stopping", THREADS, "flask_app")
    process = kind.start(stand, HURLBAT_GRACE="0.1")
    stand.register(process, kind.name)
    run = Worker(kind, stand, process).hold(tmp_path / "gate")
    process.signal(signal.SIGTERM)
    ended = stand.api.ended(run)
    assert (ended["state"], ended["error"]["type"]) == ("failed", "worker_stopped")
    assert process.wait() == 0
    stand.api.call("DELETE", "/workers/stopping", status=204)


def _answer_ended(stand: Stand, run: str) -> bool:
    attempt = stand.api.call("GET", f"/runs/{run}/attempts/1")
    return attempt["request"] is not None and attempt["state"] == "running"  # it is shown when its delivery is over
