"""What a node of a workflow sees of its parents."""

import json
from datetime import datetime
from typing import Any

import pytest

from hurlbat import (
    ConfigError,
    Context,
    Hurlbat,
    PayloadError,
    Workflow,
)
from hurlbat.messages import BadMessage, read_message
from tests.sdk.exchange import a_run, an_app, delivery, result_of
from tests.sdk.orders import Order

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


@pytest.fixture
def order(hurlbat: Hurlbat) -> Workflow[Order]:
    return hurlbat.workflow("order", input=Order)


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
