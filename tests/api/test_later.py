"""Runs for later over HTTP: submitted, listed, moved, and refused with a sentence that says what to do."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

YEAR = 31_536_000


def ahead(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(**more)).isoformat()


async def delayed(api: httpx.AsyncClient, **more: Any) -> dict[str, Any]:
    run: dict[str, Any] = (await api.post("/runs", json={"task": "echo", "delay": 3600, **more})).json()
    return run


async def test_a_run_is_moved_by_a_time_a_delay_or_a_priority(api: httpx.AsyncClient) -> None:
    run = await delayed(api)
    moment = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)
    shown = f"{moment:%Y-%m-%dT%H:%M:%S}.000Z"
    there = moment.astimezone(timezone(timedelta(hours=1))).isoformat()
    later = await api.patch(f"/runs/{run['id']}", json={"run_at": there})
    assert (later.status_code, later.json()["due_at"]) == (200, shown)
    higher = await api.patch(f"/runs/{run['id']}", json={"priority": 5, "delay": None})
    assert (higher.json()["priority"], higher.json()["due_at"]) == (5, shown)
    now = await api.patch(f"/runs/{run['id']}", json={"delay": 0})
    assert now.status_code == 200
    assert (await api.get(f"/runs/{run['id']}?wait=60")).json()["state"] == "completed"
    again = await api.patch(f"/runs/{run['id']}", json={"delay": 1})
    assert (again.status_code, again.json()["code"]) == (409, "run_finished")


NO_MOVES: list[tuple[Any, str]] = [
    ({}, "run_at"),
    ({"delay": None}, "run_at"),
    ({"delay": 1, "run_at": "2030-01-01T00:00:00Z"}, "run_at"),
    ({"run_at": "2030-01-01T00:00:00"}, "run_at"),
    ({"run_at": 5}, "run_at"),
    ({"run_at": "9999-12-31T00:00:00Z"}, "run_at"),
    ({"run_at": "1970-01-01T00:00:00Z"}, "run_at"),
    ({"delay": -1}, "delay"),
    ({"delay": YEAR + 1}, "delay"),
    ({"priority": 1001}, "priority"),
    ({"due_at": "2030-01-01T00:00:00Z"}, "due_at"),
]


async def test_a_move_that_makes_no_sense_is_refused(api: httpx.AsyncClient) -> None:
    run = await delayed(api)
    for body, field in NO_MOVES:
        answer = await api.patch(f"/runs/{run['id']}", json=body)
        assert (answer.status_code, answer.json()["field"]) == (422, field), body
    assert (await api.get(f"/runs/{run['id']}")).json()["due_at"] == run["due_at"]


async def test_a_submit_for_a_time_out_of_reach_names_the_limit(api: httpx.AsyncClient) -> None:
    for field, value in (("run_at", ahead(days=366)), ("run_at", ahead(days=-366)), ("delay", YEAR + 1)):
        body = {"task": "echo", field: value}
        answer = await api.post("/runs", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "member_invalid")
        assert (answer.json()["field"], answer.json()["limit"]) == (field, YEAR)
        assert str(YEAR) in answer.json()["detail"]
        bulk = await api.post("/runs/bulk", json={"runs": [{"task": "echo"}, body]})
        good, bad = bulk.json()["results"]
        assert (good["task"], bad["status"]) == ("echo", 422)


async def test_a_time_in_the_past_is_now(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs?wait=60", json={"task": "echo", "run_at": ahead(days=-300)})
    run = answer.json()
    assert (run["state"], run["due_at"]) == ("completed", run["created_at"])


async def test_lists_have_what_waits_for_its_time_and_what_was_created_when(api: httpx.AsyncClient) -> None:
    first, second = await delayed(api), await delayed(api)
    await api.post("/runs?wait=60", json={"task": "echo"})

    async def listed(**query: Any) -> list[str]:
        answer = await api.get("/runs", params=query)
        assert answer.status_code == 200, answer.text
        return [run["id"] for run in answer.json()["items"]]

    assert await listed(delayed="true") == [second["id"], first["id"]]
    assert await listed(delayed="true", state="queued", task="echo") == [second["id"], first["id"]]
    assert len(await listed(delayed="false")) == 3
    assert await listed(created_before=first["created_at"]) == []
    assert (await listed(created_after=first["created_at"]))[-1] == first["id"]
    assert await listed(created_after="2090-01-01T00:00:00+02:00") == []


NO_LISTS = [
    ("delayed=yes", "delayed"),
    ("delayed=true&state=running", "state"),
    ("created_after=2030-01-01T00:00:00", "created_after"),
    ("created_before=yesterday", "created_before"),
    ("created_before=2030-02-31T00:00:00Z", "created_before"),
]


async def test_a_list_that_makes_no_sense_is_refused(api: httpx.AsyncClient) -> None:
    for query, field in NO_LISTS:
        answer = await api.get(f"/runs?{query}")
        refused = (answer.status_code, answer.json()["code"], answer.json()["field"])
        assert refused == (422, "parameter_invalid", field)
