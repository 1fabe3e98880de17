"""Runs that wait follow what is changed, and are judged when they are due."""

from pathlib import Path

from tests.e2e.stage import Object
from tests.flow.checks import most_at_once
from tests.flow.stand import Flow

LOW, HIGH = 1, 3


def task(name: str, max_runs: int | None, strategy: str = "GROUP_ROUND_ROBIN") -> Object:
    """Return a task whose runs are all of one group, or of none."""
    rule = {"key": "'all'", "max_runs": max_runs, "strategy": strategy}
    return {"name": name, "concurrency": [] if max_runs is None else [rule]}


def test_a_rule_that_is_changed_counts_for_those_that_wait(flow: Flow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flow.worker("changed", task("changed", 1))
    ids = flow.submit_all("changed", *[{"gate": str(gate)}] * 8)

    for most, running in ((1, 1), (3, 3), (2, 3), (4, 4), (None, 8)):
        flow.declare("changed", task("changed", most))
        flow.api.call("POST", "/workers/changed/sync")
        flow.proven("changed")
        flow.until_started("changed", running)
        flow.settle()
        assert flow.states(ids).count("running") == running
    gate.touch()

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 8


def test_a_run_of_later_is_judged_when_it_is_due(flow: Flow, tmp_path: Path) -> None:
    flow.worker("later", task("later", 1, "CANCEL_IN_PROGRESS"))
    now = flow.api.submit("later", {"gate": str(tmp_path / "gate")})["id"]
    flow.until_started("later", 1)

    later = flow.api.submit("later", {}, delay=0.3)["id"]
    displaced = flow.api.ended(now)

    assert displaced["reason"] == "concurrency"
    completed = flow.api.ended(later)
    assert completed["state"] == "completed"
    assert displaced["finished_at"] >= completed["due_at"]


def test_a_displaced_run_that_is_replayed_displaces_in_turn(flow: Flow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flow.worker("replayed", task("replayed", 1, "CANCEL_IN_PROGRESS"))
    first = flow.api.submit("replayed", {"gate": str(gate)})["id"]
    flow.until_started("replayed", 1)
    second = flow.api.submit("replayed", {"gate": str(gate)})["id"]
    flow.until_started("replayed", 2)
    assert flow.api.ended(first)["reason"] == "concurrency"
    gate.touch()
    assert flow.api.ended(second)["state"] == "completed"
    gate.unlink()
    third = flow.api.submit("replayed", {"gate": str(gate)})["id"]
    flow.until_started("replayed", 3)

    flow.api.call("POST", f"/runs/{first}/replay")
    assert flow.api.ended(third)["reason"] == "concurrency"
    gate.touch()

    assert flow.api.ended(first)["state"] == "completed"
    assert most_at_once(flow.journal.spans("replayed")) == 1


def test_places_of_cancelled_runs_are_given_on(flow: Flow, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    flow.worker("given-on", task("given-on", 2))
    ids = flow.submit_all("given-on", *[{"gate": str(gate)}] * 8)
    flow.until_started("given-on", 2)

    for run_id in (ids[0], ids[3], ids[2], ids[4]):
        flow.api.call("POST", f"/runs/{run_id}/cancel")
    flow.api.until_state(ids[5], "running")
    flow.settle()
    assert flow.states(ids[5:]) == ["running", "queued", "queued"]
    gate.touch()

    states = [flow.api.ended(run_id)["state"] for run_id in ids]
    assert states == ["cancelled", "completed", "cancelled", "cancelled", "cancelled", *["completed"] * 3]
    assert most_at_once(flow.journal.spans("given-on")) == 2


def test_a_rule_may_cancel_while_another_holds(flow: Flow, tmp_path: Path) -> None:
    """What the first rule holds back may be cancelled by the second, and what that keeps starts in the end."""
    gate = tmp_path / "gate"
    rules = [{"key": "input.org", "max_runs": 1}, {"key": "input.user", "strategy": "CANCEL_IN_PROGRESS"}]
    flow.worker("mixed", {"name": "mixed", "concurrency": rules})
    first = flow.api.submit("mixed", {"org": "o", "user": "a", "gate": str(gate)})["id"]
    flow.until_started("mixed", 1)

    ids = flow.submit_all("mixed", *[{"org": "o", "user": user} for user in ("b", "c", "b", "c", "b")])
    flow.settle()
    assert flow.states([first, *ids]) == ["running", "cancelled", "cancelled", "cancelled", "queued", "queued"]
    gate.touch()

    assert [flow.api.ended(run_id)["state"] for run_id in (first, *ids[3:])] == ["completed"] * 3
