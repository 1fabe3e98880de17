"""The page on the ways to run: its commands are run as they are printed, in order, against a real server."""

import json
import re
import subprocess
from pathlib import Path

import httpx

from tests.docs.pages import blocks
from tests.docs.test_api import WORKER
from tests.support.processes import ROOT, TOKEN, Processes

PAGE = ROOT / "docs" / "ways.md"


def test_every_command_does_what_the_page_says(processes: Processes, tmp_path: Path, made_sqlite_url: str) -> None:
    (tmp_path / "greeter.py").write_text(WORKER)
    worker = processes.app("greeter:app", PYTHONPATH=str(tmp_path)).url
    server = processes.serve(made_sqlite_url)
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False) as api:
        tasks = [{"name": "greet", "on_events": ["user:*"]}]
        spec = {"name": "greeter", "url": f"{worker}/", "mode": "plain", "tasks": tasks}
        assert api.post("/workers", json=spec).status_code == 201
    script = "\n".join(["set -eo pipefail", *(f"{block.text}\necho; echo ===" for block in blocks(PAGE, "sh"))])
    env = {"PATH": "/usr/bin:/bin", "HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN}
    strict = script.replace("curl -s ", "curl -s --fail-with-body ")
    done = subprocess.run(["bash", "-c", strict], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    _, waited, submitted, later, clock, event, watched, _ = done.stdout.split("===\n")

    assert json.loads(waited)["output"] == "Hello, Ada!"
    assert '"Grace"' in submitted
    listed, moved, cancelled = map(json.loads, later.strip().replace('}{"', '}\n{"').splitlines()[-3:])
    assert [run["id"] for run in listed["items"]] == [moved["id"]]
    assert (moved["priority"], cancelled["state"]) == (5, "cancelled")
    assert '"manual":true' in clock
    assert '"outcome":"started"' in event
    assert re.findall(r"^event: (\w+)$", watched, re.MULTILINE) == [
        *("created", "started", "completed", "end"),
        *("completed", "end"),
    ]
