"""What starts, gathers and slows down a task's runs, as the decorator takes it; and tasks of other services."""

import asyncio
import json
from functools import partial
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from hurlbat import Context, Cron, Debounce, Filter, Hurlbat, Task, Throttle
from hurlbat.errors import TaskInvalid
from hurlbat.policy import Manifest, TaskPolicy
from tests.sdk.exchange import a_run, an_app, result_of


class Order(BaseModel):
    id: int
    express: bool = False


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


def test_a_single_one_stands_for_a_list_of_one(hurlbat: Hurlbat) -> None:
    @hurlbat.task(on_events="order.*", filters=Filter("input.express"), crons="@daily")
    def one() -> None: ...

    @hurlbat.task(on_events=["order.*"], filters=[{"expression": "input.express"}], crons=[{"expression": "@daily"}])
    def same() -> None: ...

    expected = {
        "on_events": ("order.*",),
        "filters": (Filter("input.express"),),
        "crons": (Cron("@daily"),),
    }
    assert {name: getattr(one.policy, name) for name in expected} == expected
    assert {name: getattr(same.policy, name) for name in expected} == expected


def test_everything_is_declared_and_read_back_from_the_manifest(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def report(failure: dict[str, Any]) -> None: ...

    @hurlbat.task(
        on_events=["order.placed", "import:*"],
        filters=[Filter("input.id > payload.least", scope="eu", payload={"least": 3}), Filter(scope="us")],
        crons=[
            "*/5 * * * *",
            Cron("0 3 * * *", timezone="Europe/Berlin", input=Order(id=1), missed="skip", overlap="cancel", priority=1),
        ],
        debounce=Debounce(5, key="input.id", max_wait=60),
        throttle={"limit": 10, "period": 60},
        on_failure=report,
    )
    def work(order: Order | None, ctx: Context) -> None: ...

    policy = work.policy
    assert policy.crons[1].input == {"id": 1, "express": False}
    assert (policy.throttle, policy.on_failure) == (Throttle(10, 60), "report")
    manifest = hurlbat.manifest()
    read = Manifest.read(manifest.model_dump_json().encode())
    assert read == manifest
    assert TaskPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_a_newer_worker_s_members_are_passed_over() -> None:
    task = {
        "name": "t",
        "on_events": ["a"],
        "filters": [{"scope": "eu", "new": 1}],
        "crons": [{"expression": "@daily", "new": 1}],
        "debounce": {"period": 1, "new": 1},
        "throttle": {"limit": 1, "period": 1, "new": 1},
    }
    (read,) = Manifest.read(json.dumps({"tasks": [task]}).encode()).tasks
    assert (read.filters, read.crons) == ((Filter(scope="eu"),), (Cron("@daily"),))
    assert (read.debounce, read.throttle) == (Debounce(1), Throttle(1, 1))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"on_events": ""}, r"policy\.on_events\.0: .*at least 1 character"),
        ({"on_events": ["e" * 257]}, r"policy\.on_events\.0: .*at most 256 characters"),
        ({"on_events": "a\nb"}, r"policy\.on_events\.0: Must have no control characters"),
        ({"on_events": ["a", "a"]}, "The event a is there twice"),
        ({"on_events": [f"e{n}" for n in range(33)]}, r"policy\.on_events: .*at most 32"),
        ({"on_events": 5}, r"policy\.on_events: "),
        ({"filters": Filter("true")}, "filters choose among events; say in on_events which"),
        ({"on_events": "a", "filters": "true"}, r"policy\.filters: "),
        ({"on_events": "a", "filters": {"payload": 1}}, "needs an expression, a scope, or both"),
        ({"on_events": "a", "filters": [{"expression": "x" * 513}]}, r"policy\.filters\.0\.expression: .*at most 512"),
        ({"on_events": "a", "filters": [Filter("true"), Filter("true")]}, "Two filters are the same"),
        ({"crons": ""}, r"policy\.crons\.0\.expression: .*at least 1 character"),
        ({"crons": "daily"}, r"policy\.crons\.0\.expression: 'daily' is no crontab line; .* 5 fields"),
        ({"crons": ["* * * * * * *"]}, r"policy\.crons\.0\.expression: .* no crontab line"),
        ({"crons": 5}, r"policy\.crons: "),
        ({"crons": [5]}, r"policy\.crons\.0: "),
        (
            {"crons": {"expression": "@daily", "missed": "never"}},
            r"policy\.crons\.0\.missed: .*'skip', 'once' or 'all'",
        ),
        ({"crons": ["@daily"] * 17}, r"policy\.crons: .*at most 16"),
        ({"debounce": 5}, r"policy\.debounce: "),
        ({"debounce": {"period": 0}}, r"policy\.debounce\.period: .*greater than or equal to 0\.01"),
        ({"debounce": {"period": 5, "max_wait": 4}}, "max_wait must be at least the period"),
        ({"throttle": {"limit": 0, "period": 1}}, r"policy\.throttle\.limit: .*greater than or equal to 1"),
        ({"throttle": {"limit": 1}}, r"policy\.throttle\.period: Field required"),
        ({"batch_size": 1}, r"policy\.batch_size: .*greater than or equal to 2"),
        ({"batch_size": 0}, r"policy\.batch_size: .*greater than or equal to 2"),
        ({"batch_size": 1001}, r"policy\.batch_size: .*less than or equal to 1000"),
        ({"batch_size": 2, "batch_timeout": 86_401}, r"policy\.batch_timeout: .*less than or equal to 86400"),
        ({"batch_timeout": 5}, "need a batch_size of 2 to 1000"),
        ({"batch_key": "input.a"}, "need a batch_size of 2 to 1000"),
        ({"batch_size": 2, "debounce": Debounce(1)}, "a task can have one of them"),
        ({"on_failure": "two words"}, r"policy\.on_failure: "),
        ({"on_failure": 5}, r"policy\.on_failure: "),
        ({"on_failure": "work"}, "on_failure cannot be the task itself"),
    ],
)
def test_a_way_that_cannot_be_is_refused_where_it_is_declared(
    hurlbat: Hurlbat, policy: dict[str, Any], said: str
) -> None:
    def work(input: list[Any]) -> None: ...

    with pytest.raises(TaskInvalid, match=f"task work: .*{said}"):
        hurlbat.task(**policy)(work)
    assert hurlbat.tasks == {}


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        (Cron, {"expression": "@daily", "input": object()}, r"Cron\.input: Must be something that JSON can hold"),
        (Cron, {"expression": "@daily", "input": float("nan")}, r"Cron\.input: Must be something that JSON can hold"),
        (Cron, {"expression": "c" * 257}, r"Cron\.expression: .*at most 256"),
        (Cron, {"expression": "@daily", "timezone": ""}, r"Cron\.timezone: "),
        (Cron, {"expression": "@daily", "priority": 1001}, r"Cron\.priority: "),
        (Filter, {}, "needs an expression, a scope, or both"),
        (Filter, {"expression": ""}, r"Filter\.expression: .*at least 1 character"),
        (Filter, {"expression": "true", "payload": "x" * 16_384}, r"Filter\.payload: .*16384 characters .* not 16386"),
        (Filter, {"expression": "true", "payload": {1, 2}.__iter__}, r"Filter\.payload: Must be"),
        (Filter, {"scope": "a\x00"}, r"Filter\.scope: Must have no control characters"),
        (Debounce, {}, r"Debounce\.period: Field required"),
        (Debounce, {"period": float("inf")}, r"Debounce\.period: "),
        (Debounce, {"period": 1, "mode": "leading", "max_wait": 5}, "max_wait belongs to the trailing mode"),
        (Throttle, {"limit": 1.5, "period": 1}, r"Throttle\.limit: .*valid integer"),
        (partial(Throttle, 0, 1), {}, r"Throttle\.limit: "),
        (partial(Throttle, 1, 0), {}, r"Throttle\.period: "),
        (Throttle, {"limit": 1, "period": 1, "duration": 1}, r"Throttle\.duration: Unexpected"),
    ],
)
def test_a_part_that_cannot_be_is_refused_where_it_is_made(made: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskInvalid, match=said):
        made(**given)


def required(order: Order) -> None: ...
def optional(order: Order | None = None) -> None: ...
def defaulting(order: Order = Order(id=0)) -> None: ...  # noqa: B008 - a frozen default is what users write
def without() -> None: ...
def untyped(order) -> None: ...  # type: ignore[no-untyped-def]  # that it has no type is the point


@pytest.mark.parametrize(
    ("function", "cron", "fits"),
    [
        (required, Cron("@daily"), False),
        (required, Cron("@daily", input={"id": "many"}), False),
        (required, Cron("@daily", input={"id": 1}), True),
        (optional, Cron("@daily"), True),
        (defaulting, Cron("@daily"), True),
        (without, Cron("@daily"), True),
        (untyped, Cron("@daily"), True),
    ],
)
def test_a_cron_whose_every_run_would_fail_on_its_input_is_refused(
    hurlbat: Hurlbat, function: Any, cron: Cron, fits: bool
) -> None:
    if fits:
        hurlbat.task(crons=cron)(function)
    else:
        with pytest.raises(TaskInvalid, match=r"policy\.crons\.0\.input is none that the task takes: input"):
            hurlbat.task(crons=cron)(function)


# -- batches -----------------------------------------------------------------------------------------------------------


def bare(items: list) -> None: ...  # type: ignore[type-arg]  # that it does not say of what is the point
def single(item: Order) -> None: ...
def maybe(items: list[int] | None) -> None: ...
def nothing() -> None: ...


@pytest.mark.parametrize("function", [bare, single, maybe, nothing, untyped])
def test_the_input_of_a_batch_must_be_annotated_as_a_list_of_something(hurlbat: Hurlbat, function: Any) -> None:
    with pytest.raises(TaskInvalid, match=r"its input is a list of what callers give.*list\[Order\]"):
        hurlbat.task(batch_size=2)(function)
    assert hurlbat.tasks == {}


def test_a_caller_of_a_batch_gives_one_item_and_its_function_gets_the_list(hurlbat: Hurlbat) -> None:
    @hurlbat.task(batch_size=10)
    async def ship(orders: Annotated[list[Order], Field(max_length=10)], ctx: Context) -> list[int]:
        return [order.id for order in orders]

    assert ship.declared().input_schema == Order.model_json_schema()
    assert ship.shape.caller_form is not None
    line = asyncio.run(result_of(hurlbat, a_run("ship", [{"id": 1}, {"id": 2}])))
    assert (line["state"], line["output"]) == ("completed", [1, 2])
    line = asyncio.run(result_of(hurlbat, a_run("ship", [{"id": 1}, {"id": "?"}], attempt=2)))
    assert (line["state"], line["error"]["details"][0]["loc"]) == ("failed", [1, "id"])


def test_the_input_of_a_batch_s_cron_is_one_item(hurlbat: Hurlbat) -> None:
    def ship(orders: list[Order]) -> None: ...

    hurlbat.task(batch_size=2, crons=Cron("@daily", input={"id": 1}))(ship)
    with pytest.raises(TaskInvalid, match="input is none that the task takes"):
        hurlbat.task(name="other", batch_size=2, crons=Cron("@daily", input=[{"id": 1}]))(ship)


# -- what a run was started by -----------------------------------------------------------------------------------------


TRIGGERS = {
    "nobody": (None, None),
    "event": (
        {"type": "event", "event": "e1", "key": "order", "scope": None, "filter": "true", "payload": {"least": 3}},
        {"least": 3},
    ),
    "schedule": ({"type": "schedule", "schedule": "s", "due_at": "2030-01-01T00:00:00.000Z", "manual": False}, None),
}


@pytest.mark.parametrize("kind", TRIGGERS)
@pytest.mark.parametrize("manner", ["async", "sync"])
def test_a_task_sees_what_started_its_run(hurlbat: Hurlbat, kind: str, manner: str) -> None:
    trigger, payload = TRIGGERS[kind]

    def tell(ctx: Context) -> list[Any]:
        return [ctx.trigger, ctx.filter_payload]

    async def tell_async(ctx: Context) -> list[Any]:
        return tell(ctx)

    hurlbat.task(name="tell")(tell if manner == "sync" else tell_async)
    run = a_run("tell", trigger=None if trigger is None else json.dumps(trigger))
    assert asyncio.run(result_of(hurlbat, run))["output"] == [trigger, payload]


# -- stubs -------------------------------------------------------------------------------------------------------------


def test_a_stub_is_not_served(hurlbat: Hurlbat) -> None:
    stub = hurlbat.stub("elsewhere", input=Order, output=int)
    assert (stub.name, repr(stub)) == ("elsewhere", "Task('elsewhere')")
    assert hurlbat.manifest().tasks == ()
    with pytest.raises(TaskInvalid, match="elsewhere is a stub: its function is in another service"):
        stub(Order(id=1))
    with pytest.raises(TaskInvalid, match=r"Task\('elsewhere'\) is a task already"):
        hurlbat.task(stub)
    with pytest.raises(TaskInvalid, match="is a task already"):
        hurlbat.task(retries=1)(stub)
    line = asyncio.run(result_of(hurlbat, a_run("elsewhere", {"id": 1})))
    assert line["error"]["type"] == "unknown_task"


@pytest.mark.parametrize("given", [{"name": "two words"}, {"name": ""}, {"name": "t", "input": asyncio.Lock}])
def test_a_stub_that_cannot_be_is_refused(hurlbat: Hurlbat, given: dict[str, Any]) -> None:
    with pytest.raises(TaskInvalid, match=r"stub|task t: its input type"):
        hurlbat.stub(**given)


def test_a_task_may_call_a_stub_when_it_fails(hurlbat: Hurlbat) -> None:
    stub: Task[Any, Any] = hurlbat.stub("report")
    task = hurlbat.task(name="work", on_failure=stub)(lambda: None)
    assert task.policy.on_failure == "report"
