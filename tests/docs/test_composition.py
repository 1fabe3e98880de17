"""The pages on workflows, children and cancellation: their files are saved and run, their JSON is what servers take."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hurlbat.graph import MAX_CONDITIONS, MAX_LOOK_BACK, MAX_NODES, MAX_SLEEP
from hurlbat_dispatcher.domain.runs import CancelledBy
from tests.docs.pages import blocks, first_column
from tests.e2e.stage import Api
from tests.support.processes import ROOT, TOKEN, Processes

DOCS = ROOT / "docs"
WORKFLOWS, CHILDREN, CANCELLATION = (DOCS / f"{name}.md" for name in ("workflows", "children", "cancellation"))


@pytest.mark.parametrize(
    ("page", "file", "count"),
    [
        (WORKFLOWS, "test_orders.py", 2),
        (CHILDREN, "test_pages.py", 1),
        (CHILDREN, "test_invoices.py", 1),
        (CANCELLATION, "test_cancelling.py", 3),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_the_tests_on_the_page_pass(tmp_path: Path, page: Path, file: str, count: int) -> None:
    for block in blocks(page, "python"):
        assert block.file is not None, f"{page.name}:{block.line} does not say which file it is"
        (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


def test_the_workflow_on_the_page_is_one_that_a_server_takes(processes: Processes, sqlite_url: str) -> None:
    said, trigger, error = (json.loads(block.text) for block in blocks(WORKFLOWS, "json"))
    graph: dict[str, Any] = said.pop("graph")
    name = said.pop("name")
    server = processes.serve(sqlite_url)
    with Api(server.url) as api:
        made = api.call("PUT", f"/workflows/{name}", said | graph, status=201)
    assert [node["name"] for node in made["nodes"]] == ["reserve", "charge", "gift", "ship"]
    assert trigger["type"] == "workflow"
    assert {"code", "type", "message", "node", "run"} == set(error)


def test_the_commands_on_the_page_cancel_a_run(processes: Processes, sqlite_url: str) -> None:
    server = processes.serve(sqlite_url)
    with Api(server.url) as api:
        task = {"name": "greet"}
        spec = {"name": "greeter", "url": "http://127.0.0.1:9/", "mode": "plain", "tasks": [task]}
        api.call("POST", "/workers", spec, status=201)
        run = api.submit("greet", delay=3600)["id"]
    define = next(block.text for block in blocks(DOCS / "ways.md", "sh") if block.text.startswith("api() "))
    [commands] = blocks(CANCELLATION, "sh")
    script = f"set -e\n{define.replace('curl -s ', 'curl -s --fail-with-body ')}{commands.text}"
    env = {"PATH": "/usr/bin:/bin", "HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN, "RUN": run}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"cancelled_by":"request"') == 2


def test_everybody_who_cancels_is_told_once_and_nobody_else() -> None:
    assert sorted(first_column(CANCELLATION, "## Who cancels")) == sorted(CancelledBy)


def test_the_numbers_are_those_of_the_code() -> None:
    section = WORKFLOWS.read_text().split("\n## Numbers\n", 1)[1]
    assert f"| {MAX_NODES:,} |" in section
    assert f"| {MAX_CONDITIONS}, {MAX_CONDITIONS} |" in section
    assert (MAX_SLEEP, MAX_LOOK_BACK) == (365 * 86_400, 86_400)
    assert "a sleep | a year" in section
    assert "a look back | a day" in section
