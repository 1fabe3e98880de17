"""Healthy attempts are not given up, however quick a server is to lose its patience."""

from pathlib import Path

import pytest

from tests.e2e.stage import Object, Stage, set_stage, until
from tests.support.processes import Processes

TRIES = 5
"""How often that is looked at: a process that stands still for longer than the lease is not healthy."""


@pytest.mark.parametrize("task", ["hold", "hold-in-thread"])
def test_a_silent_task_outlives_short_leases(
    processes: Processes, tmp_path: Path, database_url: str, task: str
) -> None:
    with set_stage(processes, tmp_path, database_url, HURLBAT_HEARTBEAT="1", HURLBAT_LEASE="2") as stage:
        for number in range(TRIES):
            run = held_for_longer_than_leases(stage, task, tmp_path / f"gate-{number}")
            if run["state"] == "completed":
                break
        assert (run["state"], run["output"], run["attempt"], run["tries"]) == ("completed", "let go", 1, 1)
        assert stage.journal.events(run["id"]) == ["started"]


def held_for_longer_than_leases(stage: Stage, task: str, gate: Path) -> Object:
    """Return a run that has gone on for two leases and a half."""
    run_id = stage.api.submit(task, str(gate))["id"]
    until(lambda: stage.journal.events(run_id)[:1] == ["started"], "start")
    assert stage.api.ended(stage.api.submit("add", {"first": 1}, delay=5)["id"])["finished_at"]
    gate.touch()
    return stage.api.ended(run_id)
