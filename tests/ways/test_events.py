"""Events over HTTP: which tasks they start, how often, with what, and what is told of it."""

import json
from typing import Any

import pytest

from tests.e2e.stage import Object, until
from tests.ways.stand import Ways, outcomes, started


def test_six_events_start_exactly_one_run(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "six", "on_events": ["six:made"], "filters": [{"expression": "input.n > 1", "scope": "a"}]})

    without_scope = [ways.publish("six:made", {"n": 2}) for _ in range(2)]
    true = ways.publish("six:made", {"n": 2}, scope="a")
    false = ways.publish("six:made", {"n": 1}, scope="a")
    unknown = [ways.publish("six:unmade", {"n": 2}, scope="a") for _ in range(2)]

    assert [started(event) for event in (*without_scope, false, *unknown)] == [[], [], [], [], []]
    assert [one["starts"] for one in unknown] == [[], []]
    assert [(one["filter"], one["outcome"], one["run"]) for one in false["starts"]] == [
        ("input.n > 1", "filtered", None)
    ]
    [run_id] = started(true)
    assert ways.api.ended(run_id)["state"] == "completed"
    assert [run["id"] for run in ways.runs("six")] == [run_id]
    assert [noted["run_id"] for noted in ways.noted("six")] == [run_id]


def test_a_star_stands_for_anything_and_only_where_it_stands(ways: Ways) -> None:
    ways.serve({"name": "stars", "on_events": ["subscription:*"]}, {"name": "dots", "on_events": ["a.c", "a+*?[b]"]})

    for key, tasks in {
        "subscription:1": ["stars"],
        "subscription:2": ["stars"],
        "foobar": [],
        "subscription": [],
        "my-subscription:1": [],
        "Subscription:1": [],
        "abc": [],
        "a.c": ["dots"],
        "aab": [],
        "a+x?[b]": ["dots"],
    }.items():
        assert outcomes(ways.publish(key)) == [(task, "started") for task in tasks], key

    assert len(ways.until_noted(2, "stars")) == 2
    assert {noted["trigger"]["key"] for noted in ways.noted("stars")} == {"subscription:1", "subscription:2"}


def test_two_true_filters_start_two_runs_that_see_their_own_payloads(either_ways: Ways) -> None:
    ways = either_ways
    filters: list[Object] = [
        {"expression": "input.n >= payload.least", "payload": {"least": 1, "name": "small"}},
        {"expression": "input.n >= payload.least", "payload": {"least": 2, "name": "large"}},
        {"expression": "input.n >= payload.least", "payload": {"least": 3, "name": "huge"}},
    ]
    ways.serve({"name": "two", "on_events": ["two"], "filters": filters})

    event = ways.publish("two", {"n": 2}, scope="s", metadata={"from": "here"}, priority=7)

    assert outcomes(event) == [("two", "started"), ("two", "started"), ("two", "filtered")]
    told = {noted["run_id"]: noted for noted in ways.until_noted(2, "two")}
    assert set(told) == set(started(event))
    expected = {"type": "event", "event": event["id"], "key": "two", "scope": "s", "filter": filters[0]["expression"]}
    for run_id, own in zip(started(event), ("small", "large"), strict=True):
        noted, shown = told[run_id], ways.api.ended(run_id)
        assert noted["trigger"] == shown["trigger"]
        assert {name: noted["trigger"][name] for name in expected} == expected
        assert noted["trigger"]["payload"]["name"] == own
        assert (noted["input"], noted["metadata"]) == ({"n": 2}, {"from": "here"})
        assert (shown["input"], shown["metadata"], shown["priority"]) == ({"n": 2}, {"from": "here"}, 7)
    assert len(ways.runs("two")) == 2


@pytest.mark.parametrize("many", ["one task", "two tasks"])
def test_a_hundred_events_that_alternate_between_two_scopes_start_one_run_each(either_ways: Ways, many: str) -> None:
    ways = either_ways
    key = "alternating" if many == "one task" else "alternating-2"
    filters: list[Object] = [{"scope": scope, "payload": {"of": scope}} for scope in ("left", "right")]
    tasks = [key] if many == "one task" else [f"{key}.left", f"{key}.right"]
    if many == "one task":
        ways.serve({"name": key, "on_events": [key], "filters": filters})
    else:
        ways.serve(
            *({"name": task, "on_events": [key], "filters": [one]} for task, one in zip(tasks, filters, strict=True))
        )
    scopes = ["left", "right"] * 50
    events: list[Object] = [{"key": key, "scope": scope, "payload": {"n": n}} for n, scope in enumerate(scopes)]

    single = [ways.publish(**event) for event in events[:10]]
    bulk = ways.api.call("POST", "/events/bulk", {"events": events[10:]})["results"]

    runs = [started(event) for event in (*single, *bulk)]
    assert [len(one) for one in runs] == [1] * 100
    noted = ways.until_noted(100, *tasks)
    assert sorted(one["run_id"] for one in noted) == sorted(run_id for [run_id] in runs)
    assert sorted(one["input"]["n"] for one in noted) == list(range(100))
    assert {one["input"]["n"]: one["trigger"]["payload"]["of"] for one in noted} == dict(enumerate(scopes))
    assert sum(len(ways.runs(task)) for task in tasks) == 100


def test_an_id_has_one_event_and_its_starts_happen_once(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "once", "on_events": ["once"]})

    first = ways.publish("once", {"n": 1}, id="order-1")
    again = ways.publish("once", {"n": 1}, id="order-1", status=200)
    other = ways.publish("once", {"n": 2}, id="order-1", status=409)

    assert again == first == ways.api.call("GET", "/events/order-1")
    assert other["code"] == "event_conflict"
    assert [run["id"] for run in ways.runs("once")] == started(first)


def test_a_replayed_event_is_a_new_one_that_names_the_old(ways: Ways) -> None:
    ways.serve({"name": "again", "on_events": ["again"]})
    first = ways.publish("again", {"n": 1}, scope="s", metadata={"m": 1})

    second = ways.api.call("POST", f"/events/{first['id']}/replay", status=201)

    assert second["replay_of"] == first["id"]
    assert second["id"] != first["id"]
    same = ("key", "scope", "payload", "metadata", "priority")
    assert [second[name] for name in same] == [first[name] for name in same]
    assert len({*started(first), *started(second)}) == 2
    assert len(ways.until_noted(2, "again")) == 2


def test_a_filter_that_fails_is_told_and_keeps_no_other_from_starting(ways: Ways) -> None:
    filters = [{"expression": "input.missing > 1"}, {"expression": "input.n"}, {"expression": "input.n == 2"}]
    ways.serve({"name": "failing", "on_events": ["failing"], "filters": filters})

    event = ways.publish("failing", {"n": 2})

    assert outcomes(event) == [("failing", "failed"), ("failing", "failed"), ("failing", "started")]
    assert all(start["reason"] for start in event["starts"] if start["outcome"] == "failed")
    assert "missing" in event["starts"][0]["reason"]
    assert ways.api.call("GET", f"/events/{event['id']}")["starts"] == event["starts"]
    assert len(ways.runs("failing")) == 1


def test_a_task_that_refuses_the_input_is_told_and_keeps_no_other_from_starting(ways: Ways) -> None:
    ways.serve(
        {"name": "refuses", "on_events": ["picky"], "concurrency": [{"key": "input.user", "max_runs": 1}]},
        {"name": "takes", "on_events": ["picky"]},
    )

    event = ways.publish("picky", {"n": 1})

    assert sorted(outcomes(event)) == [("refuses", "failed"), ("takes", "started")]
    assert "no member user" in next(start["reason"] for start in event["starts"] if start["task"] == "refuses")
    assert ways.runs("refuses") == []


def test_filters_by_the_api_count_beside_those_of_the_policy(ways: Ways) -> None:
    ways.serve({"name": "ruled", "on_events": ["ruled"], "filters": [{"expression": "input.n == 1"}]})
    made = ways.api.call("POST", "/tasks/ruled/filters", {"expression": "input.n == 2", "payload": [2]}, status=201)

    assert [one["source"] for one in ways.api.call("GET", "/tasks/ruled/filters")["items"]] == ["task", "api"]
    assert (
        ways.api.call("PATCH", "/tasks/ruled/filters/policy.0", {"scope": "x"}, status=409)["code"] == "filter_of_task"
    )
    assert len(started(ways.publish("ruled", {"n": 2}))) == 1
    ways.api.call("PATCH", f"/tasks/ruled/filters/{made['id']}", {"expression": "input.n == 3"})
    assert [len(started(ways.publish("ruled", {"n": n}))) for n in (1, 2, 3)] == [1, 0, 1]
    ways.api.call("DELETE", f"/tasks/ruled/filters/{made['id']}", status=204)
    assert [len(started(ways.publish("ruled", {"n": n}))) for n in (1, 2, 3)] == [1, 0, 0]


def test_runs_of_a_paused_task_are_made_and_held(ways: Ways) -> None:
    ways.serve({"name": "paused", "on_events": ["paused"]})
    ways.api.call("POST", "/tasks/paused/pause")

    [run_id] = started(ways.publish("paused"))
    ways.settle()
    assert ways.api.show(run_id)["state"] == "queued"
    ways.api.call("POST", "/tasks/paused/resume")

    assert ways.api.ended(run_id)["state"] == "completed"


def test_a_payload_goes_through_as_the_text_that_it_came_as(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "text", "on_events": ["text"]})
    text = '{"z":1.0,"a":12345678901234567890,"u":"\\u00e9","n":null}'

    body = f'{{"key":"text","payload":{text}}}'
    answer = ways.api._client.post("/events", content=body, headers={"content-type": "application/json"})

    assert answer.status_code == 201
    [run_id] = started(answer.json())
    assert text in answer.text
    assert text in ways.api.send("GET", f"/runs/{run_id}").text


def test_events_are_listed_newest_first_by_key_and_scope(ways: Ways) -> None:
    ids = [ways.publish("listed", n, scope=scope)["id"] for n, scope in enumerate(("a", "b", "a", "b", "a"))]

    def listed(**query: Any) -> list[str]:
        found: list[str] = []
        while True:
            page = ways.api.call("GET", "/events", key="listed", limit=2, **query)
            found += [event["id"] for event in page["items"]]
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    assert listed() == ids[::-1]
    assert listed(scope="a") == [ids[4], ids[2], ids[0]]


def test_a_bad_item_of_a_bulk_is_told_and_the_others_go_in(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "bulk", "on_events": ["bulk:*"]})
    events: list[Any] = [{"key": "bulk:1"}, {"key": ""}, {"key": "bulk:2", "payload": [1]}, 7, {"payload": 1}]

    results = ways.api.call("POST", "/events/bulk", {"events": events})["results"]

    assert [outcomes(one) if "id" in one else one["field"] for one in results] == [
        [("bulk", "started")],
        "events[1].key",
        [("bulk", "started")],
        "events[3]",
        "events[4].key",
    ]
    assert all(one["detail"] for one in results if "id" not in one)
    until(lambda: len(ways.noted("bulk")) == 2, "both runs")
    assert [json.dumps(run["input"]) for run in ways.runs("bulk")] == ["{}", "[1]"]
