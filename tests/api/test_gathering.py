"""Debounce, batches and throttles, as a client meets them: answers, and what is refused."""

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.conftest import WORKER_URL, FakeWorker

pytestmark = pytest.mark.anyio

BY_USER = "input.user"


async def register(api: httpx.AsyncClient, *tasks: dict[str, Any]) -> httpx.Response:
    """Let the worker serve these tasks."""
    spec = {"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": [{"name": "echo"} | task for task in tasks]}
    return await api.post("/workers", json=spec)


async def submit(api: httpx.AsyncClient, path: str = "/runs", **more: Any) -> httpx.Response:
    return await api.post(path, json={"task": "echo"} | more)


async def test_a_submit_that_was_absorbed_is_answered_with_the_run_that_took_it_in(api: httpx.AsyncClient) -> None:
    await register(api, {"debounce": {"period": 60, "key": BY_USER}})
    first = await submit(api, input={"user": "a", "n": 1})
    second = await submit(api, input={"user": "a", "n": 2}, metadata={"m": 1}, priority=5)
    other = await submit(api, input={"user": "b"})
    assert [answer.status_code for answer in (first, second, other)] == [201, 200, 201]
    run = second.json()
    assert (run["id"], second.headers["location"]) == (first.json()["id"], f"/runs/{run['id']}")
    assert (run["input"], run["metadata"], run["priority"]) == (None, {"m": 1}, 5)
    assert (await api.get(f"/runs/{run['id']}")).json()["input"] == {"user": "a", "n": 2}
    assert other.json()["id"] != run["id"]

    told = (await api.get(f"/runs/{run['id']}/explain")).json()
    assert told["summary"].endswith("Its task's debounce puts it off when more is submitted.")
    kinds = [entry["kind"] for entry in (await api.get(f"/runs/{run['id']}")).json()["timeline"]]
    assert kinds[:2] == ["created", "scheduled"]


async def until_gathered(api: httpx.AsyncClient, count: int) -> None:
    """Wait until the one run that there is has taken in so many submits."""
    async with asyncio.timeout(60):
        while True:
            found = (await api.get("/runs")).json()["items"]
            if found and len((await api.get(f"/runs/{found[0]['id']}")).json()["input"]) == count:
                return


async def test_those_who_wait_for_a_batch_get_its_end(api: httpx.AsyncClient, worker: FakeWorker) -> None:
    await register(api, {"batch_size": 3, "batch_timeout": 60})
    waiting = [asyncio.ensure_future(submit(api, "/runs?wait=60", input=n)) for n in range(2)]
    await until_gathered(api, 2)
    results = (await api.post("/runs/bulk", json={"runs": [{"task": "echo", "input": n} for n in (2, 3)]})).json()
    ended = [answer.json() for answer in await asyncio.gather(*waiting)]
    [of_batch, rest] = results["results"]
    assert {run["id"] for run in ended} == {of_batch["id"]} != {rest["id"]}
    gathered = (await api.get(f"/runs/{of_batch['id']}")).json()["input"]
    assert [run["output"] for run in ended] == [gathered] * 2
    assert (sorted(gathered), of_batch["input"], rest["input"]) == ([0, 1, 2], None, [3])
    assert len(worker.delivered) == 1


async def test_a_throttle_is_shown_and_paused_as_a_dynamic_limit(api: httpx.AsyncClient) -> None:
    await register(api, {"throttle": {"limit": 1, "period": 600, "key": BY_USER}})
    await submit(api, "/runs?wait=60", input={"user": "u 1"})
    held = (await submit(api, input={"user": "u 1"})).json()
    [shown] = (await api.get("/rate-limits", params={"dynamic": "true"})).json()["items"]
    assert {name: shown[name] for name in ("key", "limit", "duration", "used", "waiting")} == {
        "key": "echo:throttle:u 1",
        "limit": 1,
        "duration": 600,
        "used": 1,
        "waiting": 1,
    }
    paused = await api.post(f"/rate-limits/{quote(shown['key'], safe='')}/pause", params={"dynamic": "true"})
    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    told = (await api.get(f"/runs/{held['id']}/explain")).json()
    assert told["summary"].startswith("The throttle of task echo for 'u 1'")
    longest = quote("x" * 400, safe="")
    answers = [await api.post(f"/rate-limits/{longest}{x}/pause", params={"dynamic": "true"}) for x in ("", "x")]
    assert [answer.status_code for answer in answers] == [200, 422]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"batch_size": 0}, "batch_size", "2"),
    ({"batch_size": 1}, "batch_size", "2"),
    ({"batch_size": 1001}, "batch_size", "1000"),
    ({"batch_size": 2.5}, "batch_size", "integer"),
    ({"batch_size": 2, "batch_timeout": 86_401}, "batch_timeout", "86400"),
    ({"batch_size": 2, "batch_timeout": 0}, "batch_timeout", "0.01"),
    ({"batch_timeout": 5}, "", "batch_size of 2 to 1000"),
    ({"batch_key": "input"}, "", "batch_size of 2 to 1000"),
    ({"batch_size": 2, "debounce": {"period": 1}}, "", "one of them"),
    ({"debounce": {}}, "debounce.period", "required"),
    ({"debounce": {"period": 86_401}}, "debounce.period", "86400"),
    ({"debounce": {"period": -1}}, "debounce.period", "0.01"),
    ({"debounce": {"period": 2, "max_wait": 1}}, "debounce", "at least the period"),
    ({"debounce": {"period": 2, "max_wait": 3, "mode": "leading"}}, "debounce", "trailing"),
    ({"debounce": {"period": 2, "mode": "both"}}, "debounce.mode", "'trailing' or 'leading'"),
    ({"debounce": {"period": 2, "wait": 3}}, "debounce.wait", "unexpected"),
    ({"throttle": {"limit": 0, "period": 1}}, "throttle.limit", "1"),
    ({"throttle": {"limit": 1}}, "throttle.period", "required"),
    ({"throttle": {"limit": 1, "period": 31_622_401}}, "throttle.period", "31622400"),
]
"""Policies, the member that is refused, and a word of the sentence."""
KEYS: list[tuple[dict[str, Any], str]] = [
    ({"debounce": {"period": 1, "key": "input +"}}, "debounce.key"),
    ({"batch_size": 2, "batch_key": "nobody.knows"}, "batch_key"),
    ({"throttle": {"limit": 1, "period": 1, "key": "[1]"}}, "throttle.key"),
]
"""Policies whose expression could never be a key."""


async def test_a_policy_that_cannot_be_is_refused_with_its_member(api: httpx.AsyncClient) -> None:
    for task, field, word in REFUSED:
        answer = await register(api, task)
        problem = answer.json()
        where = f"tasks[0].{field}" if field else "tasks[0]"
        assert (answer.status_code, problem["field"]) == (422, where), problem
        assert word in problem["detail"], problem
    for task, member in KEYS:
        answer = await register(api, task)
        assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
        assert answer.json()["detail"].startswith(f"task echo: {member}: the expression ")


async def test_what_is_gathered_cannot_be_delayed_and_a_key_that_fails_is_named(api: httpx.AsyncClient) -> None:
    await register(api, {"batch_size": 2, "batch_key": BY_USER})
    delayed = await submit(api, input={"user": "a"}, delay=5)
    failed = await submit(api, input={})
    assert (delayed.status_code, delayed.json()["code"], delayed.json()["field"]) == (
        422,
        "gathered_not_delayed",
        "delay",
    )
    assert (failed.status_code, failed.json()["code"], failed.json()["policy"]) == (
        422,
        "expression_failed",
        "batch_key",
    )
    assert (await api.get("/runs")).json()["items"] == []
    assert (await submit(api, input={"user": None}, delay=60)).status_code == 201
