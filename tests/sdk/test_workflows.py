"""Workflows as an app declares them, and as their callers see them."""

import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from hurlbat import (
    Concurrency,
    ConfigError,
    ConnectionFailed,
    Context,
    Cron,
    Hurlbat,
    Node,
    OnEvent,
    Sleep,
    Task,
    When,
    Workflow,
    any_of,
)
from hurlbat.errors import TaskInvalid
from hurlbat.runs import Run
from tests.sdk.exchange import a_run, an_app, result_of
from tests.sdk.fake_server import Caller, FakeServer, answer, run_json
from tests.sdk.orders import Order, declared, nothing

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


@pytest.fixture
def order(hurlbat: Hurlbat) -> Workflow[Order]:
    return hurlbat.workflow("order", input=Order)


# -- declaring ---------------------------------------------------------------------------------------------------------


def test_a_workflow_and_its_functions_stand_in_the_manifest_with_all_that_was_said_of_them(hurlbat: Hurlbat) -> None:
    order = hurlbat.workflow(
        "order",
        input=Order,
        on_events="order.placed",
        crons=Cron("@daily", input={"id": 1}),
        concurrency=Concurrency("input.id"),
        priority=3,
        schedule_timeout=60,
    )

    @order.task
    async def reserve(order: Order) -> int:
        return order.id

    @order.task(
        name="pay",
        parents=reserve,
        wait_for=[Sleep(timedelta(minutes=1)), any_of(OnEvent("paid", scope="eu", look_back=60), When("input.id > 1"))],
        skip_if=When("parents.reserve == 0"),
        cancel_if={"event": "gone"},
        retries=3,
        execution_timeout=30,
    )
    def charge(order: Order, ctx: Context) -> str:
        return str(ctx.output(reserve))

    ship = order.add("ship", parents=["pay", reserve], input="{'id': input.id}")

    @order.on_failure(retries=1)
    def undo(order: Order) -> None: ...

    order.on_success(hurlbat.stub("thank", input=Order))

    graph = {
        "nodes": [
            {"name": "reserve", "task": "order.reserve"},
            {
                "name": "pay",
                "task": "order.pay",
                "parents": ["reserve"],
                "wait_for": [
                    {"sleep": 60.0},
                    {"any": [{"event": "paid", "scope": "eu", "look_back": 60.0}, {"expression": "input.id > 1"}]},
                ],
                "skip_if": [{"expression": "parents.reserve == 0"}],
                "cancel_if": [{"event": "gone"}],
            },
            {"name": "ship", "task": "ship", "parents": ["pay", "reserve"], "input": "{'id': input.id}"},
        ],
        "on_failure": {"name": "undo", "task": "order.undo"},
        "on_success": {"name": "thank", "task": "thank"},
    }
    schema = Order.model_json_schema()
    assert declared(hurlbat) == {
        "order.reserve": {"name": "order.reserve", "input_schema": schema, "output_schema": {"type": "integer"}},
        "order.pay": {
            "name": "order.pay",
            "retries": 3,
            "execution_timeout": 30.0,
            "input_schema": schema,
            "output_schema": {"type": "string"},
        },
        "order.undo": {"name": "order.undo", "retries": 1, "input_schema": schema, "output_schema": {"type": "null"}},
        "order": {
            "name": "order",
            "schedule_timeout": 60.0,
            "priority": 3,
            "concurrency": [{"key": "input.id"}],
            "on_events": ["order.placed"],
            "crons": [{"expression": "@daily", "input": {"id": 1}}],
            "graph": graph,
            "input_schema": schema,
            "output_schema": {"type": "object", "additionalProperties": True},
        },
    }
    full = json.loads(hurlbat.manifest().model_dump_json())["tasks"][-1]["graph"]["nodes"][0]
    empty: dict[str, Any] = {"parents": [], "wait_for": [], "skip_if": [], "cancel_if": [], "input": None}
    assert full == {"name": "reserve", "task": "order.reserve"} | empty
    assert (charge.node, charge.name, repr(charge)) == ("pay", "order.pay", "Node('order', 'pay')")
    assert (ship.node, ship.name, repr(order)) == ("ship", "ship", "Workflow('order')")


def test_a_node_that_is_added_later_is_in_the_manifest_and_changes_its_digest(
    hurlbat: Hurlbat, order: Workflow[Order]
) -> None:
    first = order.add("a")
    before = hurlbat.manifest()
    order.add("b", parents=first)
    between = hurlbat.manifest()
    order.on_failure(hurlbat.stub("c"))
    assert [node["name"] for node in declared(hurlbat)["order"]["graph"]["nodes"]] == ["a", "b"]
    assert len({before.version, between.version, hurlbat.manifest().version}) == 3


def test_a_task_a_stub_a_name_a_node_and_a_workflow_may_be_nodes(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    bill = hurlbat.task(name="bill", retries=2)(lambda: None)
    inner: Workflow[Any] = hurlbat.workflow("inner")
    far = inner.task(name="far")(lambda: None)
    nodes = [
        order.add(bill),
        order.add(bill, name="bill-again"),
        order.add(hurlbat.stub("elsewhere")),
        order.add("plain"),
        order.add(inner),
        order.add(far),
        order.task(parents="bill")(hurlbat.stub("stacked")),
    ]
    assert [(node.node, node.name) for node in nodes] == [
        ("bill", "bill"),
        ("bill-again", "bill"),
        ("elsewhere", "elsewhere"),
        ("plain", "plain"),
        ("inner", "inner"),
        ("inner.far", "inner.far"),
        ("stacked", "stacked"),
    ]
    assert nodes[0].policy.retries == 2
    assert list(hurlbat.tasks) == ["bill", "inner.far"]
    assert [task.name for task in hurlbat.manifest().tasks] == ["bill", "inner.far", "order", "inner"]


def test_parents_may_be_named_before_they_are_there(order: Workflow[Order]) -> None:
    order.add("late", parents=["early"])
    with pytest.raises(TaskInvalid, match=r"workflow order: graph: .*late has the parent early, and there is no such"):
        order.declared()
    order.add("early")
    assert [node.parents for node in order.graph.nodes] == [("early",), ()]


def test_a_workflow_is_called_and_declared_like_a_task(hurlbat: Hurlbat) -> None:
    bare: Workflow[None] = hurlbat.workflow("bare", input=None)
    bare.add("a")
    assert isinstance(bare, Task)
    assert bare.declared().input_schema is None
    assert (bare.ref("r").id, bare.cron_ref("c").name) == ("r", "c")
    assert hurlbat.task(on_failure=bare)(nothing).policy.on_failure == "bare"
    done = Run("r", "bare", "completed", output_text='{"a": [1]}')
    assert bare.output_of(done) == {"a": [1]}
    with pytest.raises(TaskInvalid, match="workflow bare has no function of its own"):
        bare()


async def test_a_schedule_of_a_workflow_whose_every_run_would_fail_is_refused(order: Workflow[Order]) -> None:
    with pytest.raises(ConfigError, match="each run of this schedule would fail: input"):
        await order.cron("@daily")


async def test_a_workflow_s_name_is_no_task_that_is_served_here(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    order.add("a")
    line = await result_of(hurlbat, a_run("order"))
    assert line["error"]["type"] == "unknown_task"


async def test_a_function_of_a_node_is_executed_and_may_be_run_alone(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    @order.task
    async def reserve(order: Order) -> int:
        return order.id + 1

    assert (await result_of(hurlbat, a_run("order.reserve", {"id": 1})))["output"] == 2
    assert await reserve(Order(id=2)) == 3


def test_a_node_is_known_by_its_type(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    node: Node[Any, int] = order.add(hurlbat.stub("a", output=int))
    assert node.read(5) == 5


# -- runs of workflows, as a caller sees them --------------------------------------------------------------------------


async def test_a_workflow_s_run_is_replayed_in_part(hurlbat: Hurlbat, order: Workflow[Order], call: Caller) -> None:
    server = FakeServer()
    server.attach(hurlbat)
    server.on("POST /runs/r1/replay", answer(200, run_json("queued")))
    charge, ship = order.add("pay", name="charge"), order.add("ship")
    parts: list[Any] = [None, "failed", "start", charge, [charge, "ship"], (ship,)]
    for part in parts:
        await call(order.ref("r1"), "replay", *([] if part is None else [part]))
    told = [json.loads(request.content or b"null") for request in server.requests]
    assert told == [
        None,
        {"from": "failed"},
        {"from": "start"},
        {"from": ["charge"]},
        {"from": ["charge", "ship"]},
        {"from": ["ship"]},
    ]


async def test_a_replay_that_was_sent_is_not_repeated(hurlbat: Hurlbat, order: Workflow[Order], call: Caller) -> None:
    server = FakeServer()
    server.attach(hurlbat)
    server.on("POST /runs/r1/replay", httpx.ReadError("gone"))
    with pytest.raises(ConnectionFailed):
        await call(order.ref("r1"), "replay", "start")
    assert len(server.requests) == 1


async def test_nodes_and_children_are_listed(hurlbat: Hurlbat, call: Caller) -> None:
    server = FakeServer()
    server.attach(hurlbat)
    node = {"name": "charge", "task": "pay", "state": "failed", "run": "r2", "parents": []}
    server.on(
        "GET /runs", answer(200, {"items": [run_json(kind="node", node="charge", parent="r1")], "next_cursor": None})
    )
    server.on("GET /runs/r1", answer(200, run_json(kind="workflow", nodes=[node])))
    client = hurlbat.sync_client if call.sync else hurlbat.client
    page = await call(client, "list_runs", parent="r1", kind="node", delayed=False)
    assert [(run.kind, run.node, run.parent, run.nodes) for run in page.items] == [("node", "charge", "r1", ())]
    assert dict(server.requests[0].url.params) == {"parent": "r1", "kind": "node"}
    assert (await call(client, "get_run", "r1")).nodes == (node,)
