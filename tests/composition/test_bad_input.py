"""What cannot be: each is refused in a sentence, or ends by a rule that is written down, and nothing hangs."""

from typing import Any

import pytest

from tests.composition.stand import LONG, Stand, new
from tests.composition.test_graphs import node
from tests.e2e.stage import SECRET, Object


def refused(stand: Stand, *nodes: Object, **more: Any) -> str:
    """Return what is said of a workflow that is refused, be it set or declared by a worker."""
    name = new("bad")
    problem: Object = stand.api.call("PUT", f"/workflows/{name}", {"nodes": nodes} | more, status=422)
    task = {"name": name, "graph": {"nodes": nodes}} | more
    worker = {"name": name, "url": f"{stand.host.url}/plain/", "mode": "plain", "secret": SECRET, "tasks": [task]}
    declared = stand.api.call("POST", "/workers", worker, status=422)
    assert problem["code"], problem
    assert declared["code"], declared
    return f"{problem.get('field')} {problem['detail']} {declared.get('field')} {declared['detail']}"


def wide(count: int) -> list[Object]:
    return [node(f"n{n}", task="wide") for n in range(count)]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([], ["nodes"]),
        ([node("a", "c"), node("b", "a"), node("c", "b")], ["circle", "a -> c -> b -> a"]),
        ([node("a", "a")], ["circle", "a -> a"]),
        ([node("a"), node("b", "nobody")], ["nobody", "no such node"]),
        ([node("a"), node("a")], ["two nodes named a"]),
        ([node("a"), node("b", "a", "a")], ["twice"]),
        ([node("")], ["name"]),
        ([node("a b")], ["name"]),
        ([node("a", wait_for=[{"sleep": 0}])], ["sleep"]),
        ([node("a", wait_for=[{"sleep": 31_536_001}])], ["sleep"]),
        ([node("a", wait_for=[{"event": "user:*"}])], ["pattern"]),
        ([node("a", wait_for=[{"event": "x", "look_back": 86_401}])], ["look_back"]),
        ([node("a", wait_for=[{"nap": 1}])], ["sleep", "event", "expression"]),
        ([node("a", skip_if=[{"any": []}])], ["any"]),
        ([node("a", cancel_if=[{"sleep": 1}] * 17)], ["16"]),
        ([node("a", skip_if=[{"expression": "parents.b +"}])], ["skip_if"]),
        ([node("a", skip_if=[{"expression": "nonsense > 1"}])], ["nonsense"]),
        ([node("a", input="parents.b +")], ["input"]),
        (wide(1_001), ["1000", "1001"]),
    ],
    ids=lambda given: None if isinstance(given, list) and given and isinstance(given[0], dict) else str(given)[:30],
)
def test_what_is_no_graph_is_refused_in_a_sentence(stand: Stand, nodes: list[Object], said: list[str]) -> None:
    detail = refused(stand, *nodes)

    assert [word for word in said if word not in detail] == [], detail


@pytest.mark.parametrize(
    "more",
    [{"retries": 1}, {"execution_timeout": 5}, {"slot_cost": 2}, {"on_failure": "b"}, {"batch_size": 5}],
    ids=lambda more: next(iter(more)),
)
def test_what_a_workflow_cannot_have_is_refused(stand: Stand, more: Object) -> None:
    assert next(iter(more)) in refused(stand, node("a"), **more)


def test_a_workflow_of_itself_is_refused(stand: Stand) -> None:
    first, second = new("first"), new("second")
    stand.workflow(second, node("a", task=stand.workflow(first, node("b"))))

    for name, nodes in ((first, [node("c", task=first)]), (first, [node("c", task=second)])):
        problem = stand.api.call("PUT", f"/workflows/{name}", {"nodes": nodes}, status=422)
        assert first in problem["detail"]


def test_a_workflow_of_a_thousand_nodes_runs(stand: Stand) -> None:
    name = new("thousand")
    stand.worker(f"{name}-own", {"name": f"{name}.a"}, slots=500)
    nodes = [node(f"n{n}", *([f"n{n - 1}"] if n % 10 else []), task=f"{name}.a") for n in range(999)]
    stand.workflow(name, *nodes, node("last", *(one["name"] for one in nodes if one["name"].endswith("9"))))

    run = stand.api.ended(stand.begin(name, {"last": {"output": "all"}}), 300)

    assert run["state"] == "completed"
    assert run["output"]["last"] == "all"
    assert len(stand.started(f"{name}.a")) == 999


def test_an_output_that_is_no_json_fails_its_node_or_is_its_text(stand: Stand) -> None:
    name = new("nojson")
    stand.plain(f"{name}-own", {"name": f"{name}.a"})
    stand.workflow(name, node("a", task=f"{name}.a"), node("b", "a", task=f"{name}.a"))

    run = stand.api.ended(stand.begin(name, {"a": {"text": "{not json"}}))

    a = stand.node(run["id"], "a")
    assert a["state"] in ("failed", "completed")
    assert run["state"] == a["state"]
    if a["state"] == "failed":
        assert a["error"]["code"] == "bad_json"
    else:
        assert run["output"]["b"]["parents"]["a"] == "{not json"


def test_outputs_that_are_too_large_together_fail_the_node_that_would_get_them(stand: Stand) -> None:
    names = [f"p{n}" for n in range(6)]
    name = stand.workflow(new("large"), *(node(one) for one in names), node("all", *names), node("some", *names[:4]))

    does: Object = {one: {"letters": 900_000} for one in names} | {"all": {"output": 6}, "some": {"output": 4}}
    run = stand.api.ended(stand.begin(name, does))

    error = stand.node(run["id"], "all")["error"]
    assert error["code"] == "parents_too_large", error
    assert (run["state"], stand.stood(run["id"])["some"]) == ("failed", "completed")


def test_a_node_of_a_task_that_nobody_has_ever_served_is_refused_at_the_submit(stand: Stand) -> None:
    name = stand.workflow(new("unknown"), node("a", task=new("never-served")))

    problem = stand.api.submit(name, {}, status=422)

    assert problem["code"] == "task_unknown"
    assert "never-served" in problem["detail"]


def test_a_condition_of_no_truth_value_fails_its_node(stand: Stand) -> None:
    name = stand.workflow(new("untrue"), node("a"), node("b", "a", skip_if=[{"expression": "parents.a.n"}]))

    run = stand.api.ended(stand.begin(name, {"a": {"output": {"n": 1}}}))

    assert (run["state"], stand.node(run["id"], "b")["error"]["code"]) == ("failed", "expression_failed")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/runs/RUN/replay", {"from": 7}, 422),
        ("POST", "/runs/RUN/replay", {"from": ["a"], "more": 1}, 422),
        ("POST", "/runs/RUN/cancel", {"reason": 7}, 422),
        ("GET", "/runs/RUN?wait=1&awaited_by=nobody", None, 422),
        ("GET", "/runs?root=nobody", None, 422),
        ("GET", "/runs?kind=flow", None, 422),
        ("POST", "/runs", {"task": "NAME", "child_key": 7}, 422),
        ("POST", "/runs", {"task": "NAME", "awaited": "yes"}, 422),
        ("POST", "/runs", {"task": "NAME", "parents": {}}, 422),
    ],
)
def test_what_is_asked_for_wrongly_is_refused(stand: Stand, method: str, path: str, body: Any, status: int) -> None:
    name = stand.workflow(new("asked"), node("a"))
    run_id = stand.begin(name)
    stand.api.ended(run_id)
    if body and "task" in body:
        body = body | {"task": name}

    answer = stand.api.send(method, path.replace("RUN", run_id), body)

    assert answer.status_code == status, answer.text
    assert answer.json()["code"]


def test_a_node_is_no_door_for_a_submit_and_cannot_be_moved(stand: Stand) -> None:
    name = stand.workflow(new("inside"), node("a", wait_for=[{"sleep": LONG}]), node("b", "a"))
    run_id = stand.begin(name)
    asleep = stand.until_node(run_id, "a", "suspended")

    moved = stand.api.send("PATCH", f"/runs/{asleep['id']}", {"delay": 1})

    assert moved.status_code == 409, moved.text
    assert stand.stood(run_id)["a"] == "suspended"
    stand.api.call("POST", f"/runs/{run_id}/cancel")
    assert stand.api.ended(run_id)["state"] == "cancelled"
