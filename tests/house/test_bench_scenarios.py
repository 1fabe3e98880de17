"""`hurlbat bench --scenario`: what waits does wait, and nothing is lost beside it."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hurlbat import Hurlbat, Task
from hurlbat.runs import RunOptions
from hurlbat.testing import World
from hurlbat_app.bench.command import Choice, bench
from hurlbat_app.bench.scenarios import Name, Sizes, scenario
from hurlbat_app.bench.stack import Plan, running
from hurlbat_app.cli.failure import Failure

SIZES = Sizes(backlog=30, keys=100, timers=20, rate_limits=5)


@pytest.mark.parametrize("name", [name for name in Name if name is not Name.EMPTY])
def test_of_each_scenario_only_so_many_start_as_it_says(name: Name) -> None:
    hurlbat = Hurlbat()
    chosen = scenario(name, SIZES)
    starts: list[Any] = []

    async def hold(input: dict[str, Any]) -> None:
        starts.append(input["key"])
        if input.get("hang"):
            await asyncio.Event().wait()

    held: Task[dict[str, Any], None] = hurlbat.task(name="held", **chosen.policy)(hold)

    async def burden(world: World) -> None:
        inputs = [json.loads(text)["input"] for text in chosen.submissions("held")]
        options: RunOptions = {} if chosen.delay is None else {"delay": chosen.delay}
        await held.run_many_no_wait(inputs, **options)
        await world.advance(minutes=10)

    with World(hurlbat) as world:
        world.run(burden(world))

    assert len(starts) == len(set(starts)) == chosen.starts


def test_a_burdened_server_is_measured_beside_an_empty_one(tmp_path: Path) -> None:
    options = ("--scenario", "rate-limits", "--scale", "0.005", "--runs", "40", "--clients", "8", "--rounds", "1")
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "bench", *options, "--json"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["scenarios"]
    assert {name: (one["waiting"], one["duplicates"], one["strayed"]) for name, one in found.items()} == {
        "empty": (0, 0, 0),
        "rate-limits": (500, 0, 0),
    }
    assert found["empty"]["ratio"] is None
    assert found["rate-limits"]["ratio"]["runs_per_second"] > 0


def test_those_who_wait_and_delayed_runs_and_cancels_are_measured_on_an_idle_server(tmp_path: Path) -> None:
    scenarios = ("--scenario", "waiters", "--scenario", "delays", "--scenario", "cancels")
    options = ("--waiters", "30", "--timers", "40", "--runs", "5")
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "bench", *scenarios, *options]

    done = subprocess.run([*command, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    waiters, delays = found["waiters"], found["delays"]
    assert (waiters["waiters"], delays["timers"], delays["early"]) == (30, 40, 0)
    assert 0 < waiters["among_others_ms"]["p50"] <= waiters["among_others_ms"]["p99"]
    assert 0 < delays["among_others_ms"]["p50"] <= delays["among_others_ms"]["p99"]
    cancels = found["cancels"]
    assert cancels["others"] == 5
    assert 0 < cancels["alone_ms"]["p50"] <= cancels["alone_ms"]["p99"]
    assert 0 < cancels["among_others_ms"]["p50"] <= cancels["among_others_ms"]["p99"]


def test_workflows_are_measured_beside_single_runs_and_among_many_that_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "bench", "--scenario", "workflows"]
    options = ("--asleep", "30", "--runs", "8", "--json")

    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["workflows"]
    assert (found["nodes"], found["waiting"]) == (100, 30)
    assert found["ratio"] > 0
    assert 0 < found["step_ms"]["p50"] <= found["step_ms"]["p99"]
    assert 0 < found["step_among_others_ms"]["p50"] <= found["step_among_others_ms"]["p99"]


def test_the_worker_takes_so_many_runs_in_one_delivery(tmp_path: Path) -> None:
    plan = Plan(f"sqlite+aiosqlite:///{tmp_path / 'bench.db'}", 1, "single", 1, 1, 7, 10)
    with running(plan, tmp_path) as stack:
        assert stack.call("GET", f"/workers/{stack.name}")["max_batch"] == 7


def test_waiters_are_not_measured_beside_a_burden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(Failure, match="no other scenario"):
        bench(scenario=[Choice.WAITERS, Choice.KEYS])


def test_scenarios_do_not_share_a_database() -> None:
    options = ("--scenario", "keys", "--database", "postgresql://nobody@127.0.0.1:1/bench")
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "bench", *options]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, "write {scenario} into the URL" in done.stderr) == (1, True)
