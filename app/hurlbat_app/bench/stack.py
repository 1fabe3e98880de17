"""What a bench measures: a server on a database, or several, and a worker that is registered there."""

import json
import os
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import httpx

from hurlbat.signing import new_secret
from hurlbat_app.bench.client import Load
from hurlbat_app.bench.watch import cpu_seconds, resident_mib
from hurlbat_app.local import Access, Local, LocalFailure, local_server, local_worker

POLL_SECONDS = 0.1
KNOWN_SECONDS = 30.0
LIBRARIES = ("hurlbat", "aiohttp", "aiosqlite", "asyncpg", "httptools", "sqlalchemy", "starlette", "uvicorn", "uvloop")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `batch` is runs in a bulk submit, `delivery` the most runs in one request to the worker."""

    database: str
    runs: int = 20_000
    submit: Literal["single", "bulk"] = "single"
    batch: int = 100
    clients: int = 128
    delivery: int = 16
    slots: int = 2_000
    servers: int = 1
    memory: bool = False

    def settings(self) -> dict[str, Any]:
        """Return what a report tells of it."""
        shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", self.database)
        return asdict(self) | {"database": shown, "cores": os.cpu_count()}


@dataclass(frozen=True, slots=True)
class Other:
    """A worker that somebody runs, in any language: where it is, its signing secret, and the task that is measured."""

    url: str
    secret: str = field(repr=False)
    task: str


class BenchFailure(Exception):
    """The measurement could not be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The running processes. `log` has a line for each start of `task`; `held_log` one for each of `held_task`.

    Where the worker is somebody else's there is no process of ours, and nothing is written down.
    """

    plan: Plan
    task: str
    api: httpx.Client
    servers: Sequence[Local]
    worker: Local | None
    access: Access
    log: Path
    name: str

    @property
    def held_task(self) -> str:
        """The task that has rules, if the worker was given one."""
        return f"{self.task}-held"

    @property
    def held_log(self) -> Path:
        """Where its starts are written down."""
        return self.log.with_name("held")

    @property
    def stopped_log(self) -> Path:
        """Where it is written down which of its runs were cancelled while they ran."""
        return self.log.with_name("stopped")

    def register(self, url: str, secret: str) -> None:
        """Register the worker, and wait until every server has heard of it."""
        spec = {"name": self.name, "url": url, "slots": self.plan.slots, "secret": secret}
        worker = self.call("POST", "/workers", json=spec)
        if worker["state"] != "ready":
            raise BenchFailure(f"the worker is {worker['state']}: {worker['problem']}")
        if self.task not in worker["tasks"]:
            served = ", ".join(worker["tasks"]) or "none"
            raise BenchFailure(f"the worker has no task {self.task}, but {served}; name one of its own with --task")
        for server in self.servers:  # each hears of it on its own
            deadline = time.monotonic() + KNOWN_SECONDS
            while self.api.get(f"{server.url}/tasks/{self.task}").status_code != 200:
                if time.monotonic() > deadline:
                    raise BenchFailure(f"a server has not heard of the task after {KNOWN_SECONDS:g} s")
                time.sleep(POLL_SECONDS)

    def unregister(self) -> None:
        """Take the worker off again."""
        self.call("DELETE", f"/workers/{self.name}")

    def kill(self) -> None:
        """End all processes at once: no draining, no handing over."""
        for local in filter(None, (*self.servers, self.worker)):
            local.process.kill()

    def submit(self, runs: int, submit: Literal["single", "bulk", "idle"]) -> dict[str, Any]:
        """Submit so many runs of the task by a process of its own; return the fields of `Done`."""
        batch = self.plan.batch if submit == "bulk" else 1
        load = Load(
            [server.url for server in self.servers],
            self.access.token,
            self.task,
            runs,
            submit,
            self.plan.clients,
            batch,
        )
        command = [sys.executable, "-m", "hurlbat_app.bench.client", json.dumps(asdict(load))]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise BenchFailure(f"the client failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise BenchFailure(f"the client ended amid its answer: {error}") from error
        return found

    def completed(self, page: int = 1_000) -> Iterator[dict[str, Any]]:
        """Yield the task's completed runs, the newest first."""
        cursor = None
        while True:
            found = self.list("completed", page, cursor)
            yield from found["items"]
            cursor = found["next_cursor"]
            if cursor is None:
                return

    def list(self, state: str, limit: int, cursor: str | None = None, *, task: str | None = None) -> dict[str, Any]:
        """Return the next runs of a task in a state: none only where there are no more."""
        query = {"task": task or self.task, "state": state, "limit": str(limit)}
        while True:
            found = self.call("GET", "/runs", params=query | ({"cursor": cursor} if cursor else {}))
            cursor = found["next_cursor"]
            if found["items"] or cursor is None:
                return found

    def call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Ask the first server. Raises `BenchFailure` for an error."""
        answer = self.api.request(method, path, **more)
        if answer.is_error:
            raise BenchFailure(f"{method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def used(self) -> tuple[float, float]:
        """Return the CPU seconds of all servers, and of the worker, which are 0 where it is somebody else's."""
        worker = cpu_seconds(self.worker.process.pid) if self.worker else 0.0
        return sum(cpu_seconds(one.process.pid) for one in self.servers), worker

    def resident(self) -> float:
        """Return the resident memory of the largest server in MiB."""
        return round(max(resident_mib(one.process.pid) for one in self.servers), 1)


@contextmanager
def running(
    plan: Plan,
    folder: Path,
    *,
    held: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    other: Other | None = None,
) -> Iterator[Stack]:
    """Run servers and a worker with all files in the folder, the worker registered with all.

    `held` is the policy of a second task; `env` more of the servers' settings; `other` a worker that somebody runs, in
    the place of ours. Raises `BenchFailure`.
    """
    access, name, log = Access.new(), f"bench-{secrets.token_hex(4)}", folder / "starts"
    log.touch()
    # whoever names a worker wants it to be called, wherever it is
    settings = {**(env or {}), **({"HURLBAT_ALLOWED_NETWORKS": "0.0.0.0/0,::/0"} if other else {})}
    try:
        with ExitStack() as stack:
            worker = None
            if other is None:
                worker, other = _own_worker(stack, plan, folder, name, held)
            servers = [
                stack.enter_context(local_server(folder, plan.database, access, env=settings))
                for _ in range(plan.servers)
            ]
            api = stack.enter_context(
                httpx.Client(base_url=servers[0].url, headers=access.headers, timeout=120, trust_env=False)
            )
            made = Stack(plan, other.task, api, servers, worker, access, log, name)
            made.register(other.url, other.secret)
            yield made
    except (LocalFailure, httpx.HTTPError) as failure:
        raise BenchFailure(str(failure)) from failure


def _own_worker(
    stack: ExitStack, plan: Plan, folder: Path, task: str, held: Mapping[str, Any] | None
) -> tuple[Local, Other]:
    secret = new_secret()
    env = {
        "HURLBAT_BENCH_LOG": str(folder / "starts"),
        "HURLBAT_BENCH_TASK": task,
        "HURLBAT_BENCH_DELIVERY": str(plan.delivery),
        "HURLBAT_SIGNING_SECRET": secret,
    }
    if held is not None:
        env["HURLBAT_BENCH_HELD"] = json.dumps(held)
    worker = stack.enter_context(local_worker(folder, "hurlbat_app.bench.worker:app", env=env))
    return worker, Other(f"{worker.url}/hurlbat/", secret, task)


def versions() -> dict[str, str]:
    """Return the versions of Python and of what is on the hot path."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
