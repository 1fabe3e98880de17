"""Submitting, looking, cancelling, replaying, as a client sees it."""

import asyncio
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Engine, Run
from tests.api.conftest import FakeWorker

pytestmark = pytest.mark.anyio

UNKNOWN = "00000000-0000-7000-8000-000000000000"


async def test_a_submit_is_answered_with_the_run_and_where_it_is(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs", json={"task": "echo", "input": 1})

    assert answer.status_code == 201
    assert answer.headers["location"] == f"/runs/{answer.json()['id']}"
    assert (await api.get(answer.headers["location"])).json()["task"] == "echo"


async def test_waiting_gives_the_finished_run(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs?wait=60", json={"task": "echo", "input": {"a": [1, 2]}})

    run = answer.json()
    assert (answer.status_code, run["state"], run["output"]) == (200, "completed", {"a": [1, 2]})
    assert [entry["kind"] for entry in run["timeline"]] == ["created", "started", "completed"]


async def test_waiting_ends_with_the_state_when_the_time_is_over(api: httpx.AsyncClient) -> None:
    answer = await api.post("/runs?wait=0.01", json={"task": "echo", "delay": 3600})

    assert (answer.status_code, answer.json()["state"]) == (202, "queued")


async def test_looking_with_wait_gives_the_finished_run(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "break"})).json()

    seen = (await api.get(f"/runs/{run['id']}?wait=60")).json()

    assert (seen["state"], seen["tries"]) == ("failed", 1)


async def test_payloads_keep_the_text_they_were_sent_as(api: httpx.AsyncClient) -> None:
    body = b'{"task": "echo", "input": {"b":  1.10, "a": 1e2, "b2": "\\u00e9"}, "metadata": { "z" :1}, "delay": 3600}'

    answer = await api.post("/runs", content=body)

    shown = (await api.get(answer.headers["location"])).text
    assert '"input":{"b":  1.10, "a": 1e2, "b2": "\\u00e9"}' in shown
    assert '"metadata":{ "z" :1}' in shown


async def test_a_repeated_key_is_answered_with_the_run_that_has_it(api: httpx.AsyncClient) -> None:
    body = {"task": "echo", "input": 1, "delay": 3600, "idempotency_key": "k"}
    first = await api.post("/runs", json=body)
    again = await api.post("/runs", json=body)
    other = await api.post("/runs", json=body | {"input": 2})

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")


async def test_bulk_gives_an_outcome_for_each_item_in_order(api: httpx.AsyncClient) -> None:
    items = [{"task": "echo", "input": 0}, {"task": "no spaces"}, {"task": "nobody"}, 7, {"task": "echo", "input": 4}]

    answer = await api.post("/runs/bulk", json={"runs": items})

    results = answer.json()["results"]
    assert answer.status_code == 200
    assert [one.get("input", one.get("code")) for one in results] == [
        0,
        "member_invalid",
        "task_unknown",
        "json_invalid",
        4,
    ]
    assert [one.get("field") for one in results] == [None, "runs[1].task", "runs[2].task", "runs[3]", None]


async def test_bulk_takes_a_thousand_and_no_more(api: httpx.AsyncClient) -> None:
    item = {"task": "echo", "delay": 3600}

    full = await api.post("/runs/bulk", json={"runs": [item] * 1000})
    over = await api.post("/runs/bulk", json={"runs": [item] * 1001})

    assert len(full.json()["results"]) == 1000
    assert (over.status_code, over.json()["code"], over.json()["limit"]) == (422, "too_many", 1000)


async def test_pages_cover_every_run_once_the_newest_first(api: httpx.AsyncClient) -> None:
    made = [(await api.post("/runs", json={"task": "echo", "delay": 3600})).json()["id"] for _ in range(5)]

    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2", "state": "queued", "task": "echo"} | ({"cursor": cursor} if cursor else {})
        page = (await api.get("/runs", params=query)).json()
        seen += [run["id"] for run in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert seen == made[::-1]


async def test_only_one_run_that_is_looked_at_tells_its_timeline(api: httpx.AsyncClient) -> None:
    body = {"task": "echo", "delay": 3600}
    made = (await api.post("/runs", json=body)).json()
    [bulk] = (await api.post("/runs/bulk", json={"runs": [body]})).json()["results"]
    listed = (await api.get("/runs")).json()["items"]

    assert [run for run in (made, bulk, *listed) if "timeline" in run] == []
    assert (await api.get(f"/runs/{made['id']}")).json()["timeline"]


async def test_a_cancelled_run_tells_its_reason_and_does_not_start(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()

    cancelled = (await api.post(f"/runs/{run['id']}/cancel", json={"reason": "withdrawn"})).json()

    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "withdrawn")
    assert worker.delivered == []


async def test_a_run_is_cancelled_twice_and_one_that_has_ended_otherwise_never(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    ended = (await api.post("/runs?wait=60", json={"task": "echo"})).json()

    assert [(await api.post(f"/runs/{run['id']}/cancel")).status_code for _ in range(2)] == [200, 200]
    assert (await api.post(f"/runs/{ended['id']}/cancel")).status_code == 409


async def test_cancel_and_replay_need_no_body(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()

    assert (await api.post(f"/runs/{run['id']}/cancel")).status_code == 200
    replayed = await api.post(f"/runs/{run['id']}/replay")

    assert (replayed.status_code, replayed.json()["id"]) == (200, run["id"])
    assert (await api.get(f"/runs/{run['id']}?wait=60")).json()["state"] == "completed"


async def test_a_run_that_goes_on_is_not_replayed(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()

    assert (await api.post(f"/runs/{run['id']}/replay")).status_code == 409


@pytest.mark.parametrize("run_id", [UNKNOWN, "no-id", "%2e%2e", "%00", "A" * 300, UNKNOWN[:-1] + "F"])
async def test_an_unknown_run_is_not_found(api: httpx.AsyncClient, run_id: str) -> None:
    for method, action in (("GET", ""), ("POST", "/cancel"), ("POST", "/replay")):
        answer = await api.request(method, f"/runs/{run_id}{action}")
        assert (answer.status_code, answer.json()["code"]) == (404, "run_unknown")


async def test_one_who_leaves_while_waiting_is_waited_for_no_longer(
    engine: Engine, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = (await api.post("/runs", json={"task": "echo", "delay": 3600})).json()
    before = asyncio.all_tasks()
    waiting = asyncio.Event()
    wait = engine.wait

    async def watched(run_id: str, seconds: float, **more: Any) -> Run:
        waiting.set()
        return await wait(run_id, seconds, **more)

    monkeypatch.setattr(engine, "wait", watched)

    looking = asyncio.create_task(api.get(f"/runs/{run['id']}?wait=60"))
    await waiting.wait()
    looking.cancel()
    await asyncio.wait({looking})

    async with asyncio.timeout(60):
        while asyncio.all_tasks() - before:  # noqa: ASYNC110  # a duty of the engine may be at work for a moment
            await asyncio.sleep(0.005)
