"""What a workflow holds is held from its beginning to its end, whatever its nodes do in between."""

from pathlib import Path
from typing import Any

import pytest

from tests.composition.stand import LONG, Stand, ended_before, new
from tests.composition.test_graphs import node
from tests.e2e.stage import Object, until
from tests.flow.checks import Span, most_at_once


def one_at_a_time(stand: Stand, word: str, strategy: str = "GROUP_ROUND_ROBIN", **more: Any) -> str:
    rule = {"key": "'all'", "max_runs": 1, "strategy": strategy}
    nodes = (node("a"), node("pause", "a", wait_for=[{"sleep": 0.1}]), node("b", "pause"))
    return stand.workflow(new(word), *nodes, concurrency=[rule], **more)


def whole(stand: Stand, name: str, run_id: str) -> Span:
    """Return from when to when nodes of a workflow's run were with workers."""
    ids = {node["run"] for node in stand.nodes(run_id).values()}
    spans = stand.journal.spans(*(f"{name}.{one}" for one in ("a", "pause", "b")))
    mine = [span for span in spans if span.run_id in ids]
    return Span(min(span.start for span in mine), max(span.end for span in mine), run_id)


def test_of_three_workflows_of_a_group_of_one_never_two_are_under_way(either: Stand) -> None:
    name = one_at_a_time(either, "turns")
    ids = [either.begin(name, input={"n": n}) for n in range(3)]

    runs = [either.api.ended(run_id) for run_id in ids]

    assert [run["state"] for run in runs] == ["completed"] * 3
    spans = [whole(either, name, run_id) for run_id in ids]
    assert most_at_once(spans) == 1
    assert ended_before(spans)


def test_a_workflow_that_waits_for_an_event_holds_its_group(either: Stand) -> None:
    name = new("held")
    rule = {"key": "'all'", "max_runs": 1}
    either.workflow(name, node("a", wait_for=[{"event": f"{name}:go"}]), concurrency=[rule])
    first, second = (either.begin(name, input={"n": n}) for n in range(2))
    either.until_node(first, "a", "suspended")
    either.settle()
    assert either.api.show(second)["state"] == "queued"
    explained = either.api.call("GET", f"/runs/{second}/explain")
    assert first in str(explained), explained

    either.api.call("POST", "/events", {"key": f"{name}:go"}, status=201)

    assert either.api.ended(first)["state"] == "completed"
    assert either.api.ended(second)["state"] == "completed"  # it looks back for the event


def test_the_newest_workflow_takes_the_place_of_the_one_before(either: Stand, tmp_path: Path) -> None:
    name = one_at_a_time(either, "newest", "CANCEL_IN_PROGRESS")
    ids = []
    for n in range(3):
        ids.append(either.begin(name, {"a": {"gate": str(tmp_path / f"gate-{n}")}}))
        until(lambda n=n: len(either.started(f"{name}.a")) > n, "start")  # type: ignore[misc]
    (tmp_path / "gate-2").touch()

    runs = [either.api.ended(run_id) for run_id in ids]

    assert [run["state"] for run in runs] == ["cancelled", "cancelled", "completed"]
    assert [run["cancelled_by"] for run in runs[:2]] == ["concurrency"] * 2
    for run_id in ids[:2]:
        cancelled = either.node(run_id, "a")
        assert (cancelled["state"], cancelled["cancelled_by"]) == ("cancelled", "parent")
        either.until_noted("ended", cancelled["id"])
    assert most_at_once([whole(either, name, run_id) for run_id in ids]) == 1


def test_a_workflow_takes_no_slot(either: Stand) -> None:
    name = new("slotless")
    either.worker(f"{name}-own", {"name": f"{name}.a"}, slots=1)
    either.workflow(name, node("a", wait_for=[{"sleep": LONG}], task=f"{name}.a"), node("b", task=f"{name}.a"))
    ids = [either.begin(name, input={"n": n}) for n in range(5)]

    for run_id in ids:
        either.until_node(run_id, "b", "completed")
        either.until_node(run_id, "a", "suspended")

    until(lambda: either.api.call("GET", f"/workers/{name}-own")["in_flight"] == 0, "free slots")
    run = either.api.show(ids[0])
    assert (run["state"], run["attempt"], run["worker"], run["kind"]) == ("running", 0, None, "workflow")
    for run_id in ids:
        either.api.call("POST", f"/runs/{run_id}/cancel")


@pytest.mark.parametrize(
    "policy",
    [
        {"rate_limits": [{"dynamic_key": "'NAME'", "limit": 2, "duration": LONG}]},
        {"throttle": {"limit": 2, "period": LONG}},
    ],
    ids=["rate limit", "throttle"],
)
def test_a_rate_of_workflows_is_one_of_their_beginnings(either: Stand, policy: Object) -> None:
    name = new("rated")
    said: Any = {"rate_limits": [{"dynamic_key": f"'{name}'", "limit": 2, "duration": LONG}]}
    either.workflow(name, node("a"), **(said if "rate_limits" in policy else policy))
    ids = [either.begin(name, input={"n": n}) for n in range(4)]

    until(lambda: sorted(either.api.show(run_id)["state"] for run_id in ids)[:2] == ["completed"] * 2, "two")
    either.settle()

    assert sorted(either.api.show(run_id)["state"] for run_id in ids) == ["completed"] * 2 + ["queued"] * 2
    assert len(either.started(f"{name}.a")) == 2
    for run_id in ids:
        either.api.send("POST", f"/runs/{run_id}/cancel")


def test_a_paused_workflow_begins_nothing_new_and_goes_on_with_what_it_has_begun(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    name = either.workflow(new("paused"), node("a"), node("b", "a"))
    does = {"a": {"gate": str(gate)}}
    begun = either.begin(name, does)
    either.until_node(begun, "a", "running")
    either.pause(name)
    held = either.begin(name, does)
    gate.touch()

    assert either.api.ended(begun)["state"] == "completed"
    either.settle()
    assert either.api.show(held)["state"] == "queued"
    either.resume(name)
    assert either.api.ended(held)["state"] == "completed"


def test_nodes_wait_for_room_in_the_groups_of_their_own_tasks(either: Stand) -> None:
    name = new("grouped")
    rule = {"key": "'all'", "max_runs": 1}
    either.worker(f"{name}-own", {"name": f"{name}.a", "concurrency": [rule]})
    either.workflow(name, *(node(f"n{n}", task=f"{name}.a") for n in range(5)))

    run = either.api.ended(either.begin(name, {f"n{n}": {"ms": 20} for n in range(5)}))

    assert run["state"] == "completed"
    assert most_at_once(either.journal.spans(f"{name}.a")) == 1


def test_a_workflow_is_submitted_once_for_a_key_and_debounced(either: Stand) -> None:
    once, quiet = either.workflow(new("once"), node("a")), new("quiet")
    either.workflow(quiet, node("a"), debounce={"period": 0.3, "key": "input.d"})

    ids = [either.begin(once, idempotency_key="k", idempotency_ttl=600)]
    again = either.api.submit(once, {"does": {}}, idempotency_key="k", idempotency_ttl=600, status=200)
    taken = either.submit_all(quiet, *({"d": 1, "n": n} for n in range(3)))  # at one moment

    assert [again["id"]] == ids
    assert len(set(taken)) == 1
    run_id = taken[0]
    assert either.api.ended(run_id)["state"] == "completed"
    assert either.node(run_id, "a")["input"] == {"d": 1, "n": 2}


def test_a_workflow_that_does_not_begin_in_time_ends_as_any_run_does(either: Stand) -> None:
    name = either.workflow(new("untimely"), node("a"), schedule_timeout=0.3)
    either.pause(name)
    expires = either.begin(name, ttl=0.2)
    fails = either.begin(name)

    ended = [either.api.ended(run_id) for run_id in (expires, fails)]
    either.resume(name)

    assert [(run["state"], run["cancelled_by"]) for run in ended] == [("cancelled", "ttl"), ("failed", None)]
    assert either.started(f"{name}.a") == []
