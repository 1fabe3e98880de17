"""What happens to runs that find their group full, by strategy; and who is told what."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hurlbat import Hurlbat, RunCancelled
from tests.e2e.stage import PATIENCE, Object
from tests.flow.checks import most_at_once, stamp
from tests.flow.stand import Flow, wait_until
from tests.support.processes import TOKEN

LOW, HIGH = 1, 3


def declared(flow: Flow, task: str, strategy: str, *, max_runs: int = 1, slots: int = 16, **more: Any) -> None:
    """Declare a task with one rule that all its runs share."""
    rule = {"key": "input.key", "max_runs": max_runs, "strategy": strategy}
    flow.worker(task, {"name": task, "concurrency": [rule]} | more, slots=slots)


def displaced(run: Object) -> Object:
    """Return what a run that concurrency cancelled says of it."""
    assert (run["state"], run["reason"]) == ("cancelled", "concurrency")
    [entry] = [entry for entry in run["timeline"] if entry["kind"] == "displaced"]
    return {name: entry.get(name) for name in ("rule", "key", "by", "strategy")}


def test_of_ten_runs_one_after_the_other_only_the_last_completes(either_flow: Flow, tmp_path: Path) -> None:
    flow, gate = either_flow, tmp_path / "gate"
    declared(flow, "in-progress", "CANCEL_IN_PROGRESS")
    client = Hurlbat(url=flow.api.url, token=TOKEN)
    stub: Any = client.task(name="in-progress")(lambda given: None)
    held = {"key": "k", "gate": str(gate)}
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stub.run_sync, held, timeout=2 * PATIENCE)
        flow.until_started("in-progress", 1)
        ids = flow.journal.starts("in-progress")
        for started in range(2, 11):
            ids.append(flow.api.submit("in-progress", held)["id"])
            flow.until_started("in-progress", started)
        error = waiting.exception(timeout=2 * PATIENCE)
    client.sync_client.close()
    gate.touch()

    assert isinstance(error, RunCancelled)
    assert (error.reason, error.run.id) == ("concurrency", ids[0])
    assert flow.api.ended(ids[-1])["state"] == "completed"
    runs = [flow.api.show(run_id) for run_id in ids]
    said = {"key": "k", "strategy": "CANCEL_IN_PROGRESS"}
    for run, by in zip(runs[:-1], ids[1:], strict=True):
        found = displaced(run)
        assert found.pop("rule") in ("input.key", "task:in-progress:input.key")
        assert found == said | {"by": by}
    assert most_at_once(flow.journal.spans("in-progress")) == 1


def test_of_many_runs_at_once_the_newest_stay(flow: Flow, tmp_path: Path) -> None:
    declared(flow, "in-progress.two", "CANCEL_IN_PROGRESS", max_runs=2)

    ids = flow.submit_all("in-progress.two", *[{"key": "k", "gate": str(tmp_path / "gate")}] * 10, {"key": "other"})
    (tmp_path / "gate").touch()

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["cancelled"] * 8 + ["completed"] * 3
    assert set(flow.journal.starts("in-progress.two")) == set(ids[8:])


def test_a_run_that_backs_off_is_displaced_too(flow: Flow) -> None:
    declared(flow, "in-progress.retry", "CANCEL_IN_PROGRESS", retries=1)
    first = flow.api.submit("in-progress.retry", {"key": "k", "retry_after": [600, None]})
    flow.until_started("in-progress.retry", 1)
    flow.api.until_state(first["id"], "queued")

    second = flow.api.run("in-progress.retry", {"key": "k"})

    assert second["state"] == "completed"
    assert displaced(flow.api.show(first["id"]))["by"] == second["id"]


def test_of_ten_new_runs_none_disturbs_the_one_that_runs(either_flow: Flow, tmp_path: Path) -> None:
    flow, gate = either_flow, tmp_path / "gate"
    declared(flow, "newest", "CANCEL_NEWEST")
    held = {"key": "k", "gate": str(gate)}
    first = flow.api.submit("newest", held)["id"]
    flow.until_started("newest", 1)

    ids = flow.submit_all("newest", *[held] * 5) + [flow.api.submit("newest", held)["id"] for _ in range(5)]
    found = [displaced(flow.api.ended(run_id)) for run_id in ids]
    gate.touch()

    assert {one["by"] for one in found} <= {first, None}
    assert flow.api.ended(first)["state"] == "completed"
    assert flow.journal.starts("newest") == [first]
    assert flow.api.run("newest", {"key": "k"})["state"] == "completed"


def test_a_retry_is_not_judged_again_but_waits(flow: Flow, tmp_path: Path) -> None:
    """The task is paused while it backs off, so that it is due when another one waits."""
    gate = tmp_path / "gate"
    declared(flow, "newest.retry", "CANCEL_NEWEST", retries=1)
    first = flow.api.submit("newest.retry", {"key": "k", "gate": str(gate), "retry_after": [0.05, None]})["id"]
    flow.until_started("newest.retry", 1)
    flow.pause("newest.retry")
    gate.touch()
    due = stamp(flow.api.until_state(first, "queued")["due_at"])

    second = flow.api.submit("newest.retry", {"key": "k"})["id"]
    wait_until(due / 1000)
    flow.settle()
    assert flow.states([first, second]) == ["queued"] * 2
    flow.resume("newest.retry")

    assert [flow.api.ended(run_id)["state"] for run_id in (first, second)] == ["completed"] * 2
    assert most_at_once(flow.journal.spans("newest.retry")) == 1


@pytest.mark.parametrize(("strategy", "kept"), [("QUEUE_NEWEST_ONLY", 4), ("QUEUE_OLDEST_ONLY", 0)])
@pytest.mark.parametrize("together", [True, False])
def test_the_line_behind_a_running_one_is_a_single_run(
    flow: Flow, tmp_path: Path, strategy: str, kept: int, together: bool
) -> None:
    task, gate = f"line.{strategy}.{together}", tmp_path / "gate"
    declared(flow, task, strategy)
    held = {"key": "k", "gate": str(gate)}
    first = flow.api.submit(task, held)["id"]
    flow.until_started(task, 1)

    ids = flow.submit_all(task, *[held] * 5) if together else [flow.api.submit(task, held)["id"] for _ in range(5)]
    flow.settle()
    cancelled = [run_id for run_id in ids if run_id != ids[kept]]
    found = [displaced(flow.api.ended(run_id)) for run_id in cancelled]
    assert flow.states([first, ids[kept]]) == ["running", "queued"]
    gate.touch()

    assert {one["strategy"] for one in found} == {strategy}
    assert [flow.api.ended(run_id)["state"] for run_id in (first, ids[kept])] == ["completed"] * 2
    assert flow.journal.starts(task) == [first, ids[kept]]


@pytest.mark.parametrize(
    ("strategy", "late"),
    [
        ("GROUP_ROUND_ROBIN", "queued"),
        ("CANCEL_IN_PROGRESS", "cancelled"),
        ("CANCEL_NEWEST", "cancelled"),
        ("QUEUE_NEWEST_ONLY", "queued"),
        ("QUEUE_OLDEST_ONLY", "queued"),
    ],
)
def test_a_newcomer_of_lower_priority_does_not_displace_one_that_runs(
    flow: Flow, tmp_path: Path, strategy: str, late: str
) -> None:
    task, gate = f"lower.{strategy}", tmp_path / "gate"
    declared(flow, task, strategy)
    held = {"key": "k", "gate": str(gate)}
    high = flow.api.submit(task, held, priority=HIGH)["id"]
    flow.until_started(task, 1)

    low = flow.api.submit(task, held, priority=LOW)["id"]
    flow.settle()

    assert flow.states([high, low]) == ["running", late]
    gate.touch()
    assert flow.api.ended(high)["state"] == "completed"
    assert flow.api.ended(low)["state"] == ("completed" if late == "queued" else "cancelled")


@pytest.mark.parametrize("strategy", ["CANCEL_IN_PROGRESS", "CANCEL_NEWEST", "QUEUE_NEWEST_ONLY", "QUEUE_OLDEST_ONLY"])
@pytest.mark.parametrize("high_first", [True, False])
def test_of_two_that_wait_the_one_of_higher_priority_stays(flow: Flow, strategy: str, high_first: bool) -> None:
    task = f"higher.{strategy}.{high_first}"
    declared(flow, task, strategy)
    flow.pause(task)

    first, second = [
        flow.api.submit(task, {"key": "k"}, priority=priority)["id"]
        for priority in ((HIGH, LOW) if high_first else (LOW, HIGH))
    ]
    stays, goes = (first, second) if high_first else (second, first)
    flow.api.ended(goes)
    flow.resume(task)

    assert displaced(flow.api.show(goes))["by"] in (stays, None)
    assert flow.api.ended(stays)["state"] == "completed"
    assert flow.journal.starts(task) == [stays]


def test_runs_of_another_key_are_left_alone(flow: Flow, tmp_path: Path) -> None:
    declared(flow, "other-key", "CANCEL_IN_PROGRESS")
    gate = tmp_path / "gate"
    one = flow.api.submit("other-key", {"key": "1", "gate": str(gate)})["id"]

    ids = flow.submit_all("other-key", {"key": "2"}, {"key": None}, {"key": None})

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 3
    assert flow.states([one]) == ["running"]
    gate.touch()
    assert flow.api.ended(one)["state"] == "completed"


def test_tasks_that_share_a_rule_share_its_groups_by_the_smaller_number(flow: Flow) -> None:
    rules = [{"key": "input.key", "max_runs": most, "name": "one-line"} for most in (3, 2)]
    tasks = [{"name": f"shared.{n}", "concurrency": [rule]} for n, rule in enumerate(rules)]
    flow.worker("shared", *tasks)
    for task in tasks:
        flow.pause(str(task["name"]))
    for n in range(2):
        flow.submit_all(f"shared.{n}", *[{"key": "k", "ms": 20}] * 6)

    for n in range(2):
        flow.resume(f"shared.{n}")
    for n in range(2):
        flow.until_completed(f"shared.{n}", 6)

    assert most_at_once(flow.journal.spans("shared.0", "shared.1")) == 2
