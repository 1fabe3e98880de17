"""What the stories have at hand: a server's API as any HTTP client sees it, the worker's own log, and patience."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from tests.api.contract import sync_contract_hook
from tests.support.ports import free_port
from tests.support.processes import TOKEN, Process, Processes, Server
from tests.support.stands import UNHURRIED

SECRET = "whsec_ZTJlLXNlY3JldC1lMmUtc2VjcmV0LWUyZS1zZWNyZXQ="
PATIENCE = 60.0
POLL = 0.02
WORKER = "tests.e2e.worker_app:app"
PLAIN_WORKER = Path(__file__).with_name("plain_worker.py")
PLAIN_TASKS = ("double", "text", "empty", "slow", "busy-at-first", "never", "break", "reported")
FAULTS = ("Traceback", "a delivery failed", "an operation failed", "a background duty failed", "Task exception")
"""What no log of a server may hold."""

Object = dict[str, Any]


def until(true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"no {what} within {seconds:g} s"
        time.sleep(POLL)


class Api:
    """One server over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {TOKEN}"},
            timeout=2 * PATIENCE,
            trust_env=False,
            verify=False,  # to load what TLS needs takes 20 ms, and there is none
            event_hooks={"response": [sync_contract_hook]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, method: str, path: str, body: Any = None, **query: Any) -> httpx.Response:
        """Send a request and return whatever comes."""
        return self._client.request(method, path, json=body, params=query or None)

    def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **query: Any) -> Any:
        """Send a request that must be answered by this status; return the body."""
        response = self.send(method, path, body, **query)
        assert response.status_code == status, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None

    def run(self, task: str, input: Any = None, **more: Any) -> Object:
        """Submit a run and wait for its end."""
        found: Object = self.call("POST", "/runs", {"task": task, "input": input, **more}, wait=PATIENCE)
        return found

    def submit(self, task: str, input: Any = None, *, status: int = 201, **more: Any) -> Object:
        """Submit a run, and do not wait."""
        found: Object = self.call("POST", "/runs", {"task": task, "input": input, **more}, status=status)
        return found

    def show(self, run_id: str) -> Object:
        """Return a run as it is now."""
        found: Object = self.call("GET", f"/runs/{run_id}")
        return found

    def ended(self, run_id: str, seconds: float = PATIENCE) -> Object:
        """Return a run when it has ended."""
        deadline = time.monotonic() + seconds
        found: Object = self.call("GET", f"/runs/{run_id}", wait=min(seconds, PATIENCE))
        while not found["finished_at"] and time.monotonic() < deadline:
            found = self.call("GET", f"/runs/{run_id}", wait=PATIENCE)
        assert found["finished_at"], f"not ended within {seconds:g} s: {found}"
        return found

    def until_state(self, run_id: str, state: str, seconds: float = PATIENCE) -> Object:
        """Return a run when it has this state."""
        until(lambda: self.show(run_id)["state"] == state, f"{state} run {run_id}", seconds)
        return self.show(run_id)

    def sent(self, run_id: str, attempt: int = 1) -> Object:
        """Return what was sent for an attempt, when its delivery is over: that may go on when the run has ended."""
        path = f"/runs/{run_id}/attempts/{attempt}"
        until(lambda: self.call("GET", path)["request"] is not None, f"end of the delivery of {run_id}")
        found: Object = self.call("GET", path)["request"]
        return found

    def register(self, worker: Server, name: str = "app", *, path: str = "/hurlbat/", **more: Any) -> Object:
        """Register a worker by name, with the secret that all workers here have."""
        body = {"name": name, "url": f"{worker.url}{path}", "secret": SECRET} | more
        found: Object = self.call("POST", "/workers", body, status=201)
        return found

    def listed(self, **query: Any) -> Iterator[Object]:
        """Walk over all pages of the runs."""
        while True:
            page = self.call("GET", "/runs", **({"limit": 1000} | query))
            yield from page["items"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]


@dataclass(frozen=True)
class Journal:
    """What the worker app has noted: each start, and each cancellation that reached a task."""

    path: Path

    def entries(self, run_id: str | None = None) -> list[Object]:
        """Return the lines, in order, of one run or of all."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        found: list[Object] = [json.loads(line) for line in lines]
        return [entry for entry in found if run_id is None or entry["run_id"] == run_id]

    def events(self, run_id: str) -> list[str]:
        """Return what happened to one run."""
        return [entry["event"] for entry in self.entries(run_id)]


def start_worker(processes: Processes, journal: Journal, **more: Any) -> Server:
    """Start the worker app; `more` is a port, or settings for its environment."""
    return processes.app(WORKER, E2E_LOG=str(journal.path), **({"HURLBAT_SIGNING_SECRET": SECRET} | more))


def start_both(processes: Processes, journal: Journal, database_url: str, **env: Any) -> tuple[Server, Server]:
    """Start a server and the worker app at the same time, and wait for both.

    The server is one with long leases, unless `env` says otherwise.
    """
    server = processes.serve(database_url, wait=False, **(UNHURRIED | env))
    worker = start_worker(processes, journal)
    server.answers(f"{server.url}/health/ready", below=300)
    return server, worker


def start_plain_worker(processes: Processes, journal: Journal, api: Api) -> Process:
    """Start the plain worker and register it with its tasks."""
    port = free_port()
    env = {"SIGNING_SECRET": SECRET, "E2E_LOG": str(journal.path)}
    worker = processes.python("plain", str(PLAIN_WORKER), str(port), **env)
    worker.answers(f"http://127.0.0.1:{port}/", below=600)
    tasks = [{"name": f"plain.{task}", "retries": 1, "backoff": {"initial": 0.05}} for task in PLAIN_TASKS]
    spec = {"name": "plain", "url": f"http://127.0.0.1:{port}/", "mode": "plain", "secret": SECRET, "tasks": tasks}
    assert api.call("POST", "/workers", spec, status=201)["state"] == "unverified"
    return worker


def assert_no_faults(process: Process, but: str = "") -> None:
    """Fail when a process has logged an exception or what ought not to happen, `but` for what is expected."""
    found = [fault for fault in FAULTS if fault in process.output and fault != but]
    assert not found, f"{process.name} logged {found}:\n{process.output[-8000:]}"


@dataclass(frozen=True)
class Stage:
    """A server and the worker app, which is registered there."""

    processes: Processes
    folder: Path
    server: Server
    worker: Server
    journal: Journal
    api: Api


@contextmanager
def set_stage(processes: Processes, folder: Path, database_url: str, *, but: str = "", **env: Any) -> Iterator[Stage]:
    """Start a server and a worker, and register it. The server's log must hold no fault at the end, `but` for one."""
    journal = Journal(folder / "journal")
    server, worker = start_both(processes, journal, database_url, **env)
    with Api(server.url) as api:
        assert api.register(worker)["state"] == "ready"
        yield Stage(processes, folder, server, worker, journal, api)
    assert_no_faults(server, but)
