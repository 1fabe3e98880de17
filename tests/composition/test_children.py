"""Runs that runs submit: once for a key, many in order, and never waited for in vain."""

from pathlib import Path
from typing import Any

import pytest

from hurlbat import RunFailed
from tests.composition.stand import LONG, Stand, new
from tests.e2e.stage import PATIENCE, Object

SOON = {"strategy": "fixed", "initial": 0.05, "jitter": False}
MANY = 1_000


def family(stand: Stand, word: str, *, slots: int = 64, **policy: Any) -> str:
    """Declare a worker of a parent's task with this policy and of a child's; return what they begin with."""
    name = new(word)
    stand.worker(name, {"name": f"{name}.parent"} | policy, {"name": f"{name}.child"}, slots=slots)
    return name


def spawning(name: str, *inputs: Object, **more: Any) -> Object:
    """Return what a parent is told to do."""
    return {f"{name}.parent": {"spawn": {"task": f"{name}.child", "inputs": inputs or ({},)} | more}}


def children(stand: Stand, name: str) -> list[Object]:
    return list(stand.api.listed(task=f"{name}.child"))[::-1]


def test_a_parent_that_times_out_twice_has_one_child(either: Stand) -> None:
    name = family(either, "timed", execution_timeout=0.5, retries=50, backoff=SOON)  # the third try may be slow
    does = spawning(name, child_key="only", wait=True)
    does[f"{name}.parent"]["hangs"] = 2

    run = either.api.ended(either.begin(f"{name}.parent", does))

    assert run["state"] == "completed"
    assert run["tries"] >= 3
    [child] = children(either, name)
    assert (child["parent"], child["root"], child["child_key"]) == (run["id"], run["id"], "only")
    assert len(either.noted("started", child["id"])) == 1


def test_a_thousand_children_come_back_in_order(either: Stand) -> None:
    name = family(either, "thousand", execution_timeout=300)
    inputs = [{"does": {f"{name}.child": {"output": n}}} for n in range(MANY)]

    run = either.api.ended(either.begin(f"{name}.parent", spawning(name, *inputs, wait=True)), 300)

    assert run["output"] == {"spawned": list(range(MANY))}
    assert {child["parent"] for child in children(either, name)} == {run["id"]}


def test_children_that_fail_stand_in_the_list_where_that_is_asked_for(either: Stand) -> None:
    name = family(either, "mixed")
    told = [{"output": 0}, {"raise": "torn"}, {"give_up": "blank"}, {"output": 3}]
    inputs = [{"does": {f"{name}.child": one}} for one in told]

    run = either.api.ended(either.begin(f"{name}.parent", spawning(name, *inputs, wait=True, return_exceptions=True)))
    raised = either.api.ended(either.begin(f"{name}.parent", spawning(name, *inputs, wait=True)))

    assert run["output"] == {"spawned": [0, "RunFailed", "RunCancelled", 3]}
    assert (raised["state"], raised["error"]["type"]) == ("failed", "RunFailed")
    with pytest.raises(RunFailed):
        either.of(f"{name}.parent").ref(raised["id"]).result_sync(timeout=PATIENCE)


def test_a_child_has_its_parent_s_metadata_beneath_its_own(either: Stand) -> None:
    name = family(either, "meta")
    parent = either.begin(f"{name}.parent", metadata={"a": 1, "b": 1})

    child = either.api.submit(f"{name}.child", parent=parent, metadata={"b": 2, "c": 2})
    [heir] = either.api.call("POST", "/runs/bulk", {"runs": [{"task": f"{name}.child", "parent": child["id"]}]})[
        "results"
    ]

    assert child["metadata"] == heir["metadata"] == {"a": 1, "b": 2, "c": 2}
    assert [one["root"] for one in (child, heir)] == [parent] * 2
    assert [one["id"] for one in either.api.listed(root=parent) if one["id"] != parent] == [heir["id"], child["id"]]


def test_a_child_key_is_for_ever_and_for_one_body(either: Stand) -> None:
    name = family(either, "keyed")
    parent = either.begin(f"{name}.parent")
    asked: Object = {"parent": parent, "child_key": "k"}
    first = either.api.submit(f"{name}.child", 1, **asked)
    either.api.ended(first["id"])

    again = either.api.submit(f"{name}.child", 1, **asked, status=200)
    other = either.api.submit(f"{name}.child", 2, **asked, status=409)
    task = either.api.submit(f"{name}.parent", 1, **asked, status=409)
    elsewhere = either.api.submit(f"{name}.child", 1, parent=first["id"], child_key="k")

    assert (again["id"], again["state"]) == (first["id"], "completed")
    assert [problem["code"] for problem in (other, task)] == ["idempotency_conflict"] * 2
    assert elsewhere["id"] != first["id"]


@pytest.mark.parametrize(
    ("members", "status"),
    [
        ({"child_key": ""}, 422),
        ({"child_key": "x" * 201}, 422),
        ({"child_key": "x", "idempotency_key": "y"}, 422),
    ],
)
def test_a_child_key_that_is_none_is_refused(stand: Stand, members: Object, status: int) -> None:
    name = family(stand, "badkey")
    parent = stand.begin(f"{name}.parent")

    problem = stand.api.call("POST", "/runs", {"task": f"{name}.child", "parent": parent} | members, status=status)

    assert "child_key" in str(problem) or "idempotency_key" in str(problem)
    assert children(stand, name) == []


def test_a_child_key_needs_a_parent(stand: Stand) -> None:
    name = family(stand, "nobody")

    problem = stand.api.send("POST", "/runs", {"task": f"{name}.child", "child_key": "x"})

    assert problem.status_code == 422, problem.text


def test_a_child_of_a_cancelled_or_unknown_parent_is_refused(either: Stand) -> None:
    name = family(either, "cancelled")
    parent = either.begin(f"{name}.parent", delay=LONG)
    either.api.call("POST", f"/runs/{parent}/cancel")

    cancelled = either.api.submit(f"{name}.child", parent=parent, status=409)
    unknown = either.api.submit(f"{name}.child", parent="01980000-0000-7000-8000-000000000000", status=422)

    assert [cancelled["code"], unknown["code"]] == ["parent_cancelled", "parent_unknown"]
    assert children(either, name) == []


def test_a_parent_that_failed_or_completed_may_have_children(either: Stand) -> None:
    name = family(either, "ended")
    ends = [either.begin(f"{name}.parent", {f"{name}.parent": told}) for told in ({}, {"raise": "x"})]

    found = [either.api.submit(f"{name}.child", parent=either.api.ended(run_id)["id"]) for run_id in ends]

    assert [either.api.ended(child["id"])["state"] for child in found] == ["completed"] * 2


# -- what would wait for ever ------------------------------------------------------------------------------------------


def test_a_child_that_only_its_parent_s_slot_could_serve_is_not_waited_for(either: Stand) -> None:
    name = family(either, "deadlock", slots=1)

    run = either.api.ended(either.begin(f"{name}.parent", spawning(name, wait=True)))

    assert run["state"] == "failed"
    assert "would_deadlock" in run["error"]["message"]
    assert children(either, name) == []


def test_a_child_that_its_parent_does_not_wait_for_may_need_its_slot(either: Stand) -> None:
    name = family(either, "unawaited", slots=1)

    run = either.api.ended(either.begin(f"{name}.parent", spawning(name)))

    assert run["state"] == "completed"
    [child] = children(either, name)
    assert either.api.ended(child["id"])["state"] == "completed"


def test_a_child_is_waited_for_whose_slot_another_run_has(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    name = family(either, "busy", slots=2)
    other = either.begin(f"{name}.child", {f"{name}.child": {"gate": str(gate)}})
    either.until_noted("started", other)

    parent = either.begin(f"{name}.parent", spawning(name, wait=True))
    either.until_noted("started", parent)
    gate.touch()

    assert either.api.ended(parent)["state"] == "completed"


def test_a_task_with_one_run_at_a_time_cannot_wait_for_itself(either: Stand) -> None:
    name = new("itself")
    rule = {"key": "'all'", "max_runs": 1}
    either.worker(name, {"name": f"{name}.parent", "concurrency": [rule]})
    does = {f"{name}.parent": {"spawn": {"task": f"{name}.parent", "inputs": [{}], "wait": True}}}

    run = either.api.ended(either.begin(f"{name}.parent", does))

    assert run["state"] == "failed"
    assert "would_deadlock" in run["error"]["message"]
    assert [one["id"] for one in either.api.listed(task=f"{name}.parent")] == [run["id"]]


def test_nobody_waits_for_itself_or_for_who_waits_for_it(either: Stand, tmp_path: Path) -> None:
    name = family(either, "circle")
    gate = {"gate": str(tmp_path / "gate")}
    parent = either.begin(f"{name}.parent", {f"{name}.parent": gate})
    child = either.begin(f"{name}.child", {f"{name}.child": gate}, parent=parent, awaited=True)
    for run_id in (parent, child):
        either.until_noted("started", run_id)

    for waiting, awaited in ((parent, parent), (child, parent)):
        problem = either.api.call("GET", f"/runs/{awaited}", wait=5, awaited_by=waiting, status=409)
        assert problem["code"] == "would_deadlock"
    either.api.call("GET", f"/runs/{child}", wait=0.01, awaited_by=parent)
    (tmp_path / "gate").touch()
    assert either.api.call("GET", f"/runs/{child}", wait=PATIENCE, awaited_by=parent)["state"] == "completed"
