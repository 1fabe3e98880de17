"""Workflows as an app declares them, what their nodes see of their parents, and a task that cancels its own run."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from hurlbat import (
    AnyOf,
    CancelRun,
    Concurrency,
    ConfigError,
    ConnectionFailed,
    Context,
    Cron,
    Hurlbat,
    Node,
    OnEvent,
    PayloadError,
    RunCancelled,
    Sleep,
    Task,
    When,
    Workflow,
    any_of,
)
from hurlbat.errors import TaskInvalid
from hurlbat.graph import MAX_NODES
from hurlbat.messages import BadMessage, read_message
from hurlbat.policy import Manifest, TaskPolicy
from hurlbat.runs import Run
from hurlbat.wire import BadLine, CancelledLine, describe_body, read_line, read_results, write_line
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of
from tests.sdk.fake_server import Caller, FakeServer, answer, run_json

pytestmark = pytest.mark.anyio


def unchecked(value: Any) -> Any:
    """Return it as a type checker lets pass, as that it is refused is the point."""
    return value


class Order(BaseModel):
    id: int
    at: datetime | None = None


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


@pytest.fixture
def order(hurlbat: Hurlbat) -> Workflow[Order]:
    return hurlbat.workflow("order", input=Order)


def nothing() -> None: ...


def declared(hurlbat: Hurlbat) -> dict[str, Any]:
    """Return the tasks of the manifest as its JSON says them, by name, without what was not said of them."""
    manifest = Manifest.read(hurlbat.manifest().model_dump_json().encode())
    assert manifest == hurlbat.manifest()
    return {task.name: task.model_dump(mode="json", exclude_defaults=True) for task in manifest.tasks}


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


# -- refusals ----------------------------------------------------------------------------------------------------------


def twice(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    order.on_failure(nothing)
    order.on_failure(name="other")(nothing)


def loop(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    a = order.add("a", parents="c")
    b = order.add("b", parents=[a, "d"])
    order.add("c", parents=b)


def foreign(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    order.add("a", parents=hurlbat.workflow("other").add("b"))


def same(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    order.task(nothing)
    order.add("elsewhere", name="nothing")


def last_twice(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    order.on_success(nothing)
    order.task(nothing)


def taken(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    hurlbat.task(name="order.nothing")(nothing)
    order.task(nothing)


def too_many(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    for number in range(MAX_NODES + 1):
        order.add("a", name=f"n{number}")


def nested(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    inner: Workflow[Any] = hurlbat.workflow("inner")
    inner.on_failure(order)
    order.add(inner)


def nested_by_name(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    order.add("inner")
    hurlbat.workflow("inner").add("order")
    hurlbat.manifest()


Declare = Callable[[Workflow[Order], Hurlbat], object]
REFUSED: dict[str, tuple[Declare, str]] = {
    "circle": (loop, "workflow order: node c: the nodes wait for each other in a circle: a -> c -> b -> a; take one"),
    "a workflow in itself": (
        lambda order, _: order.add(order),
        "workflow order would run itself without end: order -> order; take one of the nodes out",
    ),
    "a workflow within itself": (nested, "workflow order would run itself without end: order -> inner -> order; take"),
    "by names": (nested_by_name, "workflow order would run itself without end: order -> inner -> order; take"),
    "itself": (lambda order, _: order.add("a", parents="a"), "node a: the nodes wait .* circle: a -> a;"),
    "two of a name": (same, "workflow order: there are two nodes named nothing; give one another name"),
    "a name of the last": (last_twice, "there are two nodes named nothing"),
    "a task of that name": (taken, "task order.nothing is declared twice"),
    "too many": (too_many, "node n1000: a workflow may have at most 1000 nodes"),
    "two failures": (twice, "node other: workflow order has on_failure already: nothing"),
    "a last with parents": (
        lambda order, _: order.on_success(parents=["a"])(nothing),
        "node nothing: on_success comes after all nodes and has no parents",
    ),
    "a parent elsewhere": (foreign, "workflow order: node a: its parent b is a node of workflow other"),
    "a task as parent": (
        lambda order, hurlbat: unchecked(order).add("a", parents=[hurlbat.stub("b")]),
        r"node a: a parent is a node, as @order.task and order.add\(…\) return it, or its name, and not Task\('b'\)",
    ),
    "a number as parent": (
        lambda order, _: unchecked(order).add("a", parents=5),
        "node a: a parent is a node, .* and not 5",
    ),
    "one parent twice": (lambda order, _: order.add("a", parents=["b", "b"]), "The parent b is there twice"),
    "a bad name": (lambda order, _: order.add("a", name="two words"), "node two words: node.name: .*pattern"),
    "no name": (lambda order, _: order.task(lambda: None), r"node <lambda>: node.name: .*pattern"),
    "a bad task": (lambda order, _: order.add("two words"), "task 'two words': task.name: .*pattern"),
    "an unknown option": (
        lambda order, _: unchecked(order).task(retry=3)(nothing),
        "task order.nothing: there is no policy called retry",
    ),
    "a wrong option": (lambda order, _: order.task(retries=-1)(nothing), "task order.nothing: policy.retries: "),
    "events": (
        lambda order, _: unchecked(order).task(on_events="a")(nothing),
        "node nothing: it starts with its workflow.* on_events is not for it; say that of the workflow",
    ),
    "a batch": (
        lambda order, _: unchecked(order).task(batch_size=5)(nothing),
        "node nothing: .* batch_size is not for it",
    ),
    "a policy of a task": (
        lambda order, hurlbat: order.task(retries=3)(hurlbat.stub("a")),
        "node a: a is a task already; say its retries where it is declared",
    ),
    "a condition that is none": (
        lambda order, _: unchecked(order).add("a", wait_for=[5]),
        r"node a: node.wait_for.0: Must be one of \{sleep\}, \{event\}, \{expression\} or \{any\}",
    ),
    "seventeen conditions": (
        lambda order, _: order.add("a", skip_if=[When("true")] * 17),
        "node.skip_if: .*at most 16",
    ),
    "a long input": (lambda order, _: order.add("a", input="x" * 513), r"node a: node.input: .*at most 512"),
    "a class": (
        lambda order, _: unchecked(order).task(Order),
        "@order.task is for functions and tasks, not for <class",
    ),
    "a text": (
        lambda order, _: unchecked(order).on_failure("undo"),
        "@order.on_failure is for functions and tasks, not for 'un",
    ),
    "two inputs": (
        lambda order, _: unchecked(order).task(lambda a, b: None, name="x"),
        "task order.x: a task takes one input, not a, b",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_workflow_is_refused_with_a_sentence_where_it_is_said(hurlbat: Hurlbat, case: str) -> None:
    order = hurlbat.workflow("order", input=Order)
    declare, said = REFUSED[case]
    with pytest.raises(TaskInvalid, match=said):
        declare(order, hurlbat)


def test_what_was_refused_leaves_nothing_behind(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    order.add("a")
    before = hurlbat.manifest()
    for wrong in ({"parents": 5}, {"retries": -1}, {"wait_for": 5}, {"name": "a"}, {"batch_size": 3}):
        with pytest.raises(TaskInvalid):
            unchecked(order).task(**wrong)(nothing)
    assert (hurlbat.tasks, hurlbat.manifest()) == ({}, before)
    order.task(nothing)
    assert list(hurlbat.tasks) == ["order.nothing"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"retries": 3}, "workflow flow runs on no worker and has no retries; say that of its nodes"),
        ({"sticky": "soft"}, "workflow flow runs on no worker and has no sticky"),
        ({"on_failure": "t"}, "workflow flow runs on no worker and has no on_failure"),
        ({"retry": 3}, "workflow flow: there is no policy called retry"),
        ({"priority": 1001}, "workflow flow: policy.priority: "),
        ({"filters": {"scope": "a"}}, "workflow flow: policy: filters choose among events"),
        ({"crons": "daily"}, r"workflow flow: policy.crons.0.expression: 'daily' is no crontab line"),
        ({"crons": "@daily", "input": Order}, "workflow flow: policy.crons.0.input is none that the task takes"),
        ({"input": asyncio.Lock}, "task flow: its input type .* cannot be read from JSON"),
    ],
)
def test_a_workflow_that_cannot_be_is_refused_where_it_is_made(
    hurlbat: Hurlbat, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(TaskInvalid, match=said):
        hurlbat.workflow("flow", **options)
    assert hurlbat.workflows == {}


def test_workflows_and_tasks_have_one_set_of_names(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    with pytest.raises(TaskInvalid, match="there is a workflow order already"):
        hurlbat.workflow("order")
    with pytest.raises(TaskInvalid, match="there is a workflow order already"):
        hurlbat.task(name="order")(nothing)
    hurlbat.task(name="task")(nothing)
    with pytest.raises(TaskInvalid, match="task task is declared twice"):
        hurlbat.workflow("task")
    assert hurlbat.workflows == {"order": order}


async def test_an_app_with_a_workflow_that_is_none_does_not_start(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    with pytest.raises(TaskInvalid, match=r"workflow order has no nodes; add one by @order.task or order.add\(…\)"):
        async with hurlbat.lifespan():
            pass


async def test_a_worker_with_a_workflow_that_is_none_says_so_to_who_asks_what_it_serves(
    hurlbat: Hurlbat, order: Workflow[Order]
) -> None:
    body = describe_body("w", "https://w.example", "2026-11-21T12:00:00.000Z")
    refused = await Exchange(hurlbat.asgi(), body).finish()
    assert (refused.status, refused.json["code"]) == (500, "task_invalid")
    assert refused.json["detail"].startswith("workflow order has no nodes")
    order.add("a")
    assert (await Exchange(hurlbat.asgi(), body).finish()).status == 200


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Sleep(0), r"Sleep\.sleep: .*greater than 0"),
        (lambda: Sleep(timedelta(days=366)), r"Sleep\.sleep: .*less than or equal to 31536000"),
        (lambda: Sleep(unchecked("soon")), r"Sleep\.sleep: "),
        (lambda: OnEvent("order.*"), r"OnEvent\.event: A condition waits for one key"),
        (lambda: OnEvent(""), r"OnEvent\.event: .*at least 1 character"),
        (lambda: OnEvent("a", look_back=86_401), r"OnEvent\.look_back: .*less than or equal to 86400"),
        (lambda: unchecked(OnEvent)("a", since=1), r"OnEvent\.since: Unexpected"),
        (lambda: When(""), r"When\.expression: .*at least 1 character"),
        (lambda: any_of(), r"AnyOf\.any: .*at least 1 item"),
        (lambda: any_of(*[When("true")] * 17), r"AnyOf\.any: .*at most 16"),
        (
            lambda: unchecked(any_of)(any_of(When("true"))),
            r"AnyOf\.any\.0: Must be one of \{sleep\}, \{event\} or \{expression\}",
        ),
    ],
)
def test_a_condition_that_cannot_be_is_refused_where_it_is_made(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(TaskInvalid, match=said):
        make()


def test_a_condition_is_the_same_however_it_is_said() -> None:
    assert Sleep(timedelta(minutes=2)) == Sleep(120) == Sleep(sleep=120.0)
    assert any_of(Sleep(1), When("true")) == AnyOf((Sleep(1), When("true")))
    said = {"name": "a", "wait_for": [{"sleep": 1}, {"any": [{"event": "e"}]}]}
    read = TaskPolicy.model_validate({"name": "w", "graph": {"nodes": [said]}})
    assert read.graph is not None
    assert read.graph.nodes[0].wait_for == (Sleep(1), any_of(OnEvent("e")))


# -- what a node sees of its parents -----------------------------------------------------------------------------------


def told(
    parents: dict[str, Any], states: dict[str, str] | None = None, conditions: Any = (), **more: Any
) -> dict[str, str]:
    """Return the trigger and the parents of a node's run as the server sends them."""
    known = dict.fromkeys(parents, "completed") | (states or {})
    trigger = {
        "type": "workflow",
        "workflow": "order",
        "run": "run-of-order",
        "node": "ship",
        "parents": {name: {"run": f"run-of-{name}", "state": state} for name, state in known.items()},
        "conditions": list(conditions),
    }
    return {"trigger": json.dumps(trigger | more), "parents": json.dumps(parents)}


@pytest.mark.parametrize("manner", ["async", "sync"])
async def test_a_node_reads_its_parents_outputs_by_their_types(
    hurlbat: Hurlbat, order: Workflow[Order], manner: str
) -> None:
    @order.task
    async def reserve(order: Order) -> Order:
        return order

    plain = order.add("plain")
    far = order.add(hurlbat.stub("far", output=list[datetime]))
    came = [{"sleep": 5.0}, {"event": "paid", "id": "e1", "payload": {"by": "card"}}]
    seen: list[Any] = []

    def ship(ctx: Context) -> None:
        seen[:] = [ctx.output(reserve), ctx.output(plain), ctx.output(far), ctx.output("reserve"), dict(ctx.parents)]
        seen.extend([ctx.workflow_run_id, ctx.conditions])

    async def ship_async(ctx: Context) -> None:
        ship(ctx)

    order.task(parents=[reserve, plain, far], name="ship")(ship if manner == "sync" else ship_async)
    moment = "2027-01-02T03:04:05Z"
    outputs: dict[str, Any] = {"reserve": {"id": 7, "at": moment}, "plain": {"a": 1}, "far": [moment]}
    line = await result_of(hurlbat, a_run("order.ship", {"id": 1}, **told(outputs, conditions=came)))
    assert line["state"] == "completed", line
    at = datetime.fromisoformat(moment)
    assert seen == [Order(id=7, at=at), {"a": 1}, [at], outputs["reserve"], outputs, "run-of-order", came]


async def test_a_skipped_parent_has_no_output_but_a_default(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    a, b = order.add(hurlbat.stub("a", output=int)), order.add(hurlbat.stub("b", output=int))

    @order.task(parents=[a, b])
    def ship(ctx: Context) -> list[Any]:
        with pytest.raises(ConfigError, match="the node b has no output, as it is skipped; a default may be given"):
            ctx.output(b)
        return [ctx.was_skipped(a), ctx.was_skipped("b"), ctx.output(a, 0), ctx.output(b, 0), ctx.output("b", None)]

    run = a_run("order.ship", **told({"a": 1, "b": None}, {"b": "skipped"}))
    assert (await result_of(hurlbat, run))["output"] == [False, True, 1, 0, None]


async def test_who_is_no_parent_is_named(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    a, b = order.add("a"), order.add("b")
    elsewhere = hurlbat.workflow("other").add("a")

    @order.task(parents=a)
    def ship(ctx: Context) -> None:
        cases: list[tuple[Any, str]] = [
            (b, r"Node\('order', 'b'\) is no parent of the node ship; its parents: a"),
            ("c", "'c' is no parent of the node ship"),
            (elsewhere, r"Node\('other', 'a'\) is no parent of the node ship"),
            (hurlbat.stub("a"), r"Task\('a'\) is no node; give what task\(…\) or add\(…\)"),
        ]
        for wrong, said in cases:
            with pytest.raises(ConfigError, match=said):
                ctx.output(wrong)
            with pytest.raises(ConfigError, match=said):
                ctx.was_skipped(wrong)

    assert (await result_of(hurlbat, a_run("order.ship", **told({"a": 1}))))["state"] == "completed"


async def test_an_output_that_is_not_of_its_parent_s_type_says_where(hurlbat: Hurlbat, order: Workflow[Order]) -> None:
    a = order.add(hurlbat.stub("a", output=Order))

    @order.task(parents=a)
    def ship(ctx: Context) -> None:
        with pytest.raises(PayloadError, match=r"output of a\.id: Field required"):
            ctx.output(a)

    assert (await result_of(hurlbat, a_run("order.ship", **told({"a": {}}))))["state"] == "completed"


async def test_a_run_that_is_no_node_has_nothing_of_a_workflow(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def alone(ctx: Context) -> list[Any]:
        with pytest.raises(ConfigError, match="this run of alone belongs to no workflow"):
            ctx.output("a")
        return [ctx.workflow_run_id, dict(ctx.parents), ctx.conditions]

    event: dict[str, Any] = {"type": "event", "event": "e1", "key": "k", "scope": None, "filter": None, "payload": {}}
    changes: list[dict[str, Any]] = [{}, {"trigger": json.dumps(event), "attempt": 2}]
    for more in changes:
        assert (await result_of(hurlbat, a_run("alone", **more)))["output"] == [None, {}, []]


def test_parents_that_are_no_object_make_no_message() -> None:
    with pytest.raises(BadMessage, match="parents must be an object"):
        read_message(delivery(a_run("t", parents="[1]")))


def test_a_run_without_parents_has_no_such_member() -> None:
    assert b"parents" not in delivery(a_run("t", trigger="{}"))
    [read] = read_message(delivery(a_run("t", parents='{"a":1}'))).deliveries
    assert (read.parents, read.trigger) == ({"a": 1}, None)


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


# -- a task that cancels its own run -----------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["async", "sync"])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CancelRun("no such order"), "no such order"),
        (CancelRun(), None),
        (CancelRun("x" * 300), "x" * 256),
        (CancelRun("\ud800"), "?"),
    ],
)
async def test_a_task_ends_its_run_as_cancelled(
    hurlbat: Hurlbat, manner: str, error: CancelRun, reason: str | None
) -> None:
    def give_in() -> None:
        raise error

    async def give_in_async() -> None:
        raise error

    hurlbat.task(name="t")(give_in if manner == "sync" else give_in_async)
    line = await result_of(hurlbat, a_run("t"))
    assert line == {"type": "result", "run_id": "run-t", "attempt": 1, "state": "cancelled", "reason": reason}
    again = await Exchange(hurlbat.asgi(), delivery(a_run("t"))).finish()
    assert again.results["run-t"] == line


@pytest.mark.parametrize("reason", [None, 'said "so"\n'])
def test_the_wire_reads_a_cancelled_result_as_it_is_written(reason: str | None) -> None:
    line = CancelledLine("r", 1, reason)
    assert read_line(write_line(line)) == line
    assert read_results(f'{{"results":[{write_line(line)}]}}') == [line]


def test_a_reason_is_a_text_that_is_cut() -> None:
    head = '{"type":"result","run_id":"r","attempt":1,"state":"cancelled"'
    assert read_line(head + "}") == CancelledLine("r", 1)
    assert read_line(head + ',"reason":""}') == CancelledLine("r", 1)
    assert read_line(head + f',"reason":"{"x" * 300}"}}') == CancelledLine("r", 1, "x" * 256)
    with pytest.raises(BadLine, match="reason is not a string"):
        read_line(head + ',"reason":5}')
    with pytest.raises(BadLine, match='none of "completed", "failed" and "cancelled"'):
        read_line(head.replace("cancelled", "skipped") + "}")


def test_who_cancelled_a_run_is_told() -> None:
    error = RunCancelled(Run("r", "t", "cancelled", reason="no such order", cancelled_by="task"))
    assert (error.by, error.reason, str(error)) == ("task", "no such order", "t was cancelled: no such order")
    assert RunCancelled(Run("r", "t", "skipped")).by is None


# -- a task that goes on although it was told to stop ------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["async", "sync"])
async def test_a_task_that_goes_on_after_its_cancellation_is_logged_and_holds_nothing_up(
    hurlbat: Hurlbat, manner: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.workbench.CANCEL_PATIENCE", 0.05)
    caplog.set_level("INFO", "hurlbat")
    gate, told_to_stop = threading.Event(), asyncio.Event()

    def stubborn() -> str:
        gate.wait(120)
        return "late"

    async def stubborn_async() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told_to_stop.set()
        await asyncio.to_thread(gate.wait, 120)
        return "late"

    hurlbat.task(name="t")(stubborn if manner == "sync" else stubborn_async)
    exchange = Exchange(hurlbat.asgi(), delivery(a_run("t")))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("run-t", 1))).finish()
    assert answer.json["runs"][0]["status"] == "unknown"
    assert told_to_stop.is_set() or manner == "sync"
    gate.set()
    await exchange.finish()
    assert "t went on although it was told to stop (asked by a user)" in caplog.text
    await hurlbat.workbench.drain(0.1)


async def test_a_task_that_never_stops_is_given_back_by_a_drain(
    hurlbat: Hurlbat, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat.workbench.CANCEL_PATIENCE", 0.05)
    over = asyncio.Event()

    @hurlbat.task
    async def deaf() -> None:
        while not over.is_set():
            try:
                await over.wait()
            except asyncio.CancelledError:
                continue

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("deaf")))
    await exchange.until(1, "started")
    await Exchange(hurlbat.asgi(), cancellation(("run-deaf", 1))).finish()
    async with asyncio.timeout(120):
        await hurlbat.workbench.drain(0.05)
        assert "did not end in time and is given back" in caplog.text
        over.set()
        await exchange.task


def test_a_node_is_known_by_its_type(order: Workflow[Order], hurlbat: Hurlbat) -> None:
    node: Node[Any, int] = order.add(hurlbat.stub("a", output=int))
    assert node.read(5) == 5
