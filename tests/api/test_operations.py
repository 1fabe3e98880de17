"""Cancelling and replaying many runs over HTTP, as a client sees it."""

import asyncio
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Engine

pytestmark = pytest.mark.anyio

RUN_ID = "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10"


async def delayed(api: httpx.AsyncClient, count: int, task: str = "echo") -> list[str]:
    """Submit runs that wait for a long time."""
    runs = [{"task": task, "delay": 3600}] * count
    return [run["id"] for run in (await api.post("/runs/bulk", json={"runs": runs})).json()["results"]]


async def failed(api: httpx.AsyncClient, count: int) -> list[str]:
    """Submit runs that fail, and wait for that."""
    runs = [(await api.post("/runs?wait=60", json={"task": "break"})).json() for _ in range(count)]
    assert {run["state"] for run in runs} == {"failed"}
    return [run["id"] for run in runs]


async def done(api: httpx.AsyncClient, answer: httpx.Response) -> dict[str, Any]:
    """Wait for the end of an operation that was just begun."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/operations/{answer.json()['id']}"
    async with asyncio.timeout(60):
        while True:
            found: dict[str, Any] = (await api.get(answer.headers["location"])).json()
            if found["state"] == "done":
                return found


async def states(api: httpx.AsyncClient, runs: list[str]) -> list[str]:
    return [(await api.get(f"/runs/{run}")).json()["state"] for run in runs]


async def test_runs_are_cancelled_by_a_filter_after_a_dry_run_said_how_many(api: httpx.AsyncClient) -> None:
    runs, other = await delayed(api, 3), await delayed(api, 1, "later")
    body = {"filter": {"task": "echo"}, "reason": "withdrawn"}

    dry = await api.post("/runs/cancel", json=body | {"dry_run": True})
    before = await states(api, runs)
    ended = await done(api, await api.post("/runs/cancel", json=body))

    assert (dry.status_code, dry.json()) == (200, {"matched": 3})
    assert before == ["queued"] * 3
    assert (ended["kind"], ended["matched"], ended["done"], ended["skipped"]) == ("cancel", 3, 3, 0)
    assert ended["filter"] == {"task": "echo", "state": ["queued", "running", "suspended"]}
    assert (ended["reason"], ended["finished_at"] is not None) == ("withdrawn", True)
    assert await states(api, runs + other) == ["cancelled"] * 3 + ["queued"]
    assert (await api.get(f"/runs/{runs[0]}")).json()["reason"] == "withdrawn"


async def test_failed_runs_are_replayed_by_a_filter(api: httpx.AsyncClient) -> None:
    [first, second] = await failed(api, 2)
    at = (await api.get(f"/runs/{second}")).json()["created_at"]

    dry = await api.post("/runs/replay", json={"filter": {"state": "failed"}, "dry_run": True})
    ended = await done(api, await api.post("/runs/replay", json={"filter": {"created_after": at, "task": "break"}}))
    again = (await api.get(f"/runs/{second}?wait=60")).json()

    assert dry.json() == {"matched": 2}
    assert (ended["kind"], ended["matched"], ended["done"]) == ("replay", 1, 1)
    assert ended["filter"] == {"task": "break", "state": ["failed"], "created_after": at}
    assert (again["state"], again["attempt"]) == ("failed", 2)
    assert (await api.get(f"/runs/{first}")).json()["attempt"] == 1


async def test_named_runs_in_several_states_are_meant_together(api: httpx.AsyncClient) -> None:
    waiting = await delayed(api, 3)
    over = await failed(api, 1)
    await api.post(f"/runs/{waiting[0]}/cancel")

    body: dict[str, Any] = {"filter": {"ids": [waiting[0], *over, RUN_ID], "state": ["failed", "cancelled"]}}
    ended = await done(api, await api.post("/runs/replay", json=body))

    assert (ended["matched"], ended["done"], ended["skipped"]) == (2, 2, 0)
    assert ended["filter"]["ids"] == sorted(body["filter"]["ids"])
    assert await states(api, waiting[1:]) == ["queued"] * 2


async def test_an_operation_that_means_no_run_is_done_at_once(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs/cancel", json={"filter": {"task": "echo", "created_before": "2020-01-01T00:00:00Z"}})

    assert (answer.status_code, answer.json()["state"], answer.json()["matched"]) == (202, "done", 0)


async def test_operations_are_listed_the_newest_first_in_pages(api: httpx.AsyncClient) -> None:
    made = [(await api.post("/runs/cancel", json={"filter": {"task": "echo"}})).json() for _ in range(3)]

    first = (await api.get("/operations?limit=2")).json()
    second = (await api.get(f"/operations?limit=2&cursor={first['next_cursor']}")).json()

    assert first["items"] == [made[2], made[1]]
    assert second == {"items": [made[0]], "next_cursor": None}


async def test_the_eleventh_at_a_time_is_refused_and_told_the_number(api: httpx.AsyncClient, engine: Engine) -> None:
    await delayed(api, 1)
    assert engine._parts is not None
    engine._parts.bulk_work.begin = lambda id_: None  # type: ignore[method-assign]  # nothing is begun
    answers = [await api.post("/runs/cancel", json={"filter": {"task": "echo"}}) for _ in range(11)]

    assert [answer.status_code for answer in answers] == [202] * 10 + [409]
    assert (answers[10].json()["code"], answers[10].json()["limit"]) == ("too_many_operations", 10)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({}, "filter", "required"),
    ({"filter": None}, "filter", "required"),
    ({"filter": {}}, "filter", "at least one of"),
    ({"filter": {"task": None}}, "filter", "at least one of"),
    ({"filter": []}, "filter", "JSON object"),
    ({"filter": "all"}, "filter", "JSON object"),
    ({"filter": {"task": "no spaces"}}, "filter.task", "1 to 128"),
    ({"filter": {"task": 1}}, "filter.task", "1 to 128"),
    ({"filter": {"state": "gone"}}, "filter.state", "one of queued"),
    ({"filter": {"state": []}}, "filter.state", "one of queued"),
    ({"filter": {"state": [["queued"]]}}, "filter.state", "one of queued"),
    ({"filter": {"state": {"queued": 1}}}, "filter.state", "one of queued"),
    ({"filter": {"created_after": "2030-01-01T00:00:00"}}, "filter.created_after", "zone"),
    ({"filter": {"created_before": 0}}, "filter.created_before", "zone"),
    (
        {"filter": {"created_after": "2030-01-01T00:00:00Z", "created_before": "2030-01-01T00:00:00Z"}},
        "filter.created_before",
        "later than created_after",
    ),
    ({"filter": {"ids": []}}, "filter.ids", "1 to 1000"),
    ({"filter": {"ids": [RUN_ID] * 1001}}, "filter.ids", "1 to 1000"),
    ({"filter": {"ids": RUN_ID}}, "filter.ids", "1 to 1000"),
    ({"filter": {"ids": [RUN_ID, "x"]}}, "filter.ids[1]", "id of a run"),
    ({"filter": {"ids": [RUN_ID.upper()]}}, "filter.ids[0]", "id of a run"),
    ({"filter": {"worker": "w"}}, "filter.worker", "not known here"),
    ({"filter": {"task": "echo"}, "dry_run": "yes"}, "dry_run", "true or false"),
    ({"filter": {"task": "echo"}, "dry_run": 1}, "dry_run", "true or false"),
    ({"filter": {"task": "echo"}, "reason": ""}, "reason", "1 to 256"),
    ({"filter": {"task": "echo"}, "reason": "x" * 257}, "reason", "1 to 256"),
    ({"filter": {"task": "echo"}, "all": True}, "all", "not known here"),
]


async def test_bad_input_is_refused_by_name_and_nothing_is_done(api: httpx.AsyncClient) -> None:
    for body, field, sentence in BAD:
        for answer in (await api.post("/runs/cancel", json=body), await api.post("/runs/replay", json=body)):
            assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
            assert sentence in answer.json()["detail"]
    assert (await api.get("/operations")).json()["items"] == []


@pytest.mark.parametrize(("path", "state"), [("/runs/cancel", "failed"), ("/runs/replay", "running")])
async def test_states_to_which_it_cannot_be_done_are_refused(api: httpx.AsyncClient, path: str, state: str) -> None:
    answer = await api.post(path, json={"filter": {"state": state}})

    assert (answer.status_code, answer.json()["field"]) == (422, "filter.state")
    assert f"a {state} run cannot be" in answer.json()["detail"]


async def test_a_filter_that_says_a_thing_twice_is_no_json(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs/cancel", content=b'{"filter": {"task": "a", "task": "b"}}')

    assert (answer.status_code, answer.json()["code"]) == (422, "json_invalid")


@pytest.mark.parametrize("path", ["/operations/x", f"/operations/{RUN_ID}"])
async def test_an_unknown_operation_is_not_found(api: httpx.AsyncClient, path: str) -> None:
    answer = await api.get(path)

    assert (answer.status_code, answer.json()["code"]) == (404, "operation_unknown")


@pytest.mark.parametrize("query", ["limit=0", "cursor=zz", "state=running"])
async def test_a_bad_parameter_is_refused(api: httpx.AsyncClient, query: str) -> None:
    assert (await api.get(f"/operations?{query}")).status_code == 422


async def test_it_needs_the_token(stranger: httpx.AsyncClient) -> None:
    asked = [
        ("POST", "/runs/cancel"),
        ("POST", "/runs/replay"),
        ("GET", "/operations"),
        ("GET", f"/operations/{RUN_ID}"),
    ]
    assert [(await stranger.request(*one)).status_code for one in asked] == [401] * 4
