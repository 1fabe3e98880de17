"""Healthy attempts are not given up, however quick a server is to lose its patience."""

from pathlib import Path

import pytest

from tests.e2e.stage import set_stage, until
from tests.support.processes import Processes


@pytest.mark.parametrize("task", ["hold", "hold-in-thread"])
def test_a_silent_task_outlives_short_leases(
    processes: Processes, tmp_path: Path, database_url: str, task: str
) -> None:
    gate = tmp_path / "gate"
    with set_stage(processes, tmp_path, database_url, HURLBAT_HEARTBEAT="1", HURLBAT_LEASE="2") as stage:
        run_id = stage.api.submit(task, str(gate))["id"]
        until(lambda: stage.journal.events(run_id) == ["started"], "start")
        assert stage.api.ended(stage.api.submit("add", {"first": 1}, delay=5)["id"])["state"] == "completed"
        gate.touch()

        run = stage.api.ended(run_id)

        assert (run["state"], run["output"], run["attempt"], run["tries"]) == ("completed", "let go", 1, 1)
        assert stage.journal.events(run_id) == ["started"]
