"""The pages on ASGI frameworks, done as they stand: each app is started by its own command, and is a worker in full."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import pytest

from hurlbat import wire
from hurlbat_app.conform import conform
from tests.docs.pages import Block, blocks
from tests.e2e.stage import SECRET, until
from tests.frameworks.stand import Stand
from tests.sdk.exchange import a_run, signed
from tests.support import warm
from tests.support.ports import free_port
from tests.support.processes import ROOT, Server

FOLDER = ROOT / "docs" / "frameworks"
INDEX = ROOT / "docs" / "frameworks.md"
ORM = """

from django.db import connection
from asgiref.sync import sync_to_async
from orders.models import Order

used = []


def use() -> int:
    count = Order.objects.count()
    used.append(connection.connection)
    return count


@hurlbat.task(name="orm.sync")
def count_orders() -> int:
    return use()


@hurlbat.task(name="orm.async")
async def count_orders_async() -> int:
    found = await Order.objects.acount()
    assert found == await sync_to_async(use)()
    return found


@hurlbat.task(name="orm.open")
async def still_open() -> int:
    def is_open(kept: object) -> bool:
        try:
            kept.execute("SELECT 1")
        except Exception:
            return False
        return True

    return sum(map(is_open, used))
"""
"""Tasks that use Django's ORM, and one that tells how many of the connections they used are open."""
CONFORMING = """
from pathlib import Path
import asyncio, os

from {module} import {app} as app, hurlbat
from hurlbat import conformance

conformance.serve(hurlbat)


@hurlbat.task(name="gate.{name}")
async def gate(name: str) -> str:
    folder = Path(os.environ["GATES"])
    (folder / f"{{name}}.reached").touch()
    while not (folder / f"{{name}}.open").exists():
        await asyncio.sleep(0.01)
    return "passed"
"""
"""The page's app with tasks for these tests, which end when a file appears."""


@dataclass
class Page:
    """A page's files in a folder, and its commands with a port of their own."""

    path: Path
    folder: Path
    env: dict[str, str]
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.env = self.env | {
            "PYTHONPATH": f"{ROOT}:{self.folder}",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # what plugins there are here is not the page's
            "GATES": str(self.folder),
            "HURLBAT_GRACE": "25",
        }

    @property
    def name(self) -> str:
        """What its worker is called."""
        return self.path.stem

    @property
    def url(self) -> str:
        """Where its worker is."""
        return f"http://127.0.0.1:{self.port}/hurlbat"

    def save(self, file: str | None, text: str) -> None:
        """Save a file of the page."""
        assert file is not None, f"a block of {self.path.name} does not say which file it is:\n{text}"
        place = self.folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def run(self, line: str) -> str:
        """Run a command of the page and return what it printed."""
        command = shlex.split(line.replace("8000", str(self.port)))
        match command:
            case ["pip", "install", *wanted]:
                assert [distribution(one.partition("[")[0]) for one in wanted]
                return ""
            case ["hurlbat", *arguments]:
                command = [sys.executable, "-m", "hurlbat_app.cli.main", *arguments]
            case ["python", "manage.py", *arguments]:
                command = [sys.executable, "-m", "manage", *arguments]
            case ["django-admin", *arguments]:
                command = [sys.executable, "-m", "django", *arguments]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | self.env
        if command[1:2] == ["-m"]:
            done = warm.run(command, env, self.folder, "")
        else:
            done = subprocess.run(["bash", "-c", shlex.join(command)], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, stand: Stand, line: str) -> Server:
        """Start the web server of the page, with tasks for these tests beside those of the page."""
        words = shlex.split(line.removesuffix("&").replace("8000", str(self.port)))
        [target] = [word for word in words if ":" in word and not word[0].isdigit()]
        module, _, app = target.partition(":")
        more = ORM if self.name == "django" else ""
        self.save(f"conforming_{app}.py", CONFORMING.format(module=module, app=app, name=self.name) + more)
        command = [f"conforming_{app}:app" if word == target else word for word in words]
        started = stand.processes.listen(command, self.port, **(stand.settings | self.env))
        started.answers(self.url, below=300)
        return started

    def gate(self, name: str) -> "Gate":
        """Return what a task of these tests waits for."""
        return Gate(self.folder, name)


@dataclass(frozen=True)
class Gate:
    """Where a task waits."""

    folder: Path
    name: str

    def reached(self) -> bool:
        """Return whether the task has begun."""
        return (self.folder / f"{self.name}.reached").exists()

    def open(self) -> None:
        """Let the task end."""
        (self.folder / f"{self.name}.open").touch()


@pytest.mark.parametrize("name", ["starlette", "fastapi", "litestar", "quart", "django"])
def test_a_page_makes_a_worker_from_its_first_command_to_its_stop(name: str, stand: Stand, tmp_path: Path) -> None:
    page = Page(FOLDER / f"{name}.md", tmp_path, stand.settings | {"HURLBAT_WORKER": name})
    try:
        server = follow(page, stand)
        assert_both_slashes_are_its_own(page)
        assert_streams_as_it_goes(page)
        assert_conforms(page)
        if name == "django":
            assert_closes_the_connections_of_its_tasks(stand)
        assert_stops_without_losing_a_run(page, stand, server)
    finally:
        stand.api.send("DELETE", f"/workers/{name}")


def follow(page: Page, stand: Stand) -> Server:
    """Do what the page says, block by block, and return the web server that it has started."""
    server: Server | None = None
    for block in blocks(page.path, "python", "sh"):
        if "WSGI" in heading_of(page.path, block):
            continue
        if block.language == "python":
            page.save(block.file, block.text)
            continue
        for line in block.text.splitlines():
            if line.startswith("export "):
                variable, _, value = line.removeprefix("export ").partition("=")
                page.env[variable] = value.replace("8000", str(page.port))
            elif line.startswith("echo "):
                subprocess.run(["bash", "-c", line], cwd=page.folder, check=True)
            elif line.endswith(" &"):
                server = page.start(stand, line)
                stand.until_ready(page.name, server)
            else:
                printed = page.run(line)
                assert "completed after" in printed or "hurlbat run" not in line, printed
    for test in page.folder.glob("test_*.py"):
        page.run(f"{sys.executable} -m pytest -q -p no:cacheprovider {test.name}")
    assert server is not None
    return server


def heading_of(page: Path, block: Block) -> str:
    """Return the heading that a block stands below."""
    above = page.read_text().splitlines()[: block.line - 1]
    return next((line for line in reversed(above) if line.startswith("## ")), "")


def assert_both_slashes_are_its_own(page: Page) -> None:
    for url in (page.url, f"{page.url}/"):
        answer = httpx.post(url, content=b"{}", timeout=60, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "signature_refused"), url
        assert answer.headers["hurlbat-worker"], url


def assert_streams_as_it_goes(page: Page) -> None:
    """Hand it several runs, see them begin and be alive, let one end and cancel one."""
    passing, stopped = page.gate("passing"), page.gate("stopped")
    runs = [
        a_run(f"gate.{page.name}", "passing", run_id="passing"),
        a_run(f"gate.{page.name}", "stopped", run_id="stopped"),
        a_run("conform.fail", {"message": "no"}, run_id="failing"),
        a_run("conform.echo", "é", run_id="echoing"),
    ]
    told = (page.name, page.url, "2026-11-21T12:00:00.000Z")
    body = wire.deliver_body(*told, runs, heartbeat=0.05)
    lines: dict[str, Any] = {}
    with (
        # hypercorn, which Quart's page starts, speaks HTTP/2 as well
        httpx.Client(trust_env=False, timeout=60, http1=page.name != "quart", http2=page.name == "quart") as client,
        client.stream("POST", page.url, content=body, headers=signed(body, keys=[SECRET])) as answer,
    ):
        assert (answer.status_code, answer.headers["content-type"]) == (200, wire.STREAM_TYPE)
        assert answer.http_version == ("HTTP/2" if page.name == "quart" else "HTTP/1.1")
        coming = (json.loads(line) for line in answer.iter_lines())
        # all begin, those that can end do, and the connection is alive while two are at work
        for wanted in (*(f"{run.run_id} started" for run in runs), "failing failed", "echoing completed", "heartbeat"):
            await_line(coming, lines, wanted)
        until(lambda: passing.reached() and stopped.reached(), "two runs at work")
        passing.open()
        assert await_line(coming, lines, "passing completed")["output"] == "passed"
        body = wire.cancel_body(*told, [("stopped", 1, "asked by a user")])
        headers = signed(body, keys=[SECRET])
        said = httpx.post(page.url, content=body, headers=headers, timeout=60, trust_env=False).json()
        assert said == {"runs": [{"run_id": "stopped", "attempt": 1, "status": "stopped"}]}
        assert await_line(coming, lines, "stopped failed")["error"]["type"] == "cancelled"


def await_line(coming: Iterator[dict[str, Any]], lines: dict[str, Any], wanted: str) -> Any:
    """Return the line that says this of a run, keeping those that come before it."""
    while wanted not in lines:
        line = next(coming, None)
        assert line is not None, f"the stream ended without {wanted!r}: {lines}"
        said = line.get("state", line["type"])
        lines[f"{line['run_id']} {said}" if "run_id" in line else said] = line
    return lines[wanted]


def assert_conforms(page: Page) -> None:
    report = conform(page.url, SECRET, worker=page.name, timeout=60, skip=("sizes",))
    assert [(finding.check, finding.seen) for finding in report.failed] == []
    assert len(report.passed) > 40, report.summary


def assert_closes_the_connections_of_its_tasks(stand: Stand) -> None:
    assert [stand.api.run(task)["output"] for task in ("orm.sync", "orm.async", "orm.open")] == [1, 1, 0]


def assert_stops_without_losing_a_run(page: Page, stand: Stand, server: Server) -> None:
    """Stop it while a task is at work, which ends after that and still reports."""
    gate = page.gate("stopping")
    run = stand.api.submit(f"gate.{page.name}", "stopping")
    until(gate.reached, "a run at work")
    server.signal(signal.SIGTERM)
    until(lambda: not is_answered(page.url), "end of its listening")
    gate.open()
    ended = stand.api.ended(run["id"])
    assert (ended["state"], ended["output"], ended["attempt"]) == ("completed", "passed", 1), ended
    server.wait()


def is_answered(url: str) -> bool:
    """Return whether a request is answered soon: who stops takes connections in, and says nothing for its grace."""
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


WEB_SERVERS = [block for block in blocks(INDEX, "sh") if "main:app" in block.text]


@pytest.mark.parametrize("block", WEB_SERVERS, ids=lambda block: block.text.split()[0])
def test_a_web_server_of_the_index_serves_the_worker_as_it_is_started_there(
    block: Block, stand: Stand, tmp_path: Path
) -> None:
    name = f"of-{block.text.split()[0]}"
    page = Page(FOLDER / "fastapi.md", tmp_path, stand.settings | {"HURLBAT_WORKER": name})
    page.env["HURLBAT_PUBLIC_URL"] = page.url
    for python in blocks(page.path, "python"):
        page.save(python.file, python.text)
    try:
        server = page.start(stand, block.text.strip())
        stand.until_ready(name, server)
        assert_both_slashes_are_its_own(page)
        runs = [stand.api.submit("conform.echo", number) for number in range(5)]
        assert [stand.api.ended(run["id"])["output"] for run in runs] == list(range(5))
        assert_stops_without_losing_a_run(page, stand, server)
    finally:
        stand.api.send("DELETE", f"/workers/{name}")


def test_a_reload_loses_no_run_and_brings_the_new_task_along(stand: Stand, tmp_path: Path) -> None:
    page = Page(FOLDER / "fastapi.md", tmp_path, stand.settings | {"HURLBAT_WORKER": "reloaded"})
    page.env["HURLBAT_PUBLIC_URL"] = page.url
    for python in blocks(page.path, "python"):
        page.save(python.file, python.text)
    try:
        server = page.start(stand, f"uvicorn main:app --port 8000 --reload --reload-dir {tmp_path}")
        stand.until_ready("reloaded", server)
        gate = page.gate("changed")
        run = stand.api.submit(f"gate.{page.name}", "changed")
        until(gate.reached, "a run at work")
        with (tmp_path / "main.py").open("a") as main:
            main.write("\n\n@hurlbat.task\nasync def grown(input: int) -> int:\n    return input + 1\n")
        until(lambda: not is_answered(page.url), "end of the old code")
        gate.open()
        ended = stand.api.ended(run["id"])
        assert (ended["state"], ended["attempt"]) == ("completed", 1), ended
        until(lambda: "grown" in stand.api.call("GET", "/workers/reloaded")["tasks"], "task of the new code")
        assert stand.api.run("grown", 1)["output"] == 2
        server.terminate()
    finally:
        stand.api.send("DELETE", "/workers/reloaded")


def test_the_server_to_try_with_is_started_as_the_index_says(tmp_path: Path) -> None:
    install, started = blocks(INDEX, "sh")[:2]
    assert install.text == "pip install 'hurlbat[server]'\n"
    port = free_port()
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HURLBAT_PORT": str(port)}
    ready = f"until curl -sf http://127.0.0.1:{port}/health/ready; do kill -0 $!; sleep 0.2; done"
    script = f"set -e\n{started.text}trap 'kill %1; wait' EXIT\n{ready}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_index_names_three_web_servers() -> None:
    assert [block.text.split()[0] for block in WEB_SERVERS] == ["uvicorn", "hypercorn", "granian"]
