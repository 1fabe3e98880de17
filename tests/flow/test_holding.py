"""Pausing holds work and loses none; higher priority goes first."""

import pytest

from tests.flow.stand import Flow

LOW, HIGH = 1, 3
MANY = 300
"""More runs of one kind than a server keeps in memory."""


@pytest.mark.parametrize("what", ["task", "worker"])
def test_what_is_paused_is_held_and_lost_is_nothing(flow: Flow, what: str) -> None:
    task = f"held.{what}"
    flow.worker(task, {"name": task})
    path = f"/{what}s/{task}"
    before = flow.submit_all(task, *[{"ms": 50}] * 3)
    flow.until_started(task, 3)

    flow.api.call("POST", f"{path}/pause")
    flow.api.call("POST", f"{path}/pause")
    held = flow.submit_all(task, *[{}] * MANY)
    flow.settle()
    assert [flow.api.ended(run_id)["state"] for run_id in before] == ["completed"] * 3
    assert {run["state"] for run_id, run in flow.runs(task).items() if run_id in held} == {"queued"}
    flow.api.call("POST", f"{path}/resume")

    flow.until_completed(task, 3 + MANY)
    assert sorted(flow.journal.starts(task)) == sorted(before + held)


def test_a_paused_task_stays_paused_when_it_is_registered_again(flow: Flow) -> None:
    flow.worker("held.again", {"name": "held.again"})
    flow.pause("held.again")
    [run_id] = flow.submit_all("held.again", {})

    flow.api.call("POST", "/workers/held.again/sync")
    flow.settle()

    assert flow.states([run_id]) == ["queued"]
    flow.resume("held.again")
    assert flow.api.ended(run_id)["state"] == "completed"


def test_a_paused_task_does_not_hold_its_neighbour_on_the_worker(flow: Flow) -> None:
    flow.worker("neighbours", {"name": "held.one"}, {"name": "held.other"}, slots=1)
    flow.pause("held.one")
    held = flow.submit_all("held.one", *[{}] * 5)

    assert flow.api.run("held.other", {})["state"] == "completed"

    assert flow.states(held) == ["queued"] * 5
    flow.resume("held.one")
    assert [flow.api.ended(run_id)["state"] for run_id in held] == ["completed"] * 5


def test_of_two_tasks_that_share_a_slot_the_one_of_high_priority_goes_first(flow: Flow) -> None:
    tasks = [{"name": "urgent.low", "priority": LOW}, {"name": "urgent.high", "priority": HIGH}]
    flow.worker("urgent", *tasks, slots=1)
    flow.api.call("POST", "/workers/urgent/pause")
    low = flow.submit_all("urgent.low", *[{}] * 20)
    high = flow.submit_all("urgent.high", *[{}] * 20)

    flow.api.call("POST", "/workers/urgent/resume")
    flow.until_completed("urgent.low", 20)

    assert flow.journal.starts("urgent.low", "urgent.high") == high + low


def test_a_run_of_high_priority_overtakes_those_of_its_own_task(flow: Flow) -> None:
    rule = {"key": "input.key", "max_runs": 1}
    flow.worker("overtake", {"name": "overtake", "concurrency": [rule]})
    flow.pause("overtake")
    low = flow.submit_all("overtake", *[{"key": "k"}] * 5, priority=LOW)
    high = flow.submit_all("overtake", {"key": "k"}, priority=HIGH)

    flow.resume("overtake")
    flow.until_completed("overtake", 6)

    assert flow.journal.starts("overtake") == high + low
