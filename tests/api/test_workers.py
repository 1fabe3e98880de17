"""Registering, showing, changing and removing workers, as a client sees it."""

from typing import Any, get_args

import httpx
import pytest

from hurlbat.policy import Strategy
from tests.api.conftest import WORKER_URL

pytestmark = pytest.mark.anyio

SECRET = "whsec_" + "A" * 32
KEY: dict[str, Any] = {"key": "input.user"}
PLAIN = {"name": "w", "url": WORKER_URL, "mode": "plain", "tasks": [{"name": "t", "retries": 2}]}


async def test_a_made_secret_is_shown_once(api: httpx.AsyncClient) -> None:
    first = await api.post("/workers", json={"name": "w", "url": WORKER_URL})
    again = await api.post("/workers", json={"name": "w", "url": WORKER_URL})
    shown = await api.get("/workers/w")

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["secret"].startswith("whsec_")
    assert first.json()["state"] == "pending"
    assert first.headers["location"] == "/workers/w"
    assert "secret" not in again.json() | shown.json()


async def test_a_given_secret_is_never_shown(api: httpx.AsyncClient) -> None:
    made = await api.post("/workers", json=PLAIN | {"secret": SECRET})

    assert made.status_code == 201
    assert SECRET not in made.text + (await api.get("/workers/w")).text + (await api.get("/workers")).text


async def test_a_plain_worker_is_unverified_and_its_tasks_are_known(api: httpx.AsyncClient) -> None:
    worker = (await api.post("/workers", json=PLAIN | {"labels": {"region": "eu"}, "slots": 7})).json()
    task = (await api.get("/tasks/t")).json()

    assert (worker["state"], worker["tasks"], worker["slots"]) == ("unverified", ["t"], 7)
    assert worker["labels"] == {"region": "eu"}
    assert (task["retries"], task["workers"], task["execution_timeout"]) == (2, ["w"], 300.0)


async def test_a_task_shows_the_policy_in_force(api: httpx.AsyncClient) -> None:
    said: dict[str, Any] = {
        "concurrency": [{"key": "input.user", "max_runs": 2, "strategy": "CANCEL_NEWEST", "name": "user"}],
        "rate_limits": [
            {"key": "cdn", "units": "input.size"},
            {"dynamic_key": "input.tenant", "units": 1, "limit": 10, "duration": 1.5},
        ],
        "slot_cost": 5,
        "labels": {"gpu": {"value": "a100", "required": False, "weight": 10}},
        "sticky": "soft",
    }
    await api.post("/workers", json=PLAIN | {"tasks": [{"name": "t"} | said]})

    task = (await api.get("/tasks/t")).json()

    assert {name: task[name] for name in said} == said
    assert task["paused"] is False


async def test_an_unknown_strategy_is_answered_with_the_five_that_there_are(api: httpx.AsyncClient) -> None:
    rule = KEY | {"strategy": "FIRST_COME"}
    answer = await api.post("/workers", json=PLAIN | {"tasks": [{"name": "t", "concurrency": [rule]}]})
    assert answer.status_code == 422
    assert all(strategy in answer.json()["detail"] for strategy in get_args(Strategy))


async def test_a_window_is_pinned_and_set_free_again(api: httpx.AsyncClient) -> None:
    def told(answer: httpx.Response) -> tuple[object, ...]:
        return tuple(answer.json()[name] for name in ("window", "pinned", "slots", "in_flight"))

    made = await api.post("/workers", json=PLAIN | {"slots": 50, "window": 8})
    assert told(made) == (8, 8, 50, 0)
    assert told(await api.patch("/workers/w", json={"window": None})) == (8, 8, 50, 0)
    assert told(await api.patch("/workers/w", json={"slots": 5})) == (5, 8, 5, 0)  # it counts as far as they go
    assert told(await api.patch("/workers/w", json={"slots": 20})) == (8, 8, 20, 0)
    assert told(await api.patch("/workers/w", json={"window": "auto"})) == (8, None, 20, 0)
    assert told(await api.post("/workers", json=PLAIN | {"window": 20})) == (20, 20, 20, 0)
    assert told(await api.get("/workers/w")) == (20, 20, 20, 0)


@pytest.mark.parametrize("window", [0, -1, 10_001, 1.5, "none", "8", True, []])
async def test_a_window_is_a_number_or_auto(api: httpx.AsyncClient, window: object) -> None:
    refused = await api.post("/workers", json=PLAIN | {"window": window})
    assert (refused.status_code, refused.json()["field"]) == (422, "window")


async def test_a_window_above_the_slots_is_refused_and_changes_nothing(api: httpx.AsyncClient) -> None:
    await api.post("/workers", json=PLAIN | {"slots": 50, "window": 8})
    refused = await api.patch("/workers/w", json={"slots": 10, "window": 11})
    assert (refused.status_code, refused.json()["code"]) == (422, "window_above_slots")
    worker = (await api.get("/workers/w")).json()
    assert (worker["slots"], worker["pinned"]) == (50, 8)


async def test_a_change_changes_what_it_names_alone(api: httpx.AsyncClient) -> None:
    before = (await api.post("/workers", json=PLAIN)).json()

    after = (await api.patch("/workers/w", json={"slots": 3})).json()

    untold = {"updated_at", "window", "secret"}
    assert {name: value for name, value in after.items() if name not in untold} == {
        name: value for name, value in (before | {"slots": 3}).items() if name not in untold
    }


async def test_a_paused_worker_holds_its_runs_and_a_resumed_one_gets_them(api: httpx.AsyncClient) -> None:
    paused = (await api.post("/workers/plain/pause")).json()
    run = (await api.post("/runs?wait=0.05", json={"task": "echo"})).json()
    resumed = (await api.post("/workers/plain/resume")).json()
    ended = (await api.get(f"/runs/{run['id']}?wait=60")).json()

    assert (paused["state"], run["state"]) == ("paused", "queued")
    assert (resumed["state"], ended["state"]) == ("unverified", "completed")


async def test_a_removed_worker_is_gone(api: httpx.AsyncClient) -> None:
    await api.post("/workers", json=PLAIN)

    gone = await api.delete("/workers/w")

    assert (gone.status_code, gone.content) == (204, b"")
    assert (await api.get("/workers/w")).status_code == 404
    assert (await api.delete("/workers/w")).status_code == 404


async def test_workers_and_tasks_come_in_pages_by_name(api: httpx.AsyncClient) -> None:
    for name in ("b", "a"):
        await api.post("/workers", json=PLAIN | {"name": name})

    first = (await api.get("/workers?limit=2")).json()
    second = (await api.get("/workers", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    tasks = (await api.get("/tasks")).json()

    assert [worker["name"] for worker in first["items"] + second["items"]] == ["a", "b", "plain"]
    assert second["next_cursor"] is None
    assert [task["name"] for task in tasks["items"]] == ["break", "echo", "later", "t"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "no spaces"}, "name"),
        ({"name": None}, "name"),
        ({"url": None}, "url"),
        ({"url": 7}, "url"),
        ({"slots": 0}, "slots"),
        ({"slots": 10_001}, "slots"),
        ({"mode": "magic"}, "mode"),
        ({"mode": ["plain"]}, "mode"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": []}, "labels"),
        ({"labels": {str(n): "" for n in range(65)}}, "labels"),
        ({"headers": {"x": None}}, "headers.x"),
        ({"secret": 7}, "secret"),
        ({"secret": "whsec_dG9vc2hvcnQ="}, "secret"),
        ({"tasks": {}}, "tasks"),
        ({"tasks": [{"name": "t", "retries": -1}]}, "tasks[0].retries"),
        ({"tasks": [{"name": "t"}, {"name": "u", "concurrency": {}}]}, "tasks[1].concurrency"),
        ({"tasks": [{"name": "t", "concurrency": [{"max_runs": 1}]}]}, "tasks[0].concurrency[0].key"),
        ({"tasks": [{"name": "t", "concurrency": [KEY | {"max_runs": 0}]}]}, "tasks[0].concurrency[0].max_runs"),
        ({"tasks": [{"name": "t", "concurrency": [KEY | {"strategy": "X"}]}]}, "tasks[0].concurrency[0].strategy"),
        ({"tasks": [{"name": "t", "concurrency": [KEY | {"max": 1}]}]}, "tasks[0].concurrency[0].max"),
        ({"tasks": [{"name": "t", "concurrency": [KEY, KEY]}]}, "tasks[0].concurrency"),
        ({"tasks": [{"name": "t", "concurrency": [{"key": "input.user +"}]}]}, "tasks"),
        ({"tasks": [{"name": "t", "rate_limits": [{"key": "cdn", "units": 0}]}]}, "tasks[0].rate_limits[0].units"),
        ({"tasks": [{"name": "t", "rate_limits": [{"key": "cdn", "limit": 1}]}]}, "tasks[0].rate_limits[0]"),
        ({"tasks": [{"name": "t", "slot_cost": 0}]}, "tasks[0].slot_cost"),
        ({"tasks": [{"name": "t", "labels": {"gpu": {"weight": 1}}}]}, "tasks[0].labels.gpu.value"),
        ({"tasks": [{"name": "t", "sticky": "firm"}]}, "tasks[0].sticky"),
        ({"tasks": [{"name": "t", "backoff": {"strategy": "magic"}}]}, "tasks[0].backoff.strategy"),
        ({"tasks": [{"name": "t"}, {"name": "t"}]}, "tasks"),
        ({"tasks": [{}]}, "tasks[0].name"),
        ({"slot_cost": 2}, "slot_cost"),
        ({"url": "ftp://worker.example.com/"}, "url"),
        ({"url": "http://127.0.0.1:8000/"}, "url"),
        ({"url": "http://good.example\\@evil.example/"}, "url"),
    ],
)
async def test_a_member_that_breaks_its_rule_is_named_and_nothing_is_stored(
    api: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    body = {name: value for name, value in (PLAIN | change).items() if value is not None}

    answer = await api.post("/workers", json=body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert [worker["name"] for worker in (await api.get("/workers")).json()["items"]] == ["plain"]


@pytest.mark.parametrize("header", ["host", "Content-Length", "webhook-signature", "connection"])
async def test_a_header_that_is_ours_is_refused(api: httpx.AsyncClient, header: str) -> None:
    answer = await api.post("/workers", json=PLAIN | {"headers": {header: "x"}})

    assert (answer.status_code, answer.json()["code"]) == (422, "header_forbidden")


@pytest.mark.parametrize("name", ["nobody", "no%20spaces", "%00", "a" * 200])
async def test_an_unknown_worker_is_not_found(api: httpx.AsyncClient, name: str) -> None:
    for method, action in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/sync"), ("POST", "/pause")):
        answer = await api.request(method, f"/workers/{name}{action}")
        assert (answer.status_code, answer.json()["code"]) == (404, "worker_unknown")


async def test_an_unknown_task_is_not_found(api: httpx.AsyncClient) -> None:
    assert (await api.get("/tasks/nobody")).json()["code"] == "task_unknown"
