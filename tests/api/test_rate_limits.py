"""Setting, showing, pausing and removing rate limits, as a client sees it."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from hurlbat_dispatcher import Engine
from hurlbat_dispatcher.assembly import Parts
from tests.api.conftest import WORKER_URL, FakeWorker

pytestmark = pytest.mark.anyio

SLOW = {"limit": 1, "duration": 31_622_400}
"""One start, and no other while a test lasts."""


async def serve(api: httpx.AsyncClient, *rates: dict[str, Any], task: str = "echo") -> None:
    """Let the worker's task draw on these."""
    spec = {"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": [{"name": task, "rate_limits": list(rates)}]}
    answer = await api.post("/workers", json=spec)
    assert answer.status_code == 200, answer.text


async def submit(api: httpx.AsyncClient, wait: float | None = None, **more: Any) -> dict[str, Any]:
    """Submit a run of `echo`; with `wait` return it when it has ended."""
    answer = await api.post("/runs" if wait is None else f"/runs?wait={wait}", json={"task": "echo"} | more)
    assert answer.status_code < 300, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def state_of(api: httpx.AsyncClient, run: dict[str, Any]) -> str:
    return str((await api.get(f"/runs/{run['id']}")).json()["state"])


def parts_of(engine: Engine) -> Parts:
    assert engine._parts is not None
    return engine._parts


# -- static ------------------------------------------------------------------------------------------------------------


async def test_a_rate_limit_is_put_shown_changed_and_removed(api: httpx.AsyncClient) -> None:
    put = await api.put("/rate-limits/cdn", json={"limit": 10, "duration": 0.5})
    shown = await api.get("/rate-limits/cdn")
    changed = await api.put("/rate-limits/cdn", json={"limit": 0, "duration": 60})
    removed = await api.delete("/rate-limits/cdn")

    assert (put.status_code, put.headers["location"], changed.status_code) == (201, "/rate-limits/cdn", 200)
    assert put.json() | {"updated_at": None} == {
        "key": "cdn",
        "dynamic": False,
        "limit": 10,
        "duration": 0.5,
        "used": 0,
        "waiting": 0,
        "paused": False,
        "paused_until": None,
        "updated_at": None,
    }
    assert shown.json() == put.json()
    assert (changed.json()["limit"], changed.json()["duration"]) == (0, 60)
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await api.get("/rate-limits")).json()["items"] == []


async def test_a_duration_is_never_taken_for_less_than_was_asked_for(api: httpx.AsyncClient) -> None:
    asked = [0.01, 0.0101, 0.029, 1 / 3, 31_622_400]

    taken = [(await api.put("/rate-limits/k", json={"limit": 1, "duration": one})).json()["duration"] for one in asked]

    assert taken == [0.01, 0.011, 0.029, 0.334, 31_622_400]


async def test_rate_limits_come_in_pages_by_key(api: httpx.AsyncClient) -> None:
    for key in ("c", "a", "b"):
        await api.put(f"/rate-limits/{key}", json={"limit": 1, "duration": 1})

    first = (await api.get("/rate-limits?limit=2")).json()
    second = (await api.get("/rate-limits", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [[one["key"] for one in page["items"]] for page in (first, second)] == [["a", "b"], ["c"]]
    assert second["next_cursor"] is None


async def test_what_is_used_and_who_waits_is_told(api: httpx.AsyncClient) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 3, "duration": 3600})
    await serve(api, {"key": "cdn", "units": 2})
    await submit(api, wait=60)
    for _ in range(2):
        await submit(api)

    [listed] = (await api.get("/rate-limits")).json()["items"]

    assert (listed["used"], listed["waiting"]) == (2, 2)
    assert (await api.get("/rate-limits/cdn")).json() == listed


async def test_a_raised_limit_lets_those_start_that_wait(api: httpx.AsyncClient) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 0, "duration": 3600})
    await serve(api, {"key": "cdn"})
    await api.put("/rate-limits/cdn", json=SLOW)
    done = await submit(api, wait=60)
    held = await submit(api, wait=0.05)

    await api.put("/rate-limits/cdn", json=SLOW | {"limit": 2})
    ended = (await api.get(f"/runs/{held['id']}?wait=60")).json()

    assert (done["state"], held["state"], ended["state"]) == ("completed", "queued", "completed")


async def test_a_limit_that_runs_draw_on_is_not_removed(api: httpx.AsyncClient) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 1, "duration": 3600})
    await serve(api, {"key": "cdn"})
    await submit(api, wait=60)
    waiting = await submit(api)
    later = await submit(api, delay=3600)

    refused = await api.delete("/rate-limits/cdn")
    for run in (waiting, later):
        await api.post(f"/runs/{run['id']}/cancel")
    removed = await api.delete("/rate-limits/cdn")

    assert (refused.status_code, refused.json()["code"]) == (409, "rate_limit_in_use")
    assert refused.json()["runs"] == sorted([waiting["id"], later["id"]])
    assert waiting["id"] in refused.json()["detail"]
    assert removed.status_code == 204


async def test_a_key_that_nobody_put_is_told_at_the_submit(api: httpx.AsyncClient) -> None:
    await serve(api, {"key": "cdn"})

    answer = await api.post("/runs", json={"task": "echo"})

    assert (answer.status_code, answer.json()["code"]) == (422, "rate_limit_unknown")
    assert "PUT /rate-limits/cdn" in answer.json()["detail"]
    assert (await api.get("/runs")).json()["items"] == []


# -- pauses ------------------------------------------------------------------------------------------------------------


async def test_a_paused_key_holds_what_draws_on_it_and_nothing_else(api: httpx.AsyncClient) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 10, "duration": 0.01})
    tasks = [{"name": "echo", "rate_limits": [{"key": "cdn"}]}, {"name": "free"}]
    await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks})

    paused = [(await api.post("/rate-limits/cdn/pause")).json() for _ in range(2)]
    held = await submit(api)
    free = (await api.post("/runs?wait=60", json={"task": "free"})).json()
    seen = await state_of(api, held)
    resumed = [(await api.post("/rate-limits/cdn/resume")).json() for _ in range(2)]
    ended = (await api.get(f"/runs/{held['id']}?wait=60")).json()

    assert [(one["paused"], one["paused_until"]) for one in paused] == [(True, None)] * 2
    assert (seen, free["started_at"] is not None) == ("queued", True)
    assert [one["paused"] for one in resumed] == [False, False]
    assert ended["state"] == "completed"


async def test_a_dynamic_key_is_paused_whatever_it_reads_like(api: httpx.AsyncClient) -> None:
    key = 'https://a.example/x?y=1#é "%2F" :'
    await serve(api, {"dynamic_key": "input", "limit": 5, "duration": 3600})
    path = f"/rate-limits/{quote(key, safe='')}"

    paused = (await api.post(f"{path}/pause?dynamic=true")).json()
    before = (await api.get("/rate-limits?dynamic=true")).json()["items"]
    held = await submit(api, input=key)
    other = await submit(api, input="another", wait=60)
    [first, listed] = (await api.get("/rate-limits?dynamic=true")).json()["items"]
    await api.post(f"{path}/resume?dynamic=true")
    ended = (await api.get(f"/runs/{held['id']}?wait=60")).json()

    assert (paused["key"], paused["dynamic"], paused["paused"], paused["limit"]) == (key, True, True, None)
    assert before == [paused]
    assert other["state"] == "completed"
    assert (first["key"], first["used"], first["limit"], first["duration"]) == ("another", 1, 5, 3600)
    assert (listed["key"], listed["used"], listed["waiting"], listed["paused"]) == (key, 0, 1, True)
    assert ended["state"] == "completed"


async def test_static_and_dynamic_keys_that_read_alike_are_two(api: httpx.AsyncClient) -> None:
    await api.put("/rate-limits/k", json={"limit": 1, "duration": 1})

    await api.post("/rate-limits/k/pause?dynamic=true")

    assert (await api.get("/rate-limits/k")).json()["paused"] is False
    assert [one["key"] for one in (await api.get("/rate-limits?dynamic=true")).json()["items"]] == ["k"]


async def test_dynamic_limits_come_in_pages(api: httpx.AsyncClient) -> None:
    await serve(api, {"dynamic_key": "input.k", "limit": 5, "duration": "input.d"})
    for key, seconds in (("b", 100.0), ("a", 3600.0), ("b", 50.0)):
        await submit(api, input={"k": key, "d": seconds}, wait=60)

    found, cursor = [], None
    while True:
        query = {"dynamic": "true", "limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/rate-limits", params=query)).json()
        found += [(one["key"], one["duration"]) for one in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break

    assert found == [("a", 3600), ("b", 50), ("b", 100)]


async def test_a_server_that_does_not_count_says_so(api: httpx.AsyncClient, engine: Engine) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 10, "duration": 3600})
    parts_of(engine).desk.epoch = None

    assert (await api.get("/rate-limits/cdn")).json()["used"] is None


async def test_limits_and_pauses_outlast_the_server(api: httpx.AsyncClient, engine: Engine) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 10, "duration": 3600})
    await api.post("/rate-limits/cdn/pause")
    await api.post("/rate-limits/d/pause?dynamic=true")
    before = (await api.get("/rate-limits/cdn")).json()

    await engine.stop(0)
    again = Engine(engine.settings)
    await again.start()
    try:
        limit, page = await again.limits.get("cdn"), await again.limits.dynamic_page()
    finally:
        await again.stop(0)

    assert (limit.limit, limit.duration, limit.paused) == (10, 3_600_000, True)
    assert before["paused"]
    assert [(one.key, one.paused) for one in page.items] == [("d", True)]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": 1_000_000_001}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": True}, "limit"),
        ({"limit": None}, "limit"),
        ({"duration": 0}, "duration"),
        ({"duration": -1}, "duration"),
        ({"duration": 0.009}, "duration"),
        ({"duration": 31_622_401}, "duration"),
        ({"duration": "1m"}, "duration"),
        ({"duration": None}, "duration"),
        ({"duration": True}, "duration"),
        ({"units": 1}, "units"),
    ],
)
async def test_a_member_that_breaks_its_rule_is_named_and_nothing_is_stored(
    api: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    answer = await api.put("/rate-limits/cdn", json={"limit": 1, "duration": 1} | change)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert field in answer.json()["detail"]
    assert (await api.get("/rate-limits")).json()["items"] == []


@pytest.mark.parametrize("key", ["no%20spaces", "é", "a" * 129, "%00"])
async def test_a_key_of_a_bad_form_is_refused_and_found_nowhere(api: httpx.AsyncClient, key: str) -> None:
    put = await api.put(f"/rate-limits/{key}", json={"limit": 1, "duration": 1})

    assert (put.status_code, put.json()["field"]) == (422, "key")
    for method, action in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        answer = await api.request(method, f"/rate-limits/{key}{action}")
        assert (answer.status_code, answer.json()["code"]) == (404, "rate_limit_unknown")


@pytest.mark.parametrize("key", ["x" * 401, "é" * 201, "%00"])
async def test_a_dynamic_key_that_no_run_can_have_is_refused(api: httpx.AsyncClient, key: str) -> None:
    answer = await api.post(f"/rate-limits/{key}/pause?dynamic=true")

    assert (answer.status_code, answer.json()["field"]) == (422, "key")


async def test_an_unknown_key_is_not_found(api: httpx.AsyncClient) -> None:
    for method, action in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")):
        answer = await api.request(method, f"/rate-limits/cdn{action}")
        assert (answer.status_code, answer.json()["code"]) == (404, "rate_limit_unknown")


@pytest.mark.parametrize(
    "query",
    ["dynamic=maybe", "dynamic=", "limit=0", "cursor=%20", "dynamic=true&cursor=zz", "dynamic=true&cursor=eA=="],
)
async def test_a_bad_parameter_is_refused(api: httpx.AsyncClient, query: str) -> None:
    assert (await api.get(f"/rate-limits?{query}")).status_code == 422


async def test_a_report_pauses_a_key_until_somebody_resumes_it(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    await api.put("/rate-limits/cdn", json={"limit": 10, "duration": 0.01})
    tasks = [{"name": name, "retries": 1, "rate_limits": [{"key": "cdn"}]} for name in ("later", "echo")]
    await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks})
    first = (await api.post("/runs", json={"task": "later"})).json()
    async with asyncio.timeout(60):
        await worker.reached.wait()
        while (await api.get(f"/runs/{first['id']}")).json()["state"] != "running":
            pass
    [delivered] = worker.delivered
    failure = {"error": {"type": "Busy", "message": "slow down"}, "retry_after": 3000, "rate_limit_key": "cdn"}
    lease = {"authorization": f"Bearer {delivered['lease_token']}"}

    reported = await api.post(f"/runs/{first['id']}/attempts/1/fail", json=failure, headers=lease)
    paused = (await api.get("/rate-limits/cdn")).json()
    other = await submit(api, wait=0.05)
    resumed = (await api.post("/rate-limits/cdn/resume")).json()
    ended = (await api.get(f"/runs/{other['id']}?wait=60")).json()

    assert reported.status_code == 200, reported.text
    assert (paused["paused"], paused["paused_until"] is not None) == (True, True)
    assert (other["state"], resumed["paused"], ended["state"]) == ("queued", False, "completed")
    assert await state_of(api, first) == "queued"  # it waits for its own sake
