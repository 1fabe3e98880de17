"""`hurlbat demo` and `hurlbat bench`, as a person or a script starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import Processes

SECONDS = 120


@pytest.mark.parametrize("app", ["hurlbat_app.demo.worker:app", "examples.fastapi_app.main:app"])
def test_the_demo_shows_its_runs_and_leaves(processes: Processes, app: str) -> None:
    process = processes.python("demo", "-m", "hurlbat_app.cli.main", "demo", "--app", app)

    assert process.wait(SECONDS) == 0, process.output
    told = process.output
    assert 'completed with "Hello, Ada!"' in told
    assert "75% sharpening sunset.jpg" in told
    assert "attempt 2 failed: ConnectionError: the bank does not answer (attempt 2); again in 0.4 s" in told
    assert "attempt 3 started on photo-shop" in told
    assert "the card that ends in 0002 was declined" in told
    assert "nmae" in told
    assert 'completed with "Hello, Grace!"' in told
    assert "started by the event user.signed_up" in told
    assert 'completed with "Welcome, Ada!"' in told
    assert 'completed with "Ada gets the weekly letter"' in told
    assert "started by hand from the schedule tidy_up.0" in told


@pytest.mark.parametrize("submit", ["single", "bulk"])
def test_the_bench_prints_one_object_and_loses_nothing(tmp_path: Path, submit: str) -> None:
    options = ("--runs", "500", "--clients", "8", "--batch", "50", "--submit", submit, "--memory", "--json")
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "bench", *options]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["duplicates"]) == (0, 0)
    assert report["runs_per_second"] > 0
    assert set(report["submit_ms"]) == set(report["start_ms"]) == {"p50", "p95", "p99"}
    assert report["settings"]["submit"] == submit
    assert set(report["memory_mb"]) == {"start", "middle", "end", "highest"}
    assert report["versions"]["hurlbat"]
