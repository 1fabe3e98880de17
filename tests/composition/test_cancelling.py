"""Anything that has not ended is cancelled, with the same outcome for everybody, and gives back what it had, once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.composition.stand import LONG, Stand, new
from tests.composition.test_graphs import node
from tests.e2e.stage import Object, until
from tests.flow.checks import most_at_once

SLOTS = 2


def told(stand: Stand, run_id: str, reason: str | None = "enough") -> Object:
    """Cancel a run, and return it; who waits for it is told the same as who looks at it."""
    run: Object = stand.api.call("POST", f"/runs/{run_id}/cancel", {"reason": reason} if reason else None)
    return run


def check(stand: Stand, run: Object, reason: str, by: str) -> None:
    """Hold a cancelled run to the outcome that everybody is told."""
    shown = stand.api.ended(run["id"])
    assert (shown["state"], shown["reason"], shown["cancelled_by"]) == ("cancelled", reason, by)
    error = stand.cancelled(shown)
    assert (error.reason, error.by, error.run.id) == (reason, by, run["id"])


def delayed(stand: Stand, name: str, _: Path) -> str:
    return stand.begin(name, delay=LONG)


def backing_off(stand: Stand, name: str, _: Path) -> str:
    run_id = stand.begin(name, {name: {"fails": 5}})
    until(lambda: stand.api.show(run_id)["tries"] == 1 and stand.api.show(run_id)["state"] == "queued", "backoff")
    return run_id


def queued(stand: Stand, name: str, _: Path) -> str:
    stand.pause(name)
    return stand.begin(name)


def running(stand: Stand, name: str, folder: Path) -> str:
    run_id = stand.begin(name, {name: {"gate": str(folder / "never")}})
    stand.until_noted("started", run_id)
    return run_id


@pytest.mark.parametrize("state", [delayed, backing_off, queued, running])
@pytest.mark.parametrize("kind", ["async", "thread", "plain"])
def test_a_run_is_cancelled_wherever_it_is(
    either: Stand, state: Callable[[Stand, str, Path], str], kind: str, tmp_path: Path
) -> None:
    name = new(f"{kind}-{state.__name__}")
    policy = {"name": name, "retries": 3, "backoff": {"strategy": "fixed", "initial": LONG, "max": LONG}}
    if kind == "plain":
        either.plain(name, policy, slots=1)
    else:
        either.worker(name, policy | {"thread": kind == "thread"}, slots=1)
    run_id = state(either, name, tmp_path)

    began = time.monotonic()
    run = told(either, run_id)

    check(either, run, "enough", "request")
    assert told(either, run_id, "again")["reason"] == "enough"
    if state is running:
        either.until_noted("ended", run_id)
        print(f"{kind}: {1000 * (time.monotonic() - began):.1f} ms from the request to the end of the task")
        assert [one["attempt"] for one in either.noted("cancelled", run_id)] == [1]
    if state is queued:
        either.resume(name)
    assert either.api.ended(either.begin(name))["state"] == "completed"
    assert len(either.noted("started", run_id)) == (1 if state in (running, backing_off) else 0)


def test_a_task_gives_up_by_itself(either: Stand) -> None:
    name = new("gives-up")
    either.worker(name, {"name": name, "retries": 3})

    run = either.api.ended(either.begin(name, {name: {"give_up": "the user has left"}}))

    check(either, run, "the user has left", "task")
    assert run["tries"] == 1


def test_a_node_that_waits_for_a_condition_is_cancelled(either: Stand) -> None:
    name = either.workflow(new("waits"), node("asleep", wait_for=[{"sleep": LONG}]), node("after", "asleep"))
    run_id = either.begin(name)
    asleep = either.until_node(run_id, "asleep", "suspended")

    check(either, told(either, asleep["id"]), "enough", "request")

    assert either.api.ended(run_id)["state"] == "cancelled"
    assert either.node(run_id, "after")["cancelled_by"] == "node"


def test_a_workflow_is_cancelled_with_all_that_has_not_ended(either: Stand, tmp_path: Path) -> None:
    last = {"on_failure": {"name": "mourn"}, "on_success": {"name": "cheer"}}
    name = either.workflow(
        new("whole"),
        *(node("done"), node("runs", "done"), node("waits", "done", wait_for=[{"sleep": LONG}]), node("after", "runs")),
        last=last,
    )
    run_id = either.begin(name, {"runs": {"gate": str(tmp_path / "never")}})
    either.until_node(run_id, "waits", "suspended")
    runs = either.until_node(run_id, "runs", "running")
    either.until_noted("started", runs["id"])

    check(either, told(either, run_id), "enough", "request")

    either.until_noted("cancelled", runs["id"])
    until(lambda: set(either.stood(run_id).values()) <= {"completed", "cancelled"}, "end of all nodes")
    stood = either.stood(run_id)
    assert (stood["done"], stood["runs"], stood["waits"]) == ("completed", "cancelled", "cancelled")
    for each in ("runs", "waits"):
        cancelled = either.node(run_id, each)
        assert (cancelled["reason"], cancelled["cancelled_by"]) == ("workflow cancelled: enough", "parent")
    assert [either.started(f"{name}.{one}") for one in ("after", "mourn", "cheer")] == [[], [], []]


def test_a_workflow_that_waits_for_its_turn_is_cancelled_with_no_node(either: Stand) -> None:
    name = either.workflow(new("unbegun"), node("only"))
    run_id = either.begin(name, delay=LONG)

    check(either, told(either, run_id), "enough", "request")

    assert either.started(f"{name}.only") == []


def test_a_tree_of_three_levels_is_cancelled_from_its_root(either: Stand, tmp_path: Path) -> None:
    name = new("tree")
    either.worker(name, *({"name": f"{name}.{level}"} for level in (1, 2, 3)))
    never = {"gate": str(tmp_path / "never")}
    leaf = {"does": {f"{name}.3": never}}
    inner = {"does": {f"{name}.2": {"spawn": {"task": f"{name}.3", "inputs": [leaf, leaf], "wait": True}}}}
    top = {f"{name}.1": {"spawn": {"task": f"{name}.2", "inputs": [inner, inner], "wait": True}}}
    root = either.begin(f"{name}.1", top)
    until(lambda: len(either.started(f"{name}.3")) == 4, "four leaves")
    ended = either.api.ended(either.begin(f"{name}.3", parent=root))

    run = told(either, root)

    check(either, run, "enough", "request")
    below = [one for one in either.api.listed(root=root) if one["id"] not in (root, ended["id"])]
    assert len(below) == 6
    for one in below:
        shown = either.api.ended(one["id"])
        assert (shown["state"], shown["cancelled_by"]) == ("cancelled", "parent")
        assert shown["reason"].startswith("parent cancelled: ")
        either.until_noted("ended", one["id"])
    assert either.api.show(ended["id"])["state"] == "completed"


def test_what_is_cancelled_by_a_rule_takes_its_children_along(either: Stand, tmp_path: Path) -> None:
    name = new("displaced")
    rule = {"key": "'all'", "max_runs": 1, "strategy": "CANCEL_IN_PROGRESS"}
    either.worker(name, {"name": f"{name}.parent", "concurrency": [rule]}, {"name": f"{name}.child"})
    never = {"does": {f"{name}.child": {"gate": str(tmp_path / "never")}}}
    spawn = {"spawn": {"task": f"{name}.child", "inputs": [never], "wait": True}}
    first = either.begin(f"{name}.parent", {f"{name}.parent": spawn})
    until(lambda: either.started(f"{name}.child"), "child")

    second = either.begin(f"{name}.parent")

    check(either, {"id": first}, "concurrency", "concurrency")
    [child] = either.api.listed(task=f"{name}.child")
    assert either.api.ended(child["id"])["cancelled_by"] == "parent"
    assert either.api.ended(second)["state"] == "completed"


def test_who_catches_its_cancellation_and_goes_on_changes_nothing(either: Stand, tmp_path: Path) -> None:
    name = new("stubborn")
    gate = tmp_path / "gate"
    either.worker(name, {"name": name, "retries": 3}, slots=1)
    does = {"gate": str(tmp_path / "never"), "stubborn": str(gate)}
    run_id = either.begin(name, {name: does})
    either.until_noted("started", run_id)

    check(either, told(either, run_id), "enough", "request")
    either.until_noted("cancelled", run_id)
    following = either.begin(name)
    assert either.api.ended(following)["state"] == "completed"  # the slot is given up after five seconds
    gate.touch()
    either.until_noted("ended", run_id)
    either.settle()

    run = either.api.show(run_id)
    assert (run["state"], run["output"], run["attempt"]) == ("cancelled", None, 1)


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_slots_and_places_of_cancelled_runs_are_given_back_and_never_sold_twice(
    either: Stand, kind: str, tmp_path: Path
) -> None:
    name = new(f"sold-{kind}")
    rule = {"key": "'all'", "max_runs": SLOTS}
    either.worker(name, {"name": name, "thread": kind == "thread", "concurrency": [rule]}, slots=SLOTS)
    gates = [tmp_path / f"gate-{n}" for n in range(12)]
    inputs: list[Any] = [{"does": {name: {"gate": str(gate)}}} for gate in gates]
    ids = either.submit_all(name, *inputs)

    for _ in range(5):
        until(lambda: either.states(ids).count("running") == SLOTS, "full slots")  # those that stop have some, too
        assert either.api.call("GET", f"/workers/{name}")["in_flight"] == SLOTS
        run_id = next(one for one in ids if either.api.show(one)["state"] == "running")
        either.until_noted("started", run_id)
        told(either, run_id)
    for gate in gates:
        gate.touch()

    states = [either.api.ended(run_id)["state"] for run_id in ids]
    assert (states.count("cancelled"), states.count("completed")) == (5, 7)
    until(lambda: either.api.call("GET", f"/workers/{name}")["in_flight"] == 0, "free slots")
    assert most_at_once(either.journal.spans(name)) <= SLOTS
    last = either.submit_all(name, *[{}] * (2 * SLOTS))
    assert [either.api.ended(run_id)["state"] for run_id in last] == ["completed"] * (2 * SLOTS)
