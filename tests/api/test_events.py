"""Publishing events, looking at them, and choosing among them, as a client sees it."""

import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.conftest import WORKER_URL, FakeWorker

pytestmark = pytest.mark.anyio

DEEP = "[" * 64 + "1" + "]" * 64
DEEPER = f"[{DEEP}]"


async def serve(api: httpx.AsyncClient, *keys: str, task: str = "echo", **more: Any) -> None:
    """Let the worker's task listen to these keys."""
    policy = {"name": task, "on_events": list(keys)} | more
    answer = await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": [policy]})
    assert answer.status_code == 200, answer.text


async def publish(api: httpx.AsyncClient, key: str, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = await api.post("/events", json={"key": key} | more)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def at(event_id: str, *more: str) -> str:
    """Return the path of an event."""
    return "/".join(["/events", quote(event_id, safe=""), *more])


# -- events ------------------------------------------------------------------------------------------------------------


async def test_an_event_is_published_and_shown_with_what_it_started(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    await serve(api, "order.*", filters=[{"expression": "input.amount > 10", "payload": {"to": "boss"}}])
    said = {"key": "order.paid", "payload": {"amount": 12}, "scope": "eu", "metadata": {"by": "ada"}, "priority": 3}

    answer = await api.post("/events", json=said)
    event = answer.json()
    [start] = event["starts"]
    run = (await api.get(f"/runs/{start['run']}?wait=60")).json()

    assert (answer.status_code, answer.headers["location"]) == (201, f"/events/{event['id']}")
    assert {name: event[name] for name in said} == said
    assert start == {
        "task": "echo",
        "filter": "input.amount > 10",
        "outcome": "started",
        "run": run["id"],
        "reason": None,
    }
    assert (event["replay_of"], run["created_at"]) == (None, event["created_at"])
    assert (run["state"], run["input"], run["metadata"], run["priority"]) == (
        "completed",
        {"amount": 12},
        {"by": "ada"},
        3,
    )
    trigger = {
        "type": "event",
        "event": event["id"],
        "key": "order.paid",
        "scope": "eu",
        "filter": "input.amount > 10",
        "payload": {"to": "boss"},
    }
    assert run["trigger"] == worker.delivered[0]["trigger"] == trigger
    assert (await api.get(f"/events/{event['id']}")).json() == event


async def test_an_event_that_nobody_listens_to_is_kept(api: httpx.AsyncClient) -> None:
    event = await publish(api, "nobody:cares")

    assert (event["payload"], event["metadata"], event["scope"], event["priority"]) == ({}, {}, None, None)
    assert event["starts"] == []
    [listed] = (await api.get("/events")).json()["items"]
    assert listed == {name: value for name, value in event.items() if name != "starts"}


async def test_a_payload_may_be_any_json_and_stays_the_text_that_it_was(api: httpx.AsyncClient) -> None:
    await serve(api, "key")

    for payload in ("null", "0", '"text"', "[ 1,2 ]", '{ "a" : 1.0 }', DEEP, '"\\u0000"'):
        answer = await api.post("/events", content=f'{{"key": "key", "payload": {payload}}}')
        run = await api.get(f"/runs/{answer.json()['starts'][0]['run']}")

        assert f'"payload":{payload}' in answer.text
        assert f'"input":{payload}' in run.text


async def test_a_known_id_is_answered_with_the_event_that_was(api: httpx.AsyncClient) -> None:
    await serve(api, "key")
    first = await publish(api, "key", id="e1", payload=1)
    again = await publish(api, "key", 200, id="e1", payload=1)
    other = await publish(api, "key", 409, id="e1", payload=2)

    assert again == first
    assert "hurlbat_events_published_total 1.0\n" in (await api.get("/metrics")).text
    assert (other["code"], other["event"]) == ("event_conflict", "e1")
    assert len((await api.get("/runs")).json()["items"]) == 1


IDS = ["a/b", "a%2Fb", "/", "x/replay", "é漢𝄞", "?#[]@!$&'()*+,;=", "a b", "%", '"<>\\^`{|}', "x" * 256]


async def test_an_id_may_have_any_visible_characters(api: httpx.AsyncClient) -> None:
    for event_id in IDS:
        answer = await api.post("/events", json={"key": "key", "id": event_id})
        path = at(event_id)
        shown = await api.get(path)
        again = await api.post(f"{path}/replay")

        assert answer.json()["id"] == event_id
        assert answer.headers["location"] == at(event_id)
        assert shown.json() == answer.json()
        assert (again.status_code, again.json()["replay_of"]) == (201, event_id)
        assert again.json()["id"] != event_id


async def test_events_are_listed_by_key_and_scope_in_pages(api: httpx.AsyncClient) -> None:
    for n in range(4):
        await publish(api, "ab"[n % 2], id=f"{n}{'é' * 255}", scope="st"[n // 2])

    first = (await api.get("/events?limit=3")).json()
    second = (await api.get("/events", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    by_key = (await api.get("/events?key=a")).json()
    by_both = (await api.get("/events?key=b&scope=t")).json()

    assert [[int(one["id"][0]) for one in page["items"]] for page in (first, second, by_key, by_both)] == [
        [3, 2, 1],
        [0],
        [2, 0],
        [3],
    ]
    assert second["next_cursor"] is None


async def test_an_event_is_replayed_to_those_who_listen_now(api: httpx.AsyncClient) -> None:
    old = await publish(api, "key", payload={"n": 1})
    await serve(api, "key")

    answer = await api.post(at(old["id"], "replay"), json={})

    new = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, at(new["id"]))
    assert (new["replay_of"], new["payload"], [one["outcome"] for one in new["starts"]]) == (
        old["id"],
        {"n": 1},
        ["started"],
    )


async def test_of_many_events_each_has_an_outcome_of_its_own(api: httpx.AsyncClient) -> None:
    await serve(api, "key")
    items = [
        {"key": "key", "payload": 1},
        {"key": ""},
        {"key": "key", "priority": 5000},
        {"payload": 1},
        7,
        {"key": "key", "colour": "red"},
        {"key": "key", "id": "same", "payload": 2},
        {"key": "key", "id": "same", "payload": 2},
        {"key": "key", "id": "same", "payload": 3},
        {"key": "key", "scope": "a\u0085"},
    ]

    answer = await api.post("/events/bulk", json={"events": items})
    results = answer.json()["results"]

    assert answer.status_code == 200
    assert [result.get("code") for result in results] == [
        None,
        "member_invalid",
        "member_invalid",
        "member_missing",
        "json_invalid",
        "member_unknown",
        None,
        None,
        "event_conflict",
        "member_invalid",
    ]
    assert [result["field"] for result in results if "code" in result] == [
        "events[1].key",
        "events[2].priority",
        "events[3].key",
        "events[4]",
        "events[5].colour",
        "events[8]",
        "events[9].scope",
    ]
    assert results[6] == results[7]
    assert len((await api.get("/runs")).json()["items"]) == 2
    assert len((await api.get("/events")).json()["items"]) == 2


async def test_a_thousand_events_are_taken_at_once_and_no_more(api: httpx.AsyncClient) -> None:
    taken = await api.post("/events/bulk", json={"events": [{"key": "k"}] * 1000})
    refused = await api.post("/events/bulk", json={"events": [{"key": "k"}] * 1001})

    assert (taken.status_code, len(taken.json()["results"])) == (200, 1000)
    assert (refused.status_code, refused.json()["code"], refused.json()["limit"]) == (422, "too_many", 1000)


BAD: list[tuple[str, str, str | None, str]] = [
    ("{}", "member_missing", "key", "required"),
    ('{"key": null}', "member_missing", "key", "required"),
    ('{"key": ""}', "member_invalid", "key", "1 to 256 characters"),
    ('{"key": 7}', "member_invalid", "key", "string"),
    (json.dumps({"key": "x" * 257}), "member_invalid", "key", "256"),
    ('{"key": "a\\nb"}', "member_invalid", "key", "control"),
    ('{"key": "a\\u0000"}', "member_invalid", "key", "control"),
    ('{"key": "a\\u007f"}', "member_invalid", "key", "control"),
    ('{"key": "a\\u0080"}', "member_invalid", "key", "control"),
    ('{"key": "a\\u009f"}', "member_invalid", "key", "control"),
    ('{"key": "\\ud800"}', "json_invalid", None, "surrogate"),
    ('{"key": "k", "scope": ""}', "member_invalid", "scope", "1 to 256 characters"),
    ('{"key": "k", "scope": []}', "member_invalid", "scope", "string"),
    (json.dumps({"key": "k", "scope": "é" * 257}), "member_invalid", "scope", "256"),
    ('{"key": "k", "id": ""}', "member_invalid", "id", "1 to 256 characters"),
    ('{"key": "k", "id": 7}', "member_invalid", "id", "string"),
    ('{"key": "k", "id": "a\\tb"}', "member_invalid", "id", "control"),
    ('{"key": "k", "metadata": []}', "member_invalid", "metadata", "object"),
    (json.dumps({"key": "k", "metadata": {"a": "x" * 66_000}}), "member_too_large", "metadata", "65536"),
    ('{"key": "k", "priority": 1001}', "member_invalid", "priority", "1000"),
    ('{"key": "k", "priority": "high"}', "member_invalid", "priority", "whole number"),
    ('{"key": "k", "priority": 1.5}', "member_invalid", "priority", "whole number"),
    ('{"key": "k", "payload": NaN}', "json_invalid", None, "NaN"),
    ('{"key": "k", "payload": 1e400}', "json_invalid", None, "too large"),
    ('{"key": "k", "payload": {]}', "json_invalid", None, "character"),
    (f'{{"key": "k", "payload": {DEEPER}}}', "json_invalid", None, "64 levels"),
    (f'{{"key": "k", "payload": {"[" * 20_000}{"]" * 20_000}}}', "json_invalid", None, "64 levels"),
    ('{"key": "k", "key": "l"}', "json_invalid", None, "twice"),
    ('{"key": "k", "input": 1}', "member_unknown", "input", "known"),
    ("[]", "json_invalid", None, "object"),
    ("", "member_missing", "key", "required"),
]


async def test_a_bad_event_is_refused_in_a_sentence_and_nothing_is_stored(api: httpx.AsyncClient) -> None:
    for body, code, field, words in BAD:
        answer = await api.post("/events", content=body)

        problem = answer.json()
        assert (answer.status_code, problem["code"], problem.get("field")) == (422, code, field), (body, problem)
        assert words in problem["detail"], (body, problem)
    assert (await api.get("/events")).json()["items"] == []


async def test_a_payload_beyond_the_limit_of_a_body_is_refused(api: httpx.AsyncClient) -> None:
    answer = await api.post("/events", json={"key": "k", "payload": "x" * 100_001})

    assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (413, "body_too_large", 100_000)


BAD_QUESTIONS = [
    ("key=", "key"),
    (f"key={'x' * 257}", "key"),
    ("scope=%0A", "scope"),
    ("cursor=nonsense", "cursor"),
    ("limit=0", "limit"),
    ("task=echo", "task"),
]


async def test_a_bad_question_for_events_is_refused(api: httpx.AsyncClient) -> None:
    for query, field in BAD_QUESTIONS:
        answer = await api.get(f"/events?{query}")
        assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_an_event_that_is_not_there_is_not_found(api: httpx.AsyncClient) -> None:
    for path in ("/events/unknown", "/events/%00", "/events/%C2%85", f"/events/{'x' * 300}"):
        shown, replayed = await api.get(path), await api.post(f"{path}/replay")
        assert [(one.status_code, one.json()["code"]) for one in (shown, replayed)] == [(404, "event_unknown")] * 2


async def test_an_id_that_is_no_text_leads_nowhere(api: httpx.AsyncClient) -> None:
    assert (await api.get("/events/%FF")).status_code == 404


# -- filters -----------------------------------------------------------------------------------------------------------


async def test_a_filter_is_made_shown_changed_and_removed(api: httpx.AsyncClient) -> None:
    await serve(api, "key", filters=[{"expression": "input.n == 1"}])

    made = await api.post("/tasks/echo/filters", json={"expression": "input.n == payload.n", "payload": {"n": 2}})
    own = made.json()
    both = await publish(api, "key", payload={"n": 2})
    changed = await api.patch(f"/tasks/echo/filters/{own['id']}", json={"expression": None, "scope": "s"})
    scoped = await publish(api, "key", payload={"n": 3}, scope="s")
    listed = (await api.get("/tasks/echo/filters")).json()
    shown = await api.get(f"/tasks/echo/filters/{own['id']}")
    bare = await api.patch(f"/tasks/echo/filters/{own['id']}")
    removed = await api.delete(f"/tasks/echo/filters/{own['id']}")
    after = await publish(api, "key", payload={"n": 3}, scope="s")

    assert (made.status_code, made.headers["location"]) == (201, f"/tasks/echo/filters/{own['id']}")
    assert own == {
        "id": own["id"],
        "expression": "input.n == payload.n",
        "scope": None,
        "payload": {"n": 2},
        "source": "api",
    }
    assert [one["outcome"] for one in both["starts"]] == ["filtered", "started"]
    assert changed.json() == shown.json() == bare.json() == own | {"expression": None, "scope": "s"}
    assert [one["outcome"] for one in scoped["starts"]] == ["filtered", "started"]
    policy: dict[str, Any] = {
        "id": "policy.0",
        "expression": "input.n == 1",
        "scope": None,
        "payload": {},
        "source": "task",
    }
    assert listed == {"items": [policy, changed.json()], "next_cursor": None}
    assert (removed.status_code, removed.content) == (204, b"")
    assert [one["outcome"] for one in after["starts"]] == ["filtered"]
    assert (await api.get(f"/tasks/echo/filters/{own['id']}")).json()["code"] == "filter_unknown"


async def test_filters_come_in_pages_the_oldest_first(api: httpx.AsyncClient) -> None:
    await serve(api, "key", filters=[{"scope": "0"}, {"scope": "1"}])
    for n in (2, 3, 4):
        await api.post("/tasks/echo/filters", json={"scope": str(n)})

    first = (await api.get("/tasks/echo/filters?limit=3")).json()
    second = (await api.get("/tasks/echo/filters", params={"cursor": first["next_cursor"]})).json()

    assert [[one["scope"] for one in page["items"]] for page in (first, second)] == [["0", "1", "2"], ["3", "4"]]
    assert second["next_cursor"] is None
    assert (await api.get("/tasks/echo/filters?cursor=x")).json()["code"] == "bad_cursor"


async def test_what_stands_in_a_policy_is_not_changed_by_hand(api: httpx.AsyncClient) -> None:
    await serve(api, "key", filters=[{"expression": "input.n == 1"}])

    answers = [
        await api.patch("/tasks/echo/filters/policy.0", json={"scope": "s"}),
        await api.delete("/tasks/echo/filters/policy.0"),
    ]

    assert [(one.status_code, one.json()["code"]) for one in answers] == [(409, "filter_of_task")] * 2
    assert (await api.get("/tasks/echo/filters/policy.0")).json()["expression"] == "input.n == 1"


async def test_a_task_has_64_filters_made_by_hand_and_no_two_that_say_the_same(api: httpx.AsyncClient) -> None:
    await serve(api, "key", filters=[{"scope": "p", "payload": {"a": 1, "b": 2}}])
    made = [await api.post("/tasks/echo/filters", json={"scope": f"s{n}"}) for n in range(64)]
    full = await api.post("/tasks/echo/filters", json={"scope": "one more"})
    removed = await api.delete(made[0].headers["location"])
    same = [
        await api.post("/tasks/echo/filters", json={"scope": "s5"}),
        await api.post("/tasks/echo/filters", content='{"scope": "p", "payload": {"b": 2, "a": 1}}'),
        await api.patch(made[1].headers["location"], json={"scope": "s2"}),
    ]
    unchanged = await api.patch(made[1].headers["location"], json={"scope": "s1"})

    assert {one.status_code for one in made} == {201}
    assert (full.status_code, full.json()["code"], full.json()["limit"]) == (409, "too_many_filters", 64)
    assert "64" in full.json()["detail"]
    assert removed.status_code == 204
    assert [(one.status_code, one.json()["code"]) for one in same] == [(409, "filter_exists")] * 3
    assert same[1].json()["filter"] == "policy.0"
    assert unchanged.status_code == 200


BAD_FILTERS: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "member_missing", "expression", "a scope"),
    ({"payload": 1}, "member_missing", "expression", "a scope"),
    ({"expression": "input.n ="}, "expression_invalid", "expression", "=="),
    ({"expression": ""}, "expression_invalid", "expression", "empty"),
    ({"expression": "x" * 513}, "expression_invalid", "expression", "512"),
    ({"expression": "size(input.n)"}, "filter_wrong_type", "expression", "true or false"),
    ({"expression": "run.id == ''"}, "expression_invalid", "expression", "input, payload, metadata and event"),
    ({"expression": 1}, "member_invalid", "expression", "string"),
    ({"scope": ""}, "member_invalid", "scope", "1 to 256"),
    ({"scope": "a\u0080"}, "member_invalid", "scope", "control"),
    ({"scope": 1}, "member_invalid", "scope", "string"),
    ({"scope": "s", "payload": "x" * 16_384}, "member_too_large", "payload", "16384"),
    ({"scope": "s", "name": "x"}, "member_unknown", "name", "known"),
]


async def test_a_bad_filter_is_refused_in_a_sentence(api: httpx.AsyncClient) -> None:
    await serve(api, "key")
    for said, code, field, words in BAD_FILTERS:
        answer = await api.post("/tasks/echo/filters", json=said)

        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["field"]) == (422, code, field), problem
        assert words in problem["detail"], problem
    assert (await api.get("/tasks/echo/filters")).json()["items"] == []


async def test_a_change_leaves_a_filter_that_says_something(api: httpx.AsyncClient) -> None:
    await serve(api, "key")
    made = (await api.post("/tasks/echo/filters", json={"scope": "s"})).headers["location"]

    nothing = await api.patch(made, json={"scope": None})
    as_it_was = await api.patch(made, json={})

    assert (nothing.status_code, nothing.json()["code"]) == (422, "member_missing")
    assert (as_it_was.status_code, as_it_was.json()["scope"]) == (200, "s")


async def test_filters_of_tasks_that_are_not_there_or_do_not_listen(api: httpx.AsyncClient) -> None:
    unknown = [
        await api.get("/tasks/nobody/filters"),
        await api.post("/tasks/nobody/filters", json={"scope": "s"}),
        await api.get("/tasks/nobody/filters/x"),
    ]
    deaf = await api.post("/tasks/echo/filters", json={"scope": "s"})

    assert [(one.status_code, one.json()["code"]) for one in unknown] == [(404, "task_unknown")] * 3
    assert (deaf.status_code, deaf.json()["code"]) == (409, "task_without_events")
    assert (await api.patch("/tasks/echo/filters/x", json={})).json()["code"] == "filter_unknown"


BAD_POLICIES: list[tuple[dict[str, Any], str, str]] = [
    ({"on_events": [""]}, ".on_events[0]", "at least 1 character"),
    ({"on_events": ["x" * 257]}, ".on_events[0]", "256"),
    ({"on_events": ["a\u0085"]}, ".on_events[0]", "control"),
    ({"on_events": ["a", "a"]}, ".on_events", "twice"),
    ({"on_events": [f"k{n}" for n in range(33)]}, ".on_events", "32"),
    ({"filters": [{"expression": "true"}]}, "", "on_events"),
    ({"on_events": ["k"], "filters": [{}]}, ".filters[0]", "expression, a scope, or both"),
    ({"on_events": ["k"], "filters": [{"scope": str(n)} for n in range(17)]}, ".filters", "16"),
    ({"on_events": ["k"], "filters": [{"scope": "s"}] * 2}, ".filters", "same"),
]


async def test_a_registration_that_listens_in_a_way_that_cannot_be_is_refused(api: httpx.AsyncClient) -> None:
    for policy, field, words in BAD_POLICIES:
        spec = {"name": "w2", "url": WORKER_URL, "mode": "plain", "tasks": [{"name": "t"} | policy]}
        answer = await api.post("/workers", json=spec)
        assert answer.status_code == 422, answer.text
        assert answer.json()["field"] == f"tasks[0]{field}"
        assert words in answer.json()["detail"]


async def test_a_registration_with_a_filter_that_cannot_be_is_refused(api: httpx.AsyncClient) -> None:
    tasks = [{"name": "t", "on_events": ["k"], "filters": [{"scope": "s"}, {"expression": "run.id"}]}]
    answer = await api.post("/workers", json={"name": "w2", "url": WORKER_URL, "mode": "plain", "tasks": tasks})
    assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
    assert "task t: filters[1].expression: the expression 'run.id' is wrong" in answer.json()["detail"]
