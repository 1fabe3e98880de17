"""The page on the HTTP API: its commands are run as they are printed, in order, against a real server."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.pages import blocks
from tests.support.processes import ROOT, TOKEN, Processes

PAGE = ROOT / "docs" / "api.md"
WORKER = """
import json

async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    name = json.loads(body)["data"]["runs"][0]["input"]["name"] if body else "nobody"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(f"Hello, {name}!").encode()})
"""


@pytest.fixture
def answers(processes: Processes, tmp_path: Path, made_sqlite_url: str) -> list[Any]:
    """What every command of the page was answered, in order; None for no content."""
    (tmp_path / "greeter.py").write_text(WORKER)
    worker = processes.app("greeter:app", PYTHONPATH=str(tmp_path)).url
    server = processes.serve(made_sqlite_url)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as api:
        spec = {"name": "greeter", "url": f"{worker}/", "mode": "plain", "tasks": [{"name": "greet"}]}
        assert api.post("/workers", json=spec).status_code == 201
        run = api.post("/runs", json={"task": "greet", "delay": 3600}).json()["id"]
    marked = [f"{line}\necho" for block in blocks(PAGE, "sh") for line in block.text.splitlines()]
    script = "\n".join(["set -e", *marked]).replace("http://127.0.0.1:8000", worker)
    env = {"PATH": "/usr/bin:/bin", "HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN, "RUN": run}
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, check=True)
    commands = [line for block in blocks(PAGE, "sh") for line in block.text.splitlines() if line.startswith("api ")]
    said = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert len(said) == len(commands) - 3  # what is removed has no content
    return said


def test_every_command_is_answered_as_the_page_says(answers: list[Any]) -> None:
    submitted, waited, first, again, bulk, shown, listed, second, *later = answers
    explained, moved, cancelled, replayed, dry, begun, nothing, operations, *rest = later
    added, _, changed, paused, resumed, synced, rotated, task, *flows = rest
    made, workflows, run, nodes, redone, *limits = flows

    assert (submitted["task"], waited["output"]) == ("greet", "Hello, Grace!")
    assert first["id"] == again["id"]
    assert [result.get("code") for result in bulk["results"]] == [None, "task_unknown"]
    assert shown["timeline"][0]["kind"] == "created"
    assert 1 <= len(listed["items"]) <= 2
    assert len(second["items"]) == 2
    assert explained["summary"]
    assert (moved["priority"], moved["timeline"][-1]["kind"]) == (3, "moved")
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "withdrawn")
    assert replayed["state"] in ("queued", "running")
    assert (dry.keys(), begun["kind"], nothing["matched"]) == ({"matched"}, "cancel", 0)
    assert [one["id"] for one in operations["items"]] == [nothing["id"], begun["id"]]
    assert added["secret"].startswith("whsec_")
    assert (changed["slots"], paused["state"], resumed["state"]) == (20, "paused", "unverified")
    assert synced["state"] == "unverified"
    assert (rotated["secret"] != added["secret"], len(rotated["keys"])) == (True, 2)
    assert (task["retries"], task["workers"]) == (3, ["mailer"])
    assert (made["name"], made["unserved"], workflows["items"]) == ("welcome", [], [made])
    assert (run["state"], run["output"]) == ("completed", {"again": "Hello, Ada!"})
    assert [node["state"] for node in run["nodes"]] == ["completed", "completed"]
    assert [one["node"] for one in nodes["items"]] == ["again", "greet"]
    assert (redone["id"], redone["kind"]) == (run["id"], "workflow")
    put, static, dynamic, held, freed, paused_task, resumed_task = limits
    assert (put["limit"], static["items"], dynamic["items"]) == (10, [put], [])
    assert [one["paused"] for one in (held, freed, paused_task, resumed_task)] == [True, False, True, False]
