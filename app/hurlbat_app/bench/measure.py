"""One measurement: start server, worker and clients, load them, wait for the last result, and count."""

import json
import os
import platform
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import httpx

from hurlbat.signing import new_secret
from hurlbat_app.bench import figures
from hurlbat_app.bench.client import Load
from hurlbat_app.bench.watch import Cpu, cpu_seconds, sampled_memory
from hurlbat_app.local import Access, Local, LocalFailure, local_server, local_worker

WARM_UP_RUNS = 1_000
IDLE_RUNS = 300
PAGE = 1_000
POLL_SECONDS = 0.1
STALLED_SECONDS = 60.0
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


class BenchFailure(Exception):
    """The measurement could not be made; the message says why."""


def measure(plan: Plan, folder: Path, say: Callable[[str], None]) -> figures.Report:
    """Make one measurement with all files in the folder; `say` hears what goes on."""
    access = Access.new()
    task = f"bench-{secrets.token_hex(4)}"
    secret = new_secret()
    log = folder / "starts"
    log.touch()
    worker_env = {
        "HURLBAT_BENCH_LOG": str(log),
        "HURLBAT_BENCH_TASK": task,
        "HURLBAT_BENCH_DELIVERY": str(plan.delivery),
        "HURLBAT_SIGNING_SECRET": secret,
    }
    try:
        with ExitStack() as stack:
            worker = stack.enter_context(local_worker(folder, "hurlbat_app.bench.worker:app", env=worker_env))
            servers = [stack.enter_context(local_server(folder, plan.database, access)) for _ in range(plan.servers)]
            api = stack.enter_context(
                httpx.Client(base_url=servers[0].url, headers=access.headers, timeout=120, trust_env=False)
            )
            bench = _Bench(plan, api, servers, worker, task, access)
            bench.register(f"{worker.url}/hurlbat/", secret)
            stack.callback(bench.unregister)
            counted = bench.run(say)
    except (LocalFailure, httpx.HTTPError) as failure:
        raise BenchFailure(str(failure)) from failure
    started = figures.read_log(log.read_text().splitlines())
    return figures.Report(
        runs_per_second=round(plan.runs / counted.seconds, 1),
        submit_ms=figures.percentiles([took / figures.NS_PER_MS for took in counted.load["took_ns"]]),
        start_ms=figures.percentiles(
            figures.start_latencies(counted.idle["ids"], counted.idle["began_ns"], started) or [0.0]
        ),
        idle_submit_ms=figures.percentiles([took / figures.NS_PER_MS for took in counted.idle["took_ns"]]),
        lost=figures.lost(counted.acknowledged, started, counted.stored),
        duplicates=figures.duplicates(started),
        refused=counted.load["refused"],
        cpu_us_per_run=counted.cpu,
        memory_mb=figures.memory(counted.memory) if counted.memory else None,
        versions=_versions(),
        settings=asdict(plan) | {"database": _without_password(plan.database), "cores": os.cpu_count()},
    )


@dataclass(slots=True)
class _Counted:
    idle: dict[str, Any]
    load: dict[str, Any]
    acknowledged: list[str]
    stored: list[str]
    seconds: float
    cpu: Cpu
    memory: list[tuple[float, float]]


class _Bench:
    """The course of one measurement against a running server."""

    def __init__(
        self, plan: Plan, api: httpx.Client, servers: Sequence[Local], worker: Local, task: str, access: Access
    ) -> None:
        self._plan = plan
        self._api = api
        self._servers = servers
        self._worker = worker
        self._task = task
        self._token = access.token

    def register(self, url: str, secret: str) -> None:
        spec = {"name": self._task, "url": url, "slots": self._plan.slots, "secret": secret}
        worker = self._call("POST", "/workers", json=spec)
        if worker["state"] != "ready":
            raise BenchFailure(f"the worker is {worker['state']}: {worker['problem']}")
        for server in self._servers:  # each hears of it on its own
            deadline = time.monotonic() + KNOWN_SECONDS
            while self._api.get(f"{server.url}/tasks/{self._task}").status_code != 200:
                if time.monotonic() > deadline:
                    raise BenchFailure(f"a server has not heard of the task after {KNOWN_SECONDS:g} s")
                time.sleep(POLL_SECONDS)

    def unregister(self) -> None:
        self._call("DELETE", f"/workers/{self._task}")

    def run(self, say: Callable[[str], None]) -> _Counted:
        plan = self._plan
        warm = self._submit(WARM_UP_RUNS, "single")
        self._drained()
        say(f"idle: {IDLE_RUNS} runs, one at a time")
        idle = self._submit(IDLE_RUNS, "idle")
        self._drained()
        say(f"load: {plan.runs:,} runs, {plan.clients} clients")
        before = self._used()
        with sampled_memory(self._servers[0].process.pid, plan.memory) as memory:
            load = self._submit(plan.runs, plan.submit)
            self._drained()
        seconds = [after - used for after, used in zip(self._used(), before, strict=True)]
        cpu = Cpu(*(round(each / plan.runs * 1e6, 1) for each in (*seconds, load["cpu_seconds"])))
        say("counting")
        measured = set(load["ids"])
        stored, last = [], 0.0
        for run in self._completed():
            stored.append(run["id"])
            if run["id"] in measured:
                last = max(last, datetime.fromisoformat(run["finished_at"]).timestamp())
        took = max(last - min(load["began_ns"]) / 1e9, 1e-3)
        acknowledged = warm["ids"] + idle["ids"] + load["ids"]
        return _Counted(idle, load, acknowledged, stored, took, cpu, memory)

    def _used(self) -> tuple[float, float]:
        """Return the CPU seconds of all servers, and of the worker."""
        return sum(cpu_seconds(one.process.pid) for one in self._servers), cpu_seconds(self._worker.process.pid)

    def _submit(self, runs: int, submit: Literal["single", "bulk", "idle"]) -> dict[str, Any]:
        batch = self._plan.batch if submit == "bulk" else 1
        load = Load(
            [server.url for server in self._servers], self._token, self._task, runs, submit, self._plan.clients, batch
        )
        command = [sys.executable, "-m", "hurlbat_app.bench.client", json.dumps(asdict(load))]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise BenchFailure(f"the client failed:\n{done.stderr.decode(errors='replace')[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def _drained(self) -> None:
        """Wait until no run of ours is running or queued.

        Polls seldom, as the server has better things to do, and asks for queued runs only when none is running.
        """
        newest, moved = "", time.monotonic()
        while True:
            waiting = self._list("running", 1)["items"] or self._list("queued", 1)["items"]
            if not waiting:
                return
            seen = json.dumps([waiting, self._list("completed", 1)["items"]])
            if seen != newest:
                newest, moved = seen, time.monotonic()
            elif time.monotonic() - moved > STALLED_SECONDS:
                raise BenchFailure(f"nothing has moved for {STALLED_SECONDS:g} s; one that waits: {waiting[0]}")
            time.sleep(POLL_SECONDS)

    def _completed(self) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._list("completed", PAGE, cursor)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _list(self, state: str, limit: int, cursor: str | None = None) -> dict[str, Any]:
        query = {"task": self._task, "state": state, "limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        return self._call("GET", "/runs", params=query)

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = self._api.request(method, path, **more)
        if answer.is_error:
            raise BenchFailure(f"{method} {path} was answered {answer.status_code}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found


def _without_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
