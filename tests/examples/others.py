"""The workers in other languages that are started for the tests, and requests to them as a server would make them."""

import json
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from hurlbat.signing import new_secret, sign
from hurlbat.wire import DeliveredRun, deliver_body
from tests.e2e.stage import Api, Object, assert_no_faults
from tests.support.ports import free_port
from tests.support.processes import LOOPBACK, ROOT, Process, Processes
from tests.support.stands import UNHURRIED
from tests.support.toolchains import go_programs, node, node_project

FOLDER = ROOT / "examples" / "workers"
LANGUAGES = ("node", "go", "python")
KINDS = ("plain", "protocol")
SECRET, OLD_SECRET = new_secret(), new_secret()
RECEIPT = {"order": "o-1", "amount": 12.5}


def command(language: str, kind: str) -> list[str]:
    """Return what starts a worker."""
    match language:
        case "node":
            return [node(), str(node_project(FOLDER / "node") / f"{kind}.js")]
        case "go":
            return [str(go_programs(FOLDER / "go") / kind)]
        case _:
            return [sys.executable, str(FOLDER / "python" / f"{kind}.py")]


def loopback() -> str:
    """Return the loopback address of IPv6, where this machine has it."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return "127.0.0.1"
    return "::1"


@dataclass(frozen=True)
class Other:
    """A worker that runs. `folder` is where a plain one writes its receipts."""

    process: Process
    url: str
    folder: Path

    def post(self, body: bytes, headers: dict[str, str], seconds: float = 60) -> httpx.Response:
        """Post a body and return the whole answer."""
        return httpx.post(self.url, content=body, headers=headers, timeout=seconds, trust_env=False)

    @contextmanager
    def streaming(self, *runs: DeliveredRun, heartbeat: float = 5.0) -> Iterator[Iterator[Object]]:
        """Deliver runs and give the lines of the answer as they come."""
        body = deliver_body("other", self.url, "2030-01-31T12:00:00.000Z", runs, heartbeat=heartbeat)
        with httpx.stream("POST", self.url, content=body, headers=signed(body), timeout=60, trust_env=False) as answer:
            assert answer.status_code == 200
            yield (json.loads(line) for line in answer.iter_lines())


def begin(processes: Processes, language: str, kind: str, folder: Path, host: str = "127.0.0.1", **env: str) -> Other:
    """Start a worker and wait until it answers."""
    port = free_port()
    settings = {"HURLBAT_SIGNING_SECRET": SECRET, "HOST": host, "PORT": str(port), "RECEIPTS": str(folder)} | env
    process = processes.start(f"{language}-{kind}", *command(language, kind), **settings)
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    process.answers(url, below=600)
    return Other(process, url, folder)


def signed(body: bytes, message_id: str | None = None, *, secret: str = SECRET, ago: int = 0) -> dict[str, str]:
    """Return the headers of a request that was signed so many seconds ago."""
    message_id, at = message_id or str(uuid.uuid4()), int(time.time()) - ago
    signature = sign([secret], message_id, at, body)
    given = {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": signature}
    return given | {"content-type": "application/json"}


def run(task: str, input: Any = None) -> DeliveredRun:
    """Return a new run as it is delivered."""
    return DeliveredRun(
        str(uuid.uuid4()), task, 1, 4, json.dumps(input), "{}", 300.0, "token", "http://127.0.0.1:9/none"
    )


@dataclass(frozen=True)
class Stand:
    """A server, and every worker beside it."""

    api: Api
    workers: dict[tuple[str, str], Other]

    @contextmanager
    def registered(self, language: str, kind: str) -> Iterator[Other]:
        """Register one worker for as long as the block lasts: they serve the same tasks."""
        worker = self.workers[language, kind]
        spec: Object = {"name": language, "url": worker.url, "secret": SECRET, "mode": kind}
        if kind == "plain":
            policy = {"name": "write-receipt", "retries": 50, "backoff": {"strategy": "fixed", "initial": 0.05}}
            spec["tasks"] = [policy]
        self.api.call("POST", "/workers", spec, status=201)
        try:
            yield worker
        finally:
            self.api.call("DELETE", f"/workers/{language}", status=204)


@contextmanager
def set_up(processes: Processes, folder: Path, database_url: str) -> Iterator[Stand]:
    """Start a server and the six, on IPv6 where there is one; the server's log must hold no fault at the end."""
    host = loopback()
    server = processes.serve(database_url, wait=False, HURLBAT_ALLOWED_NETWORKS=f"{LOOPBACK},::1/128", **UNHURRIED)
    workers = {}
    for language in LANGUAGES:
        for kind in KINDS:
            rotating = {"HURLBAT_SIGNING_SECRETS": f"{SECRET},{OLD_SECRET}"} if kind == "protocol" else {}
            workers[language, kind] = begin(processes, language, kind, folder / language, host, **rotating)
    server.answers(f"{server.url}/health/ready", below=300)
    with Api(server.url) as api:
        yield Stand(api, workers)
    assert_no_faults(server)
