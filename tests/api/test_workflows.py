"""Workflows as they are set, shown and removed, as a client sees it."""

import asyncio
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Engine
from tests.api.conftest import WORKER_URL, FakeWorker

pytestmark = pytest.mark.anyio

ORDER: dict[str, Any] = {
    "nodes": [
        {"name": "reserve", "task": "echo"},
        {
            "name": "charge",
            "task": "later",
            "parents": ["reserve"],
            "wait_for": [{"any": [{"event": "paid", "scope": "shop", "expression": "input.ok"}, {"sleep": 60}]}],
            "skip_if": [{"expression": "input.total == 0"}],
            "cancel_if": [{"event": "withdrawn", "look_back": 0}],
            "input": "{'order': input.id, 'amount': parents.reserve.total}",
        },
        {"name": "ship", "parents": ["charge"]},
    ],
    "on_failure": {"name": "refund", "task": "echo", "input": "parents.reserve"},
}


async def serve(api: httpx.AsyncClient, *tasks: Any, worker: str = "plain") -> httpx.Response:
    """Let a worker declare tasks, and nothing else."""
    listed = [{"name": task} if isinstance(task, str) else task for task in tasks]
    return await api.post("/workers", json={"name": worker, "url": WORKER_URL, "mode": "plain", "tasks": listed})


async def test_a_workflow_is_set_and_shown_with_what_was_left_out(api: httpx.AsyncClient) -> None:
    put = await api.put("/workflows/order", json=ORDER | {"on_events": ["order.placed"], "priority": 3})
    shown = (await api.get("/workflows/order")).json()

    assert (put.status_code, put.headers["location"]) == (201, "/workflows/order")
    assert put.json() == shown
    assert (shown["name"], shown["version"], shown["priority"], shown["paused"]) == ("order", 1, 3, False)
    assert [(node["name"], node["task"], node["parents"]) for node in shown["nodes"]] == [
        ("reserve", "echo", []),
        ("charge", "later", ["reserve"]),
        ("ship", "ship", ["charge"]),
    ]
    charge = shown["nodes"][1]
    assert charge["wait_for"] == [
        {
            "any": [
                {"event": "paid", "scope": "shop", "scope_from": None, "expression": "input.ok", "look_back": 5},
                {"sleep": 60},
            ]
        }
    ]
    assert charge["skip_if"] == [{"expression": "input.total == 0"}]
    assert charge["cancel_if"] == [
        {"event": "withdrawn", "scope": None, "scope_from": None, "expression": None, "look_back": 0}
    ]
    assert shown["on_failure"] == {"name": "refund", "task": "echo", "input": "parents.reserve"}
    assert (shown["on_success"], shown["on_events"]) == (None, ["order.placed"])
    assert (shown["workers"], shown["unserved"]) == ([], ["ship"])


async def test_what_is_shown_can_be_set_again_and_changes_nothing(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json=ORDER)
    shown = (await api.get("/workflows/order")).json()
    made = {name: shown[name] for name in shown.keys() - {"name", "version", "paused", "workers", "unserved"}}

    again = await api.put("/workflows/order", json=ORDER)
    as_shown = await api.put("/workflows/copy", json=made)
    changed = await api.put("/workflows/order", json=ORDER | {"on_failure": None})

    assert (again.status_code, again.json()) == (200, shown)
    assert as_shown.json() == shown | {"name": "copy"}
    assert (changed.status_code, changed.json()["version"], changed.json()["on_failure"]) == (200, 2, None)


async def test_workflows_are_listed_by_name_without_other_tasks(api: httpx.AsyncClient) -> None:
    for name in ("b", "c", "a"):
        await api.put(f"/workflows/{name}", json={"nodes": [{"name": "echo"}]})

    first = (await api.get("/workflows?limit=2")).json()
    rest = (await api.get(f"/workflows?limit=2&cursor={first['next_cursor']}")).json()

    assert [one["name"] for one in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None


async def test_a_workflow_is_a_task_among_the_tasks(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json=ORDER)

    tasks = {task["name"]: task["graph"] for task in (await api.get("/tasks")).json()["items"]}
    paused = (await api.post("/tasks/order/pause")).json()
    shown = (await api.get("/workflows/order")).json()

    assert tasks.keys() == {"break", "echo", "later", "order"}
    assert [name for name, graph in tasks.items() if graph is not None] == ["order"]
    assert (paused["paused"], shown["paused"]) == (True, True)


async def test_a_worker_declares_a_workflow_as_it_declares_a_task(api: httpx.AsyncClient) -> None:
    nodes = [{"name": "echo"}, {"name": "second", "task": "echo", "parents": ["echo"]}]

    answer = await serve(api, "echo", {"name": "order", "graph": {"nodes": nodes}})
    shown = (await api.get("/workflows/order")).json()

    assert answer.status_code == 200, answer.text
    assert [node["name"] for node in shown["nodes"]] == ["echo", "second"]
    assert (shown["workers"], shown["unserved"]) == (["plain"], [])


# -- names -------------------------------------------------------------------------------------------------------------


async def test_the_name_of_a_task_that_a_worker_serves_is_taken(api: httpx.AsyncClient) -> None:
    taken = await api.put("/workflows/echo", json={"nodes": [{"name": "later"}]})
    await serve(api, "later")
    free = await api.put("/workflows/echo", json={"nodes": [{"name": "later"}]})

    assert (taken.status_code, taken.json()["code"]) == (409, "name_taken")
    assert "worker plain serves" in taken.json()["detail"]
    assert free.status_code == 200  # it is known as a task that nobody serves
    assert [one["name"] for one in (await api.get("/workflows")).json()["items"]] == ["echo"]


async def test_a_worker_cannot_take_the_name_of_a_workflow_for_a_task(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json=ORDER)

    refused = await serve(api, "echo", "order")
    before = (await api.get("/workers/plain")).json()["tasks"]
    await api.delete("/workflows/order")
    taken = await serve(api, "echo", "order")

    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (409, "name_taken", "tasks")
    assert "DELETE /workflows/order" in refused.json()["detail"]
    assert before == ["echo", "break", "later"]
    assert taken.status_code == 200
    assert (await api.get("/tasks/order")).json()["graph"] is None


async def test_a_worker_may_make_a_task_of_the_workflow_that_it_alone_declares(api: httpx.AsyncClient) -> None:
    workflow = {"name": "order", "graph": {"nodes": [{"name": "echo"}]}}
    await serve(api, "echo", workflow)
    other = await serve(api, "order", worker="other")

    turned = await serve(api, "echo", "order")

    assert (other.status_code, other.json()["code"]) == (409, "name_taken")
    assert "worker plain declares" in other.json()["detail"]
    assert turned.status_code == 200
    assert (await api.get("/workflows/order")).status_code == 404


async def test_a_task_becomes_no_workflow_while_runs_of_it_are_open(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    await serve(api, "later")

    refused = await api.put("/workflows/echo", json={"nodes": [{"name": "later"}]})
    await api.post(f"/runs/{run['id']}/cancel")
    allowed = await api.put("/workflows/echo", json={"nodes": [{"name": "later"}]})

    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert run["id"] in refused.json()["detail"]
    assert allowed.status_code == 200


async def test_a_removed_workflow_becomes_no_task_while_runs_of_it_are_open(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})
    run = (await api.post("/runs", json={"task": "order", "delay": 3600})).json()
    await api.delete("/workflows/order")

    refused = await serve(api, "echo", "order")
    await api.post(f"/runs/{run['id']}/cancel")
    allowed = await serve(api, "echo", "order")

    assert (refused.status_code, refused.json()["code"]) == (409, "name_taken")
    assert run["id"] in refused.json()["detail"]
    assert allowed.status_code == 200


# -- removing ----------------------------------------------------------------------------------------------------------


async def test_a_removed_workflow_is_known_no_more(api: httpx.AsyncClient) -> None:
    crons = [{"expression": "0 0 1 1 *"}]
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}], "on_events": ["placed"], "crons": crons})
    await api.post("/schedules", json={"name": "mine", "task": "order", "expression": "0 0 1 1 *"})
    await api.post("/tasks/order/filters", json={"expression": "input.a"})

    removed = await api.delete("/workflows/order")
    again = await api.delete("/workflows/order")
    submitted = await api.post("/runs", json={"task": "order"})
    event = (await api.post("/events", json={"key": "placed", "payload": {"a": True}})).json()

    assert (removed.status_code, again.status_code) == (204, 404)
    assert (submitted.status_code, submitted.json()["code"]) == (422, "task_unknown")
    assert event["starts"] == []
    assert (await api.get("/workflows")).json()["items"] == []
    assert (await api.get("/schedules")).json()["items"] == []
    for path in ("/workflows/order", "/tasks/order", "/tasks/order/filters"):
        assert (await api.get(path)).status_code == 404


async def test_a_workflow_that_comes_again_after_it_was_removed_is_a_new_version(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})
    await api.delete("/workflows/order")
    await engine.stop(0)
    await engine.start()

    gone = await api.get("/workflows/order")
    put = await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})

    assert gone.status_code == 404
    assert (put.status_code, put.json()["version"]) == (201, 2)


async def test_the_runs_of_a_removed_workflow_go_on_also_after_a_restart(
    api: httpx.AsyncClient, engine: Engine
) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})
    run = (await api.post("/runs", json={"task": "order", "input": 7, "delay": 3600})).json()
    await api.delete("/workflows/order")
    await engine.stop(0)
    await engine.start()

    await api.patch(f"/runs/{run['id']}", json={"delay": 0})
    ended = (await api.get(f"/runs/{run['id']}?wait=60")).json()

    assert (ended["state"], ended["output"]) == ("completed", {"echo": 7})


async def test_a_pause_that_outlasts_its_workflow_can_be_lifted(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})
    await api.post("/tasks/order/pause")
    run = (await api.post("/runs", json={"task": "order"})).json()
    await api.delete("/workflows/order")

    held = (await api.get(f"/runs/{run['id']}")).json()
    resumed = await api.post("/tasks/order/resume")
    ended = (await api.get(f"/runs/{run['id']}?wait=60")).json()

    assert (held["state"], resumed.status_code, ended["state"]) == ("queued", 200, "completed")


async def test_a_workflow_that_a_worker_declares_is_neither_removed_nor_set(api: httpx.AsyncClient) -> None:
    await serve(api, "echo", {"name": "order", "graph": {"nodes": [{"name": "echo"}]}})

    refused = await api.delete("/workflows/order")
    not_set = await api.put("/workflows/order", json={"nodes": [{"name": "echo"}, {"name": "more", "task": "echo"}]})
    kept = (await api.get("/workflows/order")).json()
    await api.delete("/workers/plain")
    removed = await api.delete("/workflows/order")

    assert (refused.status_code, refused.json()["code"]) == (409, "workflow_declared")
    assert (not_set.status_code, not_set.json()["code"]) == (409, "workflow_declared")
    assert [node["name"] for node in kept["nodes"]] == ["echo"]
    assert "plain" in refused.json()["detail"]
    assert removed.status_code == 204


# -- what is refused ---------------------------------------------------------------------------------------------------


def _nodes(**node: Any) -> dict[str, Any]:
    return {"nodes": [{"name": "first", "task": "echo"}, {"name": "n", "task": "echo", "parents": ["first"]} | node]}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({}, "nodes", "nodes"),
        ({"nodes": []}, "nodes", "nodes"),
        ({"nodes": None}, "nodes", "nodes"),
        (_nodes(name="first"), "nodes", "two nodes named first"),
        (_nodes(name="no spaces"), "nodes[1].name", "nodes[1].name"),
        (_nodes(parents=["nobody"]), "nodes", "has the parent nobody"),
        (_nodes(parents=["n"]), "nodes", "n -> n"),
        (_nodes(colour="red"), "nodes[1].colour", "colour"),
        (_nodes(wait_for=[{"sleep": 0}]), "nodes[1].wait_for[0].sleep", "greater than 0"),
        (_nodes(wait_for=[{"event": "a*"}]), "nodes[1].wait_for[0].event", "one key"),
        (_nodes(wait_for=[{}]), "nodes[1].wait_for[0]", "must be one of"),
        (_nodes(skip_if=[{"any": [{"sleep": "x"}]}]), "nodes[1].skip_if[0].any[0].sleep", "number"),
        (_nodes() | {"retries": 3}, "retries", "tasks of its nodes"),
        (_nodes() | {"on_failure": "echo"}, "on_failure", "on_failure"),
        (_nodes() | {"graph": {}}, "graph", "graph"),
        (_nodes() | {"name": "order"}, "name", "name"),
        (_nodes() | {"concurrency": [{"key": "input.a", "max_runs": 0}]}, "concurrency[0].max_runs", "max_runs"),
        (_nodes() | {"filters": [{"scope": "a"}]}, "", "on_events"),
    ],
)
async def test_what_makes_no_workflow_is_refused_with_its_place(
    api: httpx.AsyncClient, body: dict[str, Any], field: str, said: str
) -> None:
    answer = await api.put("/workflows/order", json=body)

    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert said in answer.json()["detail"]
    assert (await api.get("/workflows")).json()["items"] == []


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"input": "input."}, "node n: input: the expression 'input.' is wrong"),
        ({"input": "payload.a"}, "node n: input: the expression 'payload.a' is wrong"),
        ({"input": "parents.other.total"}, "node n: input: it reads the output of other, which is none of its parents"),
        ({"wait_for": [{"event": "a", "scope_from": "[input.a]"}]}, "node n: wait_for[0].scope_from"),
        (
            {"wait_for": [{"event": "a", "scope_from": "parents.a.id"}]},
            "wait_for[0].scope_from: it reads the output of a",
        ),
        ({"skip_if": [{"expression": "input.a + 1"}]}, "node n: skip_if[0].expression"),
        ({"cancel_if": [{"sleep": 1}, {"expression": "'yes'"}]}, "node n: cancel_if[1].expression"),
        ({"wait_for": [{"any": [{"sleep": 1}, {"event": "a", "expression": "parents.first"}]}]}, "wait_for[0].any[1]"),
    ],
)
async def test_an_expression_that_could_never_do_is_refused_with_its_node(
    api: httpx.AsyncClient, node: dict[str, Any], said: str
) -> None:
    put = await api.put("/workflows/order", json=_nodes(**node))
    declared = await serve(api, "echo", {"name": "order", "graph": _nodes(**node)})

    for answer in (put, declared):
        assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
        assert said in answer.json()["detail"]
    assert (await api.get("/workflows")).json()["items"] == []


async def test_a_workflow_that_would_run_itself_is_refused_with_the_path(api: httpx.AsyncClient) -> None:
    alone = await api.put("/workflows/a", json={"nodes": [{"name": "a"}]})
    await api.put("/workflows/a", json={"nodes": [{"name": "one", "task": "b"}]})
    await api.put("/workflows/b", json={"nodes": [{"name": "two", "task": "echo"}], "on_failure": {"name": "c"}})
    round_about = await api.put("/workflows/c", json={"nodes": [{"name": "echo"}], "on_success": {"name": "a"}})

    assert (alone.status_code, alone.json()["code"]) == (422, "policy_invalid")
    assert "a -> a" in alone.json()["detail"]
    assert round_about.status_code == 422
    assert "a -> b -> c -> a" in round_about.json()["detail"]


async def test_a_run_of_a_workflow_with_a_node_of_an_unknown_task_is_refused(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}, {"name": "n", "task": "nobody"}]})

    refused = await api.post("/runs", json={"task": "order"})
    await serve(api, "echo", "nobody")
    await serve(api, "echo")
    accepted = await api.post("/runs", json={"task": "order", "delay": 3600})

    assert (refused.status_code, refused.json()["code"], refused.json()["node"]) == (422, "task_unknown", "n")
    assert "the node n of the workflow order: there is no task nobody" in refused.json()["detail"]
    assert accepted.status_code == 201


@pytest.mark.parametrize("name", ["no%20spaces", "%00", "a" * 129])
async def test_a_name_of_a_bad_form_is_refused_and_found_nowhere(api: httpx.AsyncClient, name: str) -> None:
    put = await api.put(f"/workflows/{name}", json={"nodes": [{"name": "echo"}]})

    assert (put.status_code, put.json()["field"]) == (422, "name")
    for method in ("GET", "DELETE"):
        answer = await api.request(method, f"/workflows/{name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "workflow_unknown")


async def test_a_plain_task_is_no_workflow(api: httpx.AsyncClient) -> None:
    for method in ("GET", "DELETE"):
        answer = await api.request(method, "/workflows/echo")
        assert (answer.status_code, answer.json()["code"]) == (404, "workflow_unknown")


# -- runs --------------------------------------------------------------------------------------------------------------


async def ended(api: httpx.AsyncClient, task: str, **more: Any) -> dict[str, Any]:
    """Submit a run, and return it as it is looked at when it has ended."""
    run = (await api.post("/runs?wait=60", json={"task": task, **more})).json()
    found: dict[str, Any] = (await api.get(f"/runs/{run['id']}?wait=60")).json()
    return found


async def until(api: httpx.AsyncClient, run: dict[str, Any], node: str, state: str) -> dict[str, Any]:
    """Return a workflow's run once its node is in a state."""
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = (await api.get(f"/runs/{run['id']}")).json()
            if {one["name"]: one["state"] for one in found["nodes"]}[node] == state:
                return found


async def test_a_run_of_a_workflow_shows_its_nodes_in_its_order(api: httpx.AsyncClient) -> None:
    nodes = [
        {"name": "last", "task": "echo", "parents": ["broken", "fine"]},
        {"name": "fine", "task": "echo", "input": "1"},
        {"name": "broken", "task": "break"},
        {"name": "left_out", "task": "echo", "skip_if": [{"expression": "true"}]},
    ]
    await api.put("/workflows/order", json={"nodes": nodes, "on_failure": {"name": "sorry", "task": "echo"}})

    run = await ended(api, "order", input={"a": 1}, metadata={"m": 1})
    listed = (await api.get("/runs?kind=workflow")).json()["items"]

    assert (run["kind"], run["state"], run["attempt"], run["worker"]) == ("workflow", "failed", 0, None)
    assert [(one["name"], one["task"], one["state"], one["reason"]) for one in run["nodes"]] == [
        ("last", "echo", "cancelled", "node broken failed"),
        ("fine", "echo", "completed", None),
        ("broken", "break", "failed", run["error"]["message"].partition("http_error: ")[2]),
        ("left_out", "echo", "skipped", "skip_if"),
        ("sorry", "echo", "completed", None),
    ]
    assert [one["parents"] for one in run["nodes"]] == [["broken", "fine"], [], [], [], []]
    fine = (await api.get(f"/runs/{run['nodes'][1]['run']}")).json()
    assert (fine["kind"], fine["node"], fine["parent"], fine["root"]) == ("node", "fine", run["id"], run["id"])
    assert (fine["input"], fine["output"], fine["metadata"]) == (1, 1, {"m": 1})
    assert (run["nodes"][1]["started_at"], run["nodes"][1]["finished_at"]) == (fine["started_at"], fine["finished_at"])
    assert run["children"] == {"total": 0, "by_state": {}}
    assert [one["id"] for one in listed] == [run["id"]]
    assert "nodes" not in listed[0]
    assert "children" not in listed[0]


async def test_a_node_that_was_not_reached_waits_and_has_no_run(api: httpx.AsyncClient) -> None:
    nodes = [{"name": "first", "task": "later"}, {"name": "second", "task": "echo", "parents": ["first"]}]
    await api.put("/workflows/order", json={"nodes": nodes, "on_success": {"name": "done", "task": "echo"}})
    run = (await api.post("/runs", json={"task": "order"})).json()

    found = await until(api, run, "first", "running")
    await api.post(f"/runs/{run['id']}/cancel", json={"reason": "withdrawn"})
    cancelled = (await api.get(f"/runs/{run['id']}?wait=60")).json()

    assert found["state"] == "running"
    waiting = {"parents": ["first"], "reason": None, "started_at": None, "finished_at": None}
    assert found["nodes"][1:] == [{"name": "second", "task": "echo", "state": "waiting", "run": None} | waiting]
    assert (cancelled["state"], cancelled["cancelled_by"]) == ("cancelled", "request")
    assert [(one["name"], one["state"], one["reason"]) for one in cancelled["nodes"]] == [
        ("first", "cancelled", "workflow cancelled: withdrawn"),
        ("second", "cancelled", "withdrawn"),
    ]


async def test_a_run_of_an_older_version_shows_the_graph_that_it_was_made_with(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "old", "task": "echo"}]})
    before = await ended(api, "order")
    await api.put("/workflows/order", json={"nodes": [{"name": "new", "task": "echo"}]})
    after = await ended(api, "order")
    await api.delete("/workflows/order")

    shown = [(await api.get(f"/runs/{run['id']}")).json() for run in (before, after)]

    assert [[one["name"] for one in run["nodes"]] for run in shown] == [["old"], ["new"]]
    assert [run["task_version"] for run in shown] == [1, 2]


async def test_a_run_counts_its_children_by_their_states(api: httpx.AsyncClient) -> None:
    parent = (await api.post("/runs", json={"task": "later"})).json()
    for task in ("echo", "echo", "break"):
        await api.post("/runs?wait=60", json={"task": task, "parent": parent["id"]})
    child = (await api.post("/runs", json={"task": "echo", "parent": parent["id"], "delay": 3600})).json()
    grandchild = (await api.post("/runs", json={"task": "echo", "parent": child["id"], "delay": 3600})).json()

    found = (await api.get(f"/runs/{parent['id']}")).json()
    children = (await api.get(f"/runs?parent={parent['id']}")).json()["items"]
    waiting = (await api.get(f"/runs?parent={parent['id']}&state=queued&task=echo")).json()["items"]
    below = (await api.get(f"/runs?root={parent['id']}&kind=task")).json()["items"]

    assert found["children"] == {"total": 4, "by_state": {"completed": 2, "failed": 1, "queued": 1}}
    assert "nodes" not in found
    assert [one["state"] for one in children] == ["queued", "failed", "completed", "completed"]
    assert [one["id"] for one in waiting] == [child["id"]]
    assert [one["id"] for one in below][:2] == [grandchild["id"], child["id"]]
    assert len(below) == 5


@pytest.mark.parametrize(
    "query", ["parent=x", "root=", "kind=flow", "kind=", "parent=00000000-0000-7000-8000-00000000000A"]
)
async def test_a_filter_of_a_bad_form_is_refused(api: httpx.AsyncClient, query: str) -> None:
    answer = await api.get(f"/runs?{query}")

    assert (answer.status_code, answer.json()["field"]) == (422, query.partition("=")[0])


# -- replays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "again"),
    [
        (None, {"broken", "after"}),
        ({}, {"broken", "after"}),
        ({"from": None}, {"broken", "after"}),
        ({"from": "failed"}, {"broken", "after"}),
        ({"from": "start"}, {"first", "beside", "broken", "after"}),
        ({"from": ["beside"]}, {"beside"}),
        ({"from": ["first", "broken"]}, {"first", "beside", "broken", "after"}),
    ],
)
async def test_a_replay_runs_anew_what_it_is_told_to(
    api: httpx.AsyncClient, body: dict[str, Any] | None, again: set[str]
) -> None:
    nodes = [
        {"name": "first", "task": "echo"},
        {"name": "beside", "task": "echo", "parents": ["first"]},
        {"name": "broken", "task": "break", "parents": ["first"]},
        {"name": "after", "task": "echo", "parents": ["broken"]},
    ]
    await api.put("/workflows/order", json={"nodes": nodes})
    before = await ended(api, "order")

    replayed = await api.post(f"/runs/{before['id']}/replay", json=body)
    after = (await api.get(f"/runs/{before['id']}?wait=60")).json()

    assert replayed.status_code == 200, replayed.text
    assert after["state"] == "failed"
    runs = [{one["name"]: one["run"] for one in run["nodes"]} for run in (before, after)]
    assert {name for name in runs[0] if runs[0][name] != runs[1][name]} == again
    old = [(await api.get(f"/runs/{runs[0][name]}")).json() for name in again]
    assert {one["was_node"] for one in old} == again
    assert [one["node"] for one in old] == [None] * len(again)
    assert after["children"]["total"] == 0


@pytest.mark.parametrize("given", ["end", "", [], [1], {"a": 1}, 7, True])
async def test_a_replay_from_somewhere_that_cannot_be_is_refused(api: httpx.AsyncClient, given: Any) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "echo"}]})
    run = await ended(api, "order")

    answer = await api.post(f"/runs/{run['id']}/replay", json={"from": given})

    assert (answer.status_code, answer.json()["field"]) == (422, "from")


async def test_a_replay_from_a_node_that_is_not_there_names_those_that_are(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "a", "task": "echo"}, {"name": "b", "task": "echo"}]})
    run = await ended(api, "order")

    answer = await api.post(f"/runs/{run['id']}/replay", json={"from": ["c"]})

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "node_unknown", "from")
    assert "no node c; its nodes are a, b" in answer.json()["detail"]


async def test_the_run_of_a_task_is_replayed_as_a_whole_and_that_of_a_node_not_by_itself(
    api: httpx.AsyncClient,
) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "a", "task": "echo"}]})
    task, workflow = await ended(api, "echo"), await ended(api, "order")

    from_node = await api.post(f"/runs/{task['id']}/replay", json={"from": ["a"]})
    node = await api.post(f"/runs/{workflow['nodes'][0]['run']}/replay")

    assert (from_node.status_code, from_node.json()["field"]) == (422, "from")
    assert (node.status_code, node.json()["code"], node.json()["parent"]) == (409, "run_is_node", workflow["id"])


# -- pauses ------------------------------------------------------------------------------------------------------------


async def test_of_a_paused_workflow_nothing_begins_and_what_runs_goes_on(
    api: httpx.AsyncClient, worker: FakeWorker
) -> None:
    nodes = [{"name": "a", "task": "later"}, {"name": "b", "task": "echo", "parents": ["a"]}]
    await api.put("/workflows/order", json={"nodes": nodes})
    running = (await api.post("/runs", json={"task": "order"})).json()
    await until(api, running, "a", "running")
    await api.post("/tasks/order/pause")

    held = (await api.post("/runs", json={"task": "order"})).json()
    [delivered] = worker.delivered
    lease = {"authorization": f"Bearer {delivered['lease_token']}"}
    path = f"/runs/{delivered['run_id']}/attempts/1/complete"
    await api.post(path, json={"output": 1}, headers=lease)
    went_on = (await api.get(f"/runs/{running['id']}?wait=60")).json()
    seen = (await api.get(f"/runs/{held['id']}")).json()
    await api.post("/tasks/order/resume")
    begun = await until(api, held, "a", "running")

    assert went_on["state"] == "completed"
    assert (seen["state"], [one["state"] for one in seen["nodes"]]) == ("queued", ["waiting", "waiting"])
    assert begun["state"] == "running"


async def test_a_replay_of_many_passes_over_nodes(api: httpx.AsyncClient) -> None:
    await api.put("/workflows/order", json={"nodes": [{"name": "n", "task": "break"}]})
    workflow, task = await ended(api, "order"), await ended(api, "break")

    begun = await api.post("/runs/replay", json={"filter": {"task": "break", "state": "failed"}})
    async with asyncio.timeout(60):
        while (done := (await api.get(f"/operations/{begun.json()['id']}")).json())["state"] == "running":
            pass

    assert (done["done"], done["skipped"]) == (1, 1)
    assert (await api.get(f"/runs/{task['id']}?wait=60")).json()["attempt"] == 2
    assert (await api.get(f"/runs/{workflow['nodes'][0]['run']}")).json()["attempt"] == 1
