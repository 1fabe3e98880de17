"""What nodes wait for, what skips and what cancels them: sleeps, events that come early and late, expressions."""

from pathlib import Path
from typing import Any

import pytest

from tests.composition.stand import LONG, Stand, new
from tests.composition.test_graphs import node
from tests.e2e.stage import Object, until

AWAY = {"sleep": LONG}


def publish(stand: Stand, key: str, payload: Any = None, **more: Any) -> Object:
    body = {"key": key} | ({} if payload is None else {"payload": payload}) | more
    found: Object = stand.api.call("POST", "/events", body, status=201)
    return found


def one_node(stand: Stand, word: str, **conditions: Any) -> tuple[str, str]:
    """Declare a workflow of a node with conditions and one after it; return its name and a key for its events."""
    name = new(word)
    key = f"{name}:event"

    def named(condition: Any) -> Any:
        if isinstance(condition, dict):
            return {member: named(value) for member, value in condition.items()}
        if isinstance(condition, list):
            return [named(one) for one in condition]
        return key if condition == "KEY" else condition

    stand.workflow(name, node("first"), node("held", "first", **named(conditions)), node("after", "held"))
    return name, key


def conditions_of(stand: Stand, run_id: str) -> list[Object]:
    """Return which conditions had come true when the node started, as the worker was told."""
    [noted] = stand.noted("started", stand.node(run_id, "held")["id"])
    found: list[Object] = noted["conditions"]
    return found


def test_an_or_group_takes_the_branch_of_the_event_that_comes_before_the_sleep_is_over(either: Stand) -> None:
    name, key = one_node(either, "or", wait_for=[{"any": [AWAY, {"event": "KEY"}]}])
    run_id = either.begin(name)
    held = either.until_node(run_id, "held", "suspended")
    assert (held["attempt"], held["worker"]) == (0, None)

    event = publish(either, key, {"n": 1})

    assert either.api.ended(run_id)["state"] == "completed"
    assert conditions_of(either, run_id) == [{"event": key, "id": event["id"], "scope": None, "payload": {"n": 1}}]


def test_an_or_group_takes_the_branch_of_the_sleep_that_is_over_before_the_event_comes(either: Stand) -> None:
    name, key = one_node(either, "or", wait_for=[{"any": [{"sleep": 0.2}, {"event": "KEY"}]}])
    run_id = either.begin(name)

    run = either.api.ended(run_id)

    assert conditions_of(either, run_id) == [{"sleep": 0.2}]
    publish(either, key)
    either.settle()
    assert either.api.show(run_id) == run


def test_all_of_what_is_waited_for_has_to_come(either: Stand) -> None:
    name, key = one_node(either, "and", wait_for=[{"event": "KEY"}, {"any": [AWAY, {"event": "other"}]}])
    run_id = either.begin(name)
    either.until_node(run_id, "held", "suspended")
    publish(either, key)
    either.settle()
    assert either.stood(run_id)["held"] == "suspended"

    publish(either, "other")

    assert either.api.ended(run_id)["state"] == "completed"
    assert [one["event"] for one in conditions_of(either, run_id)] == [key, "other"]


def test_an_event_that_came_a_moment_early_counts(either: Stand, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    name, key = one_node(either, "early", wait_for=[{"event": "KEY", "look_back": 600}])
    run_id = either.begin(name, {"first": {"gate": str(gate)}})
    either.until_node(run_id, "first", "running")
    event = publish(either, key, "came early")

    gate.touch()

    assert either.api.ended(run_id)["state"] == "completed"
    assert [one["id"] for one in conditions_of(either, run_id)] == [event["id"]]


def test_an_event_from_before_the_look_back_does_not_count(either: Stand, tmp_path: Path) -> None:
    name, key = one_node(either, "late", wait_for=[{"event": "KEY", "look_back": 0}])
    publish(either, key, "long ago")
    run_id = either.begin(name)
    either.until_node(run_id, "held", "suspended")
    either.settle()
    assert either.stood(run_id)["held"] == "suspended"

    event = publish(either, key, "now")

    assert either.api.ended(run_id)["state"] == "completed"
    assert conditions_of(either, run_id) == [{"event": key, "id": event["id"], "scope": None, "payload": "now"}]


def test_an_event_of_another_scope_does_not_count(either: Stand) -> None:
    name, key = one_node(either, "scoped", wait_for=[{"event": "KEY", "scope": "eu", "look_back": 600}])
    publish(either, key, 0, scope="us")
    run_id = either.begin(name)
    either.until_node(run_id, "held", "suspended")
    publish(either, key, 1, scope="us")
    publish(either, key, 2)
    either.settle()
    assert either.stood(run_id)["held"] == "suspended"

    publish(either, key, 3, scope="eu")

    assert either.api.ended(run_id)["state"] == "completed"
    assert [one["payload"] for one in conditions_of(either, run_id)] == [3]


def test_each_workflow_waits_for_the_event_of_its_own_scope(either: Stand) -> None:
    wanted = {"event": "KEY", "scope_from": "input.region + string(parents.first.n)", "look_back": 600}
    name, key = one_node(either, "own", wait_for=[wanted])
    ids = {}
    for region in ("eu", "us"):
        ids[region] = either.begin(name, {"first": {"output": {"n": 7}}}, input={"region": region})
        either.until_node(ids[region], "held", "suspended")

    publish(either, key, 1, scope="us7")

    assert either.api.ended(ids["us"])["state"] == "completed"
    either.settle()
    assert either.stood(ids["eu"])["held"] == "suspended"
    publish(either, key, 2, scope="eu7")
    assert either.api.ended(ids["eu"])["state"] == "completed"
    assert [conditions_of(either, ids[region])[0]["payload"] for region in ("us", "eu")] == [1, 2]


def test_a_scope_that_cannot_be_told_makes_its_node_fail(either: Stand) -> None:
    name, _ = one_node(either, "untold", wait_for=[{"event": "KEY", "scope_from": "input.missing"}])

    run = either.api.ended(either.begin(name))

    assert either.node(run["id"], "held")["error"]["code"] == "expression_failed"


def test_an_event_counts_only_if_its_expression_is_true(either: Stand) -> None:
    wanted = {"event": "KEY", "expression": "input.n > 1 && metadata.sure && event.key != ''", "look_back": 600}
    name, key = one_node(either, "narrow", wait_for=[wanted])
    run_id = either.begin(name)
    either.until_node(run_id, "held", "suspended")
    for payload, metadata in (
        ({"n": 1}, {"sure": True}),
        ({}, {"sure": True}),
        ({"n": 2}, {"sure": False}),
        ("text", {}),
    ):
        publish(either, key, payload, metadata=metadata)
    either.settle()
    assert either.stood(run_id)["held"] == "suspended"

    publish(either, key, {"n": 2}, metadata={"sure": True})

    assert either.api.ended(run_id)["state"] == "completed"
    assert [one["payload"] for one in conditions_of(either, run_id)] == [{"n": 2}]


def test_one_event_lets_go_of_many_workflows(either: Stand) -> None:
    name, key = one_node(either, "many", wait_for=[{"event": "KEY"}])
    runs = [{"task": name, "input": {"n": n}} for n in range(30)]
    ids = [run["id"] for run in either.api.call("POST", "/runs/bulk", {"runs": runs})["results"]]
    for run_id in ids:
        either.until_node(run_id, "held", "suspended")

    publish(either, key)

    assert {either.api.ended(run_id)["state"] for run_id in ids} == {"completed"}


def test_a_node_whose_event_came_before_is_skipped_and_what_is_after_it_runs(either: Stand) -> None:
    name, key = one_node(either, "skip", skip_if=[{"event": "KEY", "look_back": 600}])
    ran = either.api.ended(either.begin(name))
    publish(either, key)
    run_id = either.begin(name)

    run = either.api.ended(run_id)

    assert (either.stood(ran["id"])["held"], either.stood(run_id)["held"]) == ("completed", "skipped")
    assert run["output"] == {"after": {"node": "after", "parents": {"held": None}}}
    after = either.node(run_id, "after")
    assert after["trigger"]["parents"]["held"]["state"] == "skipped"
    assert [one["skipped"] for one in either.noted("started", after["id"])] == [["held"]]


def test_a_node_that_waits_is_skipped_when_the_event_comes(either: Stand) -> None:
    name, key = one_node(either, "skipped", wait_for=[AWAY], skip_if=[{"event": "KEY"}])
    run_id = either.begin(name)
    either.until_node(run_id, "held", "suspended")

    publish(either, key)

    assert either.api.ended(run_id)["state"] == "completed"
    assert either.stood(run_id) == {"first": "completed", "held": "skipped", "after": "completed"}


@pytest.mark.parametrize("state", ["suspended", "running"])
def test_what_cancels_a_node_holds_until_it_has_ended_and_takes_what_is_after_it(
    either: Stand, state: str, tmp_path: Path
) -> None:
    wait_for = [AWAY] if state == "suspended" else []
    name, key = one_node(either, "cancel", wait_for=wait_for, cancel_if=[{"event": "KEY"}])
    run_id = either.begin(name, {"held": {"gate": str(tmp_path / "never")}})
    held = either.until_node(run_id, "held", state)
    if state == "running":
        either.until_noted("started", held["id"])

    publish(either, key)

    run = either.api.ended(run_id)
    assert run["state"] == "cancelled"
    assert either.stood(run_id) == {"first": "completed", "held": "cancelled", "after": "cancelled"}
    held, after = either.node(run_id, "held"), either.node(run_id, "after")
    assert (held["cancelled_by"], after["cancelled_by"]) == ("condition", "node")
    assert after["reason"] == "node held was cancelled"
    if state == "running":
        either.until_noted("cancelled", held["id"])


def test_a_sleep_is_a_deadline_for_a_node(either: Stand, tmp_path: Path) -> None:
    name, _ = one_node(either, "deadline", cancel_if=[{"sleep": 0.3}])

    run = either.api.ended(either.begin(name, {"held": {"gate": str(tmp_path / "never")}}))

    assert (run["state"], either.node(run["id"], "held")["cancelled_by"]) == ("cancelled", "condition")


@pytest.mark.parametrize(("n", "state"), [(3, "completed"), (4, "skipped")])
def test_an_output_of_a_parent_decides_whether_a_node_is_skipped(either: Stand, n: int, state: str) -> None:
    name, _ = one_node(either, "decide", skip_if=[{"expression": "parents.first.n > input.most"}])

    run_id = either.begin(name, {"first": {"output": {"n": n}}}, input={"most": 3})

    assert either.api.ended(run_id)["state"] == "completed"
    assert either.stood(run_id)["held"] == state


def test_what_can_never_come_true_is_not_waited_for(either: Stand) -> None:
    name, _ = one_node(either, "never", wait_for=[{"expression": "parents.first.n > 3"}])

    run_id = either.begin(name, {"first": {"output": {"n": 1}}})

    assert either.api.ended(run_id)["state"] == "completed"
    held = either.node(run_id, "held")
    assert (held["state"], held["attempt"]) == ("skipped", 0)
    assert held["reason"] == "wait_for can never come true"


def test_an_expression_that_is_true_is_enough_in_an_or_group(either: Stand) -> None:
    expression = "parents.first.n > 3"
    name, _ = one_node(either, "enough", wait_for=[{"any": [AWAY, {"expression": expression}]}])

    run_id = either.begin(name, {"first": {"output": {"n": 4}}})

    assert either.api.ended(run_id)["state"] == "completed"
    assert conditions_of(either, run_id) == [{"expression": expression}]


@pytest.mark.parametrize("where", ["wait_for", "skip_if", "cancel_if"])
def test_an_expression_that_fails_makes_its_node_fail(either: Stand, where: str) -> None:
    name, _ = one_node(either, "wrong", **{where: [{"expression": "parents.first.missing > 3"}]})

    run = either.api.ended(either.begin(name, {"first": {"output": {"n": 1}}}))

    held = either.node(run["id"], "held")
    assert (held["state"], held["error"]["code"], held["attempt"]) == ("failed", "expression_failed", 0)
    assert "missing" in held["error"]["message"]
    assert (run["state"], run["error"]["node"], either.stood(run["id"])["after"]) == ("failed", "held", "cancelled")


def test_an_input_that_cannot_be_made_makes_its_node_fail(either: Stand) -> None:
    name = either.workflow(new("inputs"), node("first"), node("held", "first", input="parents.first.missing"))

    run = either.api.ended(either.begin(name, {"first": {"output": {}}}))

    assert either.node(run["id"], "held")["error"]["code"] == "expression_failed"
    assert run["state"] == "failed"


def test_many_that_sleep_go_on_each_once(stand: Stand) -> None:
    name, _ = one_node(stand, "sleepers", wait_for=[{"sleep": 0.5}])
    ids = [stand.begin(name, input={"n": n}) for n in range(20)]

    assert {stand.api.ended(run_id)["state"] for run_id in ids} == {"completed"}
    until(lambda: len(stand.started(f"{name}.held")) >= 20, "20 starts")
    held = [stand.node(run_id, "held")["id"] for run_id in ids]
    assert [len(stand.noted("started", run_id)) for run_id in held] == [1] * 20


@pytest.mark.parametrize("narrowed", [{"scope": "eu"}, {"expression": "input.n == 1200"}], ids=["scope", "expression"])
def test_an_event_is_found_among_many_others_that_came_before_it(either: Stand, narrowed: Object) -> None:
    name, key = one_node(either, "crowd", wait_for=[{"event": "KEY", "look_back": 600} | narrowed])
    for first in (0, 600):
        many = [{"key": key, "payload": {"n": n}} for n in range(first, first + 600)]
        assert either.api.call("POST", "/events/bulk", {"events": many})["results"]
    event = publish(either, key, {"n": 1200}, scope="eu")

    run_id = either.begin(name)

    assert either.api.ended(run_id)["state"] == "completed"
    assert [one["id"] for one in conditions_of(either, run_id)] == [event["id"]]
