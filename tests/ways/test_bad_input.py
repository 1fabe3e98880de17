"""What cannot be is refused with a sentence that says what to do and where, and nothing of it is stored."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.e2e.stage import SECRET, Object
from tests.ways.stand import Ways, in_seconds

DEEP: Any = 0
for _ in range(200):
    DEEP = [DEEP]
CRON = {"task": "bad", "expression": "0 * * * *"}
LATER = in_seconds(3600)
YEAR = "31536000"


class Refused(NamedTuple):
    """What is asked, and the refusal: its `field`, what the sentence names, and the status."""

    method: str
    path: str
    body: Any
    field: str | None
    names: str = ""
    status: int = 422


def schedule(field: str | None, names: str = "", **more: Any) -> Refused:
    """A schedule that cannot be."""
    body = {name: value for name, value in (CRON | {"name": "bad-schedule"} | more).items() if value is not None}
    return Refused("POST", "/schedules", body, field, names)


def run(field: str | None, names: str = "", **more: Any) -> Refused:
    """A run that cannot be."""
    return Refused("POST", "/runs", {"task": "bad", "input": {}} | more, field, names)


def event(field: str | None, names: str = "", status: int = 422, **more: Any) -> Refused:
    """An event that cannot be."""
    return Refused("POST", "/events", {"key": "bad"} | more, field, names, status)


def policy(field: str, names: str = "", **more: Any) -> Refused:
    """A task that cannot be."""
    task = {"name": "bad.policy"} | more
    body = {"name": "bad-worker", "url": "http://127.0.0.1:9/", "mode": "plain", "secret": SECRET, "tasks": [task]}
    return Refused("POST", "/workers", body, field, names)


def rule(field: str | None, names: str = "", **more: Any) -> Refused:
    """A filter that cannot be."""
    return Refused("POST", "/tasks/bad/filters", more, field, names)


CASES: dict[str, Refused] = {
    # crons and schedules
    "cron that never fires": schedule("expression", "never", expression="0 0 30 2 *"),
    "six fields where the year was meant": schedule("expression", "seconds", expression="0 12 1 1 * 2027"),
    "seven fields": schedule("expression", "fields", expression="0 0 12 1 1 * 2027"),
    "four fields": schedule("expression", "fields", expression="0 12 1 1"),
    "minute 60": schedule("expression", "60", expression="60 * * * *"),
    "unknown alias": schedule("expression", "@fortnightly", expression="@fortnightly"),
    "empty cron": schedule("expression", expression=""),
    "cron in a number": schedule("expression", expression=5),
    "unknown zone": schedule("timezone", "Europe/Atlantis", timezone="Europe/Atlantis"),
    "zone of a path": schedule("timezone", timezone="../etc/passwd"),
    "unknown policy for missed times": schedule("missed", "once", missed="sometimes"),
    "unknown policy for overlaps": schedule("overlap", "cancel", overlap="queue"),
    "neither a cron nor a time": schedule("expression", "run_at", expression=None),
    "a cron and a time": schedule("run_at", "expression", run_at=LATER),
    "schedule for a time without zone": schedule("run_at", "zone", expression=None, run_at="2026-12-01T00:00:00"),
    "schedule for a time above the cap": schedule("run_at", YEAR, expression=None, run_at="9999-01-01T00:00:00Z"),
    "schedule of a task that nobody knows": schedule("task", "nobody", task="nobody"),
    "schedule with a name that cannot be": schedule("name", "128", name="not a name"),
    "schedule with metadata that is no object": schedule("metadata", metadata=[1]),
    "schedule with an unknown member": schedule("cron", "expression", cron="* * * * *"),
    "preview of a cron that never fires": Refused(
        "POST", "/schedules/preview", {"expression": "0 0 31 4 *"}, "expression", "never"
    ),
    "no schedule of that name": Refused("POST", "/schedules/nobody/trigger", None, None, "nobody", 404),
    # later
    "time without zone": run("run_at", "zone", run_at="2026-12-01T00:00:00"),
    "time in the far past": run("run_at", YEAR, run_at="0001-01-01T00:00:00Z"),
    "time above the cap": run("run_at", YEAR, run_at="9999-12-31T00:00:00Z"),
    "time that is none": run("run_at", run_at="2026-02-30T00:00:00Z"),
    "negative delay": run("delay", YEAR, delay=-1),
    "delay above the cap": run("delay", YEAR, delay=31_536_001),
    "delay in words": run("delay", "number", delay="5"),
    "delay and time": run("run_at", "delay", delay=5, run_at=LATER),
    "time of a key above the cap": run("idempotency_ttl", YEAR, idempotency_key="k", idempotency_ttl=31_536_001),
    "time of no key": run("idempotency_ttl", "idempotency_key", idempotency_ttl=2),
    "empty idempotency key": run("idempotency_key", "256", idempotency_key=""),
    # events
    "no event key": Refused("POST", "/events", {"payload": {}}, "key", "key"),
    "empty event key": event("key", "256", key=""),
    "event key too long": event("key", "256", key="k" * 257),
    "event key with control characters": event("key", "control", key="a\nb"),
    "event key that is a number": event("key", key=7),
    "event id too long": event("id", "256", id="i" * 257),
    "empty scope": event("scope", "256", scope=""),
    "scope with control characters": event("scope", "control", scope="a\x00b"),
    "event priority above the cap": event("priority", "1000", priority=1001),
    "event metadata that is no object": event("metadata", "object", metadata="m"),
    "payload too deep": event(None, "deep", payload=DEEP),
    "payload too large": event(None, "1048576", 413, payload="x" * 1_048_577),
    "payload that is not JSON": Refused("POST", "/events", b'{"key":"bad","payload":{"a":}}', None, "character"),
    "event that is a list": Refused("POST", "/events", [], None),
    "bulk that is no list": Refused("POST", "/events/bulk", {"events": {}}, "events", "list"),
    "bulk of 1,001 events": Refused("POST", "/events/bulk", {"events": [{"key": "bad"}] * 1001}, "events", "1000"),
    "bulk of 1,001 runs": Refused("POST", "/runs/bulk", {"runs": [{"task": "bad"}] * 1001}, "runs", "1000"),
    "no event of that id": Refused("POST", "/events/nothing/replay", None, None, "nothing", 404),
    # filters
    "filter that does not parse": rule("expression", "syntax error", expression="input.n +"),
    "filter of an unknown variable": rule("expression", "user", expression="user.id == 1"),
    "filter that says nothing": rule("expression", "scope", payload={}),
    "filter whose expression is too long": rule("expression", "512", expression="1 == 1 || " * 60 + "true"),
    "filter with an empty scope": rule("scope", "256", scope=""),
    "filter of a task that nobody knows": Refused(
        "POST", "/tasks/nobody/filters", {"expression": "true"}, None, "nobody", 404
    ),
    # policies
    "batch of 1": policy("tasks[0].batch_size", "2", batch_size=1),
    "batch of 0": policy("tasks[0].batch_size", "2", batch_size=0),
    "batch of 1,001": policy("tasks[0].batch_size", "1000", batch_size=1001),
    "batch timeout above the cap": policy("tasks[0].batch_timeout", "86400", batch_size=2, batch_timeout=86_401),
    "batch timeout of 0": policy("tasks[0].batch_timeout", batch_size=2, batch_timeout=0),
    "batch timeout without a size": policy("tasks[0]", "batch_size", batch_timeout=1),
    "batch key that does not parse": policy("tasks", "batch_key", batch_size=2, batch_key="input +"),
    "debounce and batch": policy("tasks[0]", "batch_size", batch_size=2, debounce={"period": 1}),
    "debounce without a period": policy("tasks[0].debounce.period", debounce={}),
    "debounce above the cap": policy("tasks[0].debounce.period", "86400", debounce={"period": 86_401}),
    "debounce that waits less than its period": policy(
        "tasks[0].debounce", "max_wait", debounce={"period": 2, "max_wait": 1}
    ),
    "leading debounce with a longest wait": policy(
        "tasks[0].debounce", "leading", debounce={"period": 2, "max_wait": 4, "mode": "leading"}
    ),
    "unknown debounce mode": policy("tasks[0].debounce.mode", "trailing", debounce={"period": 2, "mode": "both"}),
    "throttle of 0": policy("tasks[0].throttle.limit", "1", throttle={"limit": 0, "period": 1}),
    "throttle without a period": policy("tasks[0].throttle.period", throttle={"limit": 1}),
    "throttle above the cap": policy("tasks[0].throttle.period", throttle={"limit": 1, "period": 10**9}),
    "callback to itself": policy("tasks[0]", "on_failure", on_failure="bad.policy"),
    "cron of a task that never fires": policy("tasks", "never", crons=[{"expression": "0 0 30 2 *"}]),
    "cron of a task in an unknown zone": policy(
        "tasks", "Mars", crons=[{"expression": "0 0 * * *", "timezone": "Mars/Base"}]
    ),
    "seventeen crons": policy("tasks[0].crons", "16", crons=[{"expression": f"{n} * * * *"} for n in range(17)]),
    "the same event twice": policy("tasks[0].on_events", "twice", on_events=["a", "a"]),
    "empty pattern": policy("tasks[0].on_events[0]", on_events=[""]),
    "pattern too long": policy("tasks[0].on_events[0]", "256", on_events=["k" * 257]),
    "pattern with control characters": policy("tasks[0].on_events[0]", "control", on_events=["a\tb"]),
    "33 events": policy("tasks[0].on_events", "32", on_events=[f"e{n}" for n in range(33)]),
    "filters without events": policy("tasks[0]", "on_events", filters=[{"expression": "true"}]),
    "filter of a task that does not parse": policy(
        "tasks", "filters[0]", on_events=["a"], filters=[{"expression": "input.n +"}]
    ),
    "the same filter twice": policy(
        "tasks[0].filters", "same", on_events=["a"], filters=[{"expression": "true"}, {"expression": "true"}]
    ),
    # in bulk
    "cancelling without a filter": Refused("POST", "/runs/cancel", {}, "filter"),
    "cancelling by an unknown state": Refused("POST", "/runs/cancel", {"filter": {"state": "lost"}}, "filter.state"),
    "replaying by an unknown member": Refused("POST", "/runs/replay", {"filter": {"name": "x"}}, "filter.name", "task"),
    "dry run in words": Refused("POST", "/runs/cancel", {"filter": {"task": "bad"}, "dry_run": "yes"}, "dry_run"),
    "no operation of that id": Refused(
        "GET", "/operations/01980000-0000-7000-8000-000000000000", None, None, "01980000", 404
    ),
    # moves
    "moving what nobody knows": Refused(
        "PATCH", "/runs/01980000-0000-7000-8000-000000000000", {"delay": 1}, None, "01980000", 404
    ),
}
MOVES: dict[str, tuple[Object, str | None, str]] = {
    "nothing": ({}, "run_at", "delay"),
    "both": ({"delay": 1, "run_at": LATER}, "run_at", "delay"),
    "negative": ({"delay": -1}, "delay", YEAR),
    "without zone": ({"run_at": "2026-12-01T00:00:00"}, "run_at", "zone"),
    "above the cap": ({"run_at": "9999-01-01T00:00:00Z"}, "run_at", YEAR),
    "an input": ({"input": {}}, "input", "priority"),
    "priority above the cap": ({"delay": 1, "priority": 1001}, "priority", "1000"),
}


@pytest.fixture(scope="module")
def bad(ways: Ways) -> Ways:
    """The server, with a task that listens."""
    ways.serve({"name": "bad", "on_events": ["bad"], "filters": [{"expression": "input.n == 1"}]})
    return ways


def stored(ways: Ways) -> dict[str, Any]:
    """Return what there is."""

    def listed(path: str, **query: Any) -> Iterator[Object]:
        yield from ways.api.call("GET", path, limit=1000, **query)["items"]

    return {
        "runs": [run["id"] for run in ways.runs("bad")],
        "events": [one["id"] for one in listed("/events", key="bad")],
        "schedules": list(listed("/schedules", task="bad")),
        "filters": list(listed("/tasks/bad/filters")),
        "workers": [one["name"] for one in listed("/workers")],
        "tasks": [one["name"] for one in listed("/tasks")],
    }


def assert_told(problem: Object, field: str | None, names: str) -> None:
    """A sentence that names what is wrong, and where."""
    detail = problem["detail"]
    assert len(detail.split()) >= 3, problem
    assert problem.get("field") == field, problem
    assert names in detail, problem


@pytest.mark.parametrize("refused", CASES.values(), ids=CASES)
def test_what_cannot_be_is_refused_in_a_sentence_and_not_stored(bad: Ways, refused: Refused) -> None:
    before = stored(bad)

    raw = isinstance(refused.body, bytes)
    more: Any = {"content": refused.body} if raw else {"json": refused.body} if refused.body is not None else {}
    answer = bad.api._client.request(refused.method, refused.path, **more)

    assert answer.status_code == refused.status, answer.text
    assert_told(answer.json(), refused.field, refused.names)
    assert stored(bad) == before


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_move_that_cannot_be_is_refused_and_moves_nothing(bad: Ways, move: tuple[Object, str | None, str]) -> None:
    body, field, names = move
    run_id = bad.api.submit("bad", {}, delay=3600)["id"]
    before = bad.api.show(run_id)

    assert_told(bad.api.call("PATCH", f"/runs/{run_id}", body, status=422), field, names)

    assert bad.api.show(run_id) == before
    bad.api.call("POST", f"/runs/{run_id}/cancel")


def test_a_bulk_whose_items_are_all_bad_starts_nothing(bad: Ways) -> None:
    before = stored(bad)

    results = bad.api.call("POST", "/events/bulk", {"events": [{"key": ""}, {"key": "bad", "scope": 1}]})["results"]

    assert [one["field"] for one in results] == ["events[0].key", "events[1].scope"]
    assert stored(bad) == before


def test_a_name_that_is_taken_by_another_schedule_is_refused(bad: Ways) -> None:
    body = CRON | {"name": "taken"}
    made = bad.api.call("POST", "/schedules", body, status=201)

    problem = bad.api.call("POST", "/schedules", body | {"expression": "1 * * * *"}, status=409)

    assert problem["code"] == "schedule_exists"
    assert "taken" in problem["detail"]
    assert bad.api.call("GET", "/schedules/taken") == made
    bad.api.call("DELETE", "/schedules/taken", status=204)
