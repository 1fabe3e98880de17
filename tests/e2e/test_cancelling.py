"""Cancelling, in whatever state a run is."""

from pathlib import Path

import pytest

from tests.e2e.stage import Stage, until


def test_a_queued_run_that_is_cancelled_never_starts(stage: Stage) -> None:
    stage.api.call("POST", "/workers/app/pause")  # so that none is quicker than its cancellation
    try:
        submitted = [stage.api.submit("add", {"first": 1}, delay=delay) for delay in (0, 0.5)]
        cancelled = [stage.api.call("POST", f"/runs/{run['id']}/cancel") for run in submitted]
    finally:
        stage.api.call("POST", "/workers/app/resume")

    assert [run["state"] for run in cancelled] == ["cancelled"] * 2
    later = stage.api.submit("add", {"first": 1}, run_at=submitted[1]["due_at"])
    assert stage.api.ended(later["id"])["state"] == "completed"
    for run in submitted:
        assert stage.journal.events(run["id"]) == []
        assert stage.api.show(run["id"])["state"] == "cancelled"


@pytest.mark.parametrize("task", ["hold", "hold-in-thread"])
def test_a_running_task_is_told_and_stops(stage: Stage, tmp_path: Path, task: str) -> None:
    submitted = stage.api.submit(task, str(tmp_path / "gate"))
    until(lambda: stage.journal.events(submitted["id"]) == ["started"], "start")

    cancelled = stage.api.call("POST", f"/runs/{submitted['id']}/cancel", {"reason": "enough"})

    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "enough")
    until(lambda: stage.journal.events(submitted["id"]) == ["started", "cancelled"], "end of the task")
    until(lambda: stage.api.call("GET", "/workers/app")["in_flight"] == 0, "free slot")
    assert stage.api.show(submitted["id"])["state"] == "cancelled"


def test_cancelling_one_run_lets_its_neighbours_go_on(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = {"runs": [{"task": "hold", "input": str(gate)}] * 3}
    ids = [run["id"] for run in stage.api.call("POST", "/runs/bulk", body)["results"]]
    until(lambda: all(stage.journal.events(run_id) for run_id in ids), "start of all")

    stage.api.call("POST", f"/runs/{ids[1]}/cancel")
    until(lambda: "cancelled" in stage.journal.events(ids[1]), "end of the cancelled one")
    gate.touch()

    assert [stage.api.ended(run_id)["state"] for run_id in ids] == ["completed", "cancelled", "completed"]


def test_a_run_that_has_ended_cannot_be_cancelled(stage: Stage) -> None:
    run = stage.api.run("add", {"first": 1})

    problem = stage.api.call("POST", f"/runs/{run['id']}/cancel", status=409)

    assert problem["code"] == "run_finished"
    assert stage.api.show(run["id"])["state"] == "completed"


def test_a_cancelled_run_can_be_replayed_to_its_end(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    submitted = stage.api.submit("hold", str(gate))
    until(lambda: stage.journal.events(submitted["id"]) == ["started"], "start")
    stage.api.call("POST", f"/runs/{submitted['id']}/cancel")
    until(lambda: "cancelled" in stage.journal.events(submitted["id"]), "end of the task")
    gate.touch()

    until(lambda: stage.api.send("POST", f"/runs/{submitted['id']}/replay").status_code == 200, "replay")

    run = stage.api.ended(submitted["id"])
    assert (run["state"], run["output"], run["attempt"]) == ("completed", "let go", 2)
