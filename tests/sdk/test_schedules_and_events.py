"""Schedules, events and operations on many runs: what is sent, and what comes back, the same in async and sync code."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from hurlbat import ApiError, ConfigError, ConnectionFailed, Event, Hurlbat, PayloadError, ScheduleRef, Task
from tests.sdk.exchange import an_app
from tests.sdk.fake_server import Caller, FakeServer, answer, problem, run_json

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("noted_pauses")]

AT = datetime(2030, 1, 31, 12, 0, tzinfo=timezone(timedelta(hours=2)))
SCHEDULE = {
    "name": "nightly",
    "task": "report",
    "expression": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "next_at": "2030-01-31T02:00:00.000Z",
    "source": "api",
    "something_newer": 1,
}
EVENT = {
    "id": "e1",
    "key": "order.placed",
    "scope": None,
    "payload": {"id": 7},
    "metadata": {"a": 1},
    "priority": None,
    "created_at": "2030-01-31T02:00:00.000Z",
    "replay_of": None,
    "starts": [
        {"task": "ship", "filter": None, "outcome": "started", "run": "r1", "reason": None},
        {"task": "bill", "filter": "1", "outcome": "filtered", "run": None, "reason": None},
        {"task": "tax", "filter": "2", "outcome": "failed", "run": None, "reason": "no such key", "new": 1},
    ],
}


class Order(BaseModel):
    id: int


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def hurlbat(server: FakeServer) -> Hurlbat:
    hurlbat = an_app()
    server.attach(hurlbat)
    return hurlbat


@pytest.fixture
def report(hurlbat: Hurlbat) -> Task[Order, str]:
    @hurlbat.task
    async def report(order: Order) -> str:
        return "done"

    return report


# -- later -------------------------------------------------------------------------------------------------------------


async def test_a_run_is_scheduled_moved_and_waited_for(server: FakeServer, report: Any, call: Caller) -> None:
    server.on("POST /runs", answer(201, run_json("queued")))
    server.on("PATCH /runs/r1", answer(200, run_json("queued")))
    server.on("GET /runs/r1", answer(200, run_json(output="done")))
    ref = await call(report, "schedule", Order(id=1), at=AT, priority=3)
    await call(report, "schedule", Order(id=1), delay=5)
    assert server.bodies("POST /runs") == [
        {"task": "report", "input": {"id": 1}, "priority": 3, "run_at": "2030-01-31T12:00:00+02:00"},
        {"task": "report", "input": {"id": 1}, "delay": 5},
    ]
    await call(ref, "move", AT)
    assert (await call(ref, "move", delay=0, priority=1)).id == "r1"
    await call(ref, "move", priority=5)
    assert server.bodies("PATCH /runs/r1") == [
        {"run_at": "2030-01-31T12:00:00+02:00"},
        {"delay": 0, "priority": 1},
        {"priority": 5},
    ]
    assert await call(ref, "result") == "done"


NAIVE = datetime(2030, 1, 31)  # noqa: DTZ001 - that it has no zone is the point


@pytest.mark.parametrize(
    ("when", "error", "said"),
    [
        ({}, ConfigError, "either at, .* or delay"),
        ({"at": AT, "delay": 1}, ConfigError, "either at, .* or delay"),
        ({"at": NAIVE}, ConfigError, "at has no time zone"),
        ({"at": "2030-01-31T12:00:00Z"}, ConfigError, "at must be a datetime with a zone, not str"),
    ],
)
async def test_a_time_that_cannot_be_is_refused_before_anything_is_sent(
    server: FakeServer, report: Any, call: Caller, when: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await call(report, "schedule", Order(id=1), **when)
    with pytest.raises(error, match=said):
        await call(report.ref("r1"), "move", **when)
    with pytest.raises(TypeError, match="at=, not as run_at="):
        await call(report, "schedule", Order(id=1), run_at=AT)
    assert server.requests == []


# -- schedules ---------------------------------------------------------------------------------------------------------


async def test_a_cron_is_created_and_looked_after(server: FakeServer, report: Any, call: Caller) -> None:
    server.on("POST /schedules", answer(201, SCHEDULE))
    server.on("GET /schedules/nightly", answer(200, SCHEDULE))
    server.on("GET /schedules/nightly/next", answer(200, {"items": ["2030-01-31T02:00:00.000Z"]}))
    server.on("POST /schedules/nightly/pause", answer(200, SCHEDULE | {"paused": True}))
    server.on("POST /schedules/nightly/resume", answer(200, SCHEDULE))
    server.on("POST /schedules/nightly/trigger", answer(201, run_json("queued")))
    server.on("DELETE /schedules/nightly", httpx.Response(204))
    options = {"timezone": "Europe/Berlin", "missed": "all", "overlap": "skip", "metadata": {"a": 1}, "priority": 1}
    ref = await call(report, "cron", "0 3 * * *", input=Order(id=7), name="nightly", **options)
    assert isinstance(ref, ScheduleRef)
    assert (ref.name, repr(ref)) == ("nightly", "ScheduleRef('report', 'nightly')")
    assert server.bodies("POST /schedules") == [
        {"task": "report", "expression": "0 3 * * *", "input": {"id": 7}, "name": "nightly"} | options
    ]
    assert (await call(ref, "status")).expression == "0 3 * * *"
    assert await call(ref, "next_times", 1) == [datetime(2030, 1, 31, 2, tzinfo=UTC)]
    assert dict(server.requests[-1].url.params) == {"count": "1"}
    assert (await call(ref, "pause")).paused
    assert not (await call(ref, "resume")).paused
    run = await call(ref, "trigger")
    assert (run.id, repr(run)) == ("r1", "RunRef('report', 'r1')")
    assert await call(ref, "delete") is None
    assert repr(report.cron_ref("nightly")) == repr(ref)


async def test_a_cron_without_a_name_is_named_after_what_it_says(server: FakeServer, report: Any, call: Caller) -> None:
    server.on("POST /schedules", answer(201, SCHEDULE))
    await call(report, "cron", "0 3 * * *", input=Order(id=7))
    await call(report, "cron", "0 3 * * *", input=Order(id=7))
    await call(report, "cron", "0 3 * * *", input=Order(id=8))
    await call(report, "cron", "0 3 * * *", input=Order(id=7), timezone="Europe/Berlin")
    first, same, *others = [body["name"] for body in server.bodies("POST /schedules")]
    assert first == same
    assert len({first, *others}) == 3
    assert first.startswith("report:")


async def test_a_cron_that_can_only_fail_is_refused_before_it_is_sent(
    server: FakeServer, report: Any, call: Caller
) -> None:
    with pytest.raises(ConfigError, match="each run of this schedule would fail: input"):
        await call(report, "cron", "@daily")
    with pytest.raises(TypeError, match="unknown option 'zone'"):
        await call(report, "cron", "@daily", input=Order(id=1), zone="UTC")
    assert server.requests == []


async def test_a_lost_answer_to_a_trigger_is_not_repeated(server: FakeServer, report: Any, call: Caller) -> None:
    server.on("POST /schedules/nightly/trigger", httpx.ReadError("reset"))
    with pytest.raises(ConnectionFailed) as raised:
        await call(report.cron_ref("nightly"), "trigger")
    assert raised.value.sent
    assert len(server.requests) == 1


async def test_the_clients_look_after_schedules(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    server.on("POST /schedules", answer(201, SCHEDULE))
    server.on("GET /schedules", answer(200, {"items": [SCHEDULE], "next_cursor": None}))
    server.on("PATCH /schedules/nightly", answer(200, SCHEDULE))
    server.on("POST /schedules/preview", answer(200, {"items": ["2030-01-31T02:00:00.000Z"]}))
    fire = {"due_at": "2030-01-31T02:00:00.000Z", "outcome": "started", "run": "r1"}
    server.on("GET /schedules/nightly/fires", answer(200, {"items": [fire], "next_cursor": "c"}))
    once = await call(client, "create_schedule", "report", run_at=AT, input={"id": 1}, name="nightly")
    assert once.next_at == "2030-01-31T02:00:00.000Z"
    assert server.bodies("POST /schedules") == [
        {"task": "report", "run_at": "2030-01-31T12:00:00+02:00", "input": {"id": 1}, "name": "nightly"}
    ]
    page = await call(client, "list_schedules", task="report", paused=False, limit=2)
    assert [one.name for one in page.items] == ["nightly"]
    assert dict(server.requests[-1].url.params) == {"task": "report", "paused": "false", "limit": "2"}
    await call(client, "update_schedule", "nightly", expression="@daily", input={"id": 2}, priority=None)
    assert server.bodies("PATCH /schedules/nightly") == [{"expression": "@daily", "input": {"id": 2}, "priority": None}]
    assert await call(client, "preview_schedule", "@daily", count=1) == [datetime(2030, 1, 31, 2, tzinfo=UTC)]
    assert server.bodies("POST /schedules/preview") == [{"expression": "@daily", "timezone": "UTC", "count": 1}]
    fires = await call(client, "list_fires", "nightly", limit=1)
    assert (fires.items, fires.next_cursor) == ((fire,), "c")
    for wrong in ({}, {"expression": "@daily", "run_at": AT}, {"run_at": NAIVE}):
        with pytest.raises(ConfigError):
            await call(client, "create_schedule", "report", **wrong)


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_is_pushed_and_tells_what_it_started(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    server.on("POST /events", answer(201, EVENT))
    event = await call(hurlbat.events, "push", "order.placed", Order(id=7), scope="eu", metadata={"a": 1}, priority=3)
    assert isinstance(event, Event)
    assert (event.id, event.payload, event.metadata, event.runs) == ("e1", {"id": 7}, {"a": 1}, ("r1",))
    assert [(start.task, start.outcome, start.reason) for start in event.starts] == [
        ("ship", "started", None),
        ("bill", "filtered", None),
        ("tax", "failed", "no such key"),
    ]
    await call(hurlbat.events, "push", "order.placed", id="mine")
    await call(hurlbat.events, "push", "order.placed", None)
    first, second, third = server.raw_bodies("POST /events")
    made = first.pop("id")
    assert made.startswith("auto:")
    assert first == {
        "key": "order.placed",
        "payload": {"id": 7},
        "scope": "eu",
        "metadata": {"a": 1},
        "priority": 3,
    }
    assert second == {"key": "order.placed", "id": "mine"}
    assert third.pop("id") not in (made, "mine")
    assert third == {"key": "order.placed", "payload": None}


async def test_an_event_whose_answer_is_lost_is_pushed_again_under_its_id(
    server: FakeServer, hurlbat: Hurlbat, call: Caller
) -> None:
    server.on("POST /events", httpx.ReadError("reset"), problem(503, "unavailable"), answer(200, EVENT))
    assert (await call(hurlbat.events, "push", "order.placed")).id == "e1"
    first, *again = server.raw_bodies("POST /events")
    assert again == [first, first]


async def test_many_events_are_pushed_in_few_requests(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    refused = {"type": "t", "title": "T", "status": 422, "code": "member_invalid", "detail": "key must not be empty"}
    server.on("POST /events/bulk", httpx.ReadError("reset"), answer(200, {"results": [EVENT, refused, EVENT]}))
    events = [{"key": "a", "payload": Order(id=1)}, {"key": "", "id": "mine"}, {"key": "c", "scope": "eu"}]
    with pytest.raises(ApiError, match="key must not be empty"):
        await call(hurlbat.events, "push_many", events)
    first, again = server.raw_bodies("POST /events/bulk")
    assert first == again
    assert len({event["id"] for event in first["events"]}) == 3
    assert server.bodies("POST /events/bulk")[0] == {
        "events": [{"key": "a", "payload": {"id": 1}}, {"key": "", "id": "mine"}, {"key": "c", "scope": "eu"}]
    }
    outcomes = await call(hurlbat.events, "push_many", events, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Event, ApiError, Event]
    server.on("POST /events/bulk", answer(200, {"results": []}))
    server.requests.clear()
    assert await call(hurlbat.events, "push_many", [{"key": "a"}] * 2_500) == []
    assert [len(body["events"]) for body in server.bodies("POST /events/bulk")] == [1_000, 1_000, 500]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"payload": object()}, PayloadError),
        ({"metadata": {"a": float("nan")}}, PayloadError),
        ({"source": 1}, TypeError),
    ],
)
async def test_an_event_that_cannot_be_is_refused_before_it_is_sent(
    server: FakeServer, hurlbat: Hurlbat, call: Caller, given: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await call(hurlbat.events, "push", "order.placed", **given)
    with pytest.raises(error):
        await call(hurlbat.events, "push_many", [{"key": "a"}, {"key": "order.placed"} | given])
    assert server.requests == []


@pytest.mark.parametrize("item", [{"payload": 1}, {"key": None}, "order.placed"])
async def test_an_event_without_a_key_is_named_before_any_is_sent(
    server: FakeServer, hurlbat: Hurlbat, call: Caller, item: Any
) -> None:
    with pytest.raises(ConfigError, match=r"events\[1\] has no key"):
        await call(hurlbat.events, "push_many", [{"key": "a"}, item], return_exceptions=True)
    assert server.requests == []


async def test_the_clients_look_after_events_and_filters(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    server.on("POST /events", answer(201, EVENT))
    server.on("GET /events", answer(200, {"items": [{"id": "e1", "key": "a"}], "next_cursor": "c"}))
    server.on("GET /events/e1", answer(200, EVENT))
    server.on("POST /events/e1/replay", answer(201, EVENT | {"id": "e2", "replay_of": "e1"}))
    server.on("GET /tasks/ship/filters", answer(200, {"items": [{"id": "policy.0"}], "next_cursor": None}))
    server.on("POST /tasks/ship/filters", answer(201, {"id": "f1"}))
    server.on("DELETE /tasks/ship/filters/f1", httpx.Response(204))
    assert (await call(client, "push_event", "a", {"id": 7}, scope="eu")).runs == ("r1",)
    page = await call(client, "list_events", key="a", scope="eu", cursor="b", limit=1)
    assert ([event.starts for event in page.items], page.next_cursor) == ([()], "c")
    assert dict(server.requests[-1].url.params) == {"key": "a", "scope": "eu", "cursor": "b", "limit": "1"}
    assert (await call(client, "get_event", "e1")).starts[0].task == "ship"
    assert (await call(client, "replay_event", "e1")).replay_of == "e1"
    assert await call(client, "list_filters", "ship") == [{"id": "policy.0"}]
    assert await call(client, "add_filter", "ship", "input.id > 3", payload={"a": 1}) == {"id": "f1"}
    assert server.bodies("POST /tasks/ship/filters") == [{"expression": "input.id > 3", "payload": {"a": 1}}]
    assert await call(client, "delete_filter", "ship", "f1") is None


# -- many runs ---------------------------------------------------------------------------------------------------------


async def test_the_clients_cancel_and_replay_many_runs(server: FakeServer, hurlbat: Hurlbat, call: Caller) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    operation = {"id": "o1", "kind": "replay", "state": "running", "matched": 5, "done": 0}
    server.on("POST /runs/cancel", answer(200, {"matched": 5}))
    server.on("POST /runs/replay", answer(202, operation), httpx.ReadError("reset"))
    server.on("GET /operations/o1", answer(200, operation | {"state": "done", "done": 5}))
    server.on("GET /operations", answer(200, {"items": [operation], "next_cursor": None}))
    which = {"task": "report", "state": ["queued", "running"], "created_after": AT}
    assert await call(client, "cancel_runs", dry_run=True, reason="enough", **which) == {"matched": 5}
    assert server.bodies("POST /runs/cancel") == [
        {
            "filter": which | {"created_after": "2030-01-31T12:00:00+02:00"},
            "dry_run": True,
            "reason": "enough",
        }
    ]
    assert (await call(client, "replay_runs", task="report", ids=["r1"]))["id"] == "o1"
    assert server.bodies("POST /runs/replay") == [{"filter": {"task": "report", "ids": ["r1"]}}]
    with pytest.raises(ConnectionFailed):
        await call(client, "replay_runs", task="report")
    assert len(server.bodies("POST /runs/replay")) == 2
    assert (await call(client, "get_operation", "o1"))["done"] == 5
    assert (await call(client, "list_operations", limit=3)).items == (operation,)


async def test_runs_are_listed_by_what_they_wait_for_and_when_they_were_made(
    server: FakeServer, hurlbat: Hurlbat, call: Caller
) -> None:
    client = hurlbat.sync_client if call.sync else hurlbat.client
    trigger = {"type": "schedule", "schedule": "nightly"}
    server.on("GET /runs", answer(200, {"items": [run_json(trigger=trigger, parent="r0")], "next_cursor": None}))
    page = await call(client, "list_runs", delayed=True, created_after=AT, created_before=AT)
    at = "2030-01-31T12:00:00+02:00"
    assert dict(server.requests[0].url.params) == {"delayed": "true", "created_after": at, "created_before": at}
    assert (page.items[0].trigger, page.items[0].parent) == (trigger, "r0")


# -- trouble on the way ------------------------------------------------------------------------------------------------


async def test_every_run_of_many_has_a_key_of_its_own(server: FakeServer, report: Any, call: Caller) -> None:
    bulk = {"results": [run_json("queued", "a"), run_json("queued", "b")]}
    server.on("POST /runs/bulk", httpx.RemoteProtocolError("closed"), answer(201, bulk))
    await call(report, "run_many_no_wait", [Order(id=1), Order(id=1)])
    first, again = server.raw_bodies("POST /runs/bulk")
    assert first == again
    keys = [run["idempotency_key"] for run in first["runs"]]
    assert len(set(keys)) == 2
    assert all(key.startswith("auto:") and len(key) == 37 for key in keys)
    assert [run["idempotency_ttl"] for run in first["runs"]] == [120, 120]


async def test_a_time_for_a_key_needs_the_key(server: FakeServer, report: Any, call: Caller) -> None:
    with pytest.raises(ConfigError, match="give the key, too"):
        await call(report, "run_no_wait", Order(id=1), idempotency_ttl=60)
    assert server.requests == []


async def test_who_asks_too_often_waits_as_long_as_it_is_told(
    server: FakeServer, report: Any, call: Caller, noted_pauses: list[float]
) -> None:
    in_an_hour = (datetime.now(UTC) + timedelta(hours=1)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    server.on(
        "POST /runs",
        problem(429, "too_many_requests", retry_after="7"),
        problem(429, "too_many_requests", retry_after=in_an_hour),
        problem(503, "unavailable", retry_after="Thu, 01 Jan 1970 00:00:00 GMT"),
        problem(429, "too_many_requests", retry_after="soon"),
        answer(201, run_json("queued")),
    )
    await call(report, "run_no_wait", Order(id=1))
    assert noted_pauses[:3] == [7, 30, 0]
    assert 0.4 <= noted_pauses[3] <= 0.8


async def test_pauses_grow_and_are_never_the_same_for_all(
    server: FakeServer, report: Any, call: Caller, noted_pauses: list[float]
) -> None:
    server.on("POST /runs", httpx.ConnectError("refused"))
    with pytest.raises(ConnectionFailed):
        await call(report, "run_no_wait", Order(id=1))
    assert all(most / 2 <= pause <= most for most, pause in zip((0.1, 0.2, 0.4, 0.8), noted_pauses, strict=True))
