"""Workflows that cannot be: each is refused with a sentence, where it is said."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from hurlbat import (
    AnyOf,
    Hurlbat,
    OnEvent,
    Sleep,
    When,
    Workflow,
    any_of,
)
from hurlbat.errors import TaskInvalid
from hurlbat.graph import MAX_NODES
from hurlbat.policy import TaskPolicy
from hurlbat.wire import describe_body
from tests.sdk.exchange import Exchange, an_app
from tests.sdk.orders import Order, nothing, unchecked

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


@pytest.fixture
def order(hurlbat: Hurlbat) -> Workflow[Order]:
    return hurlbat.workflow("order", input=Order)


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
