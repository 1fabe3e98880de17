"""Pausing and resuming a task, as a client sees it."""

import httpx
import pytest

from hurlbat_dispatcher import Engine
from tests.api.conftest import WORKER_URL

pytestmark = pytest.mark.anyio


async def test_a_paused_task_holds_its_runs_and_a_resumed_one_starts_them(api: httpx.AsyncClient) -> None:
    paused = [(await api.post("/tasks/echo/pause")).json() for _ in range(2)]
    held = (await api.post("/runs", json={"task": "echo"})).json()
    other = (await api.post("/runs?wait=60", json={"task": "break"})).json()
    seen = (await api.get(f"/runs/{held['id']}")).json()
    resumed = [(await api.post("/tasks/echo/resume")).json() for _ in range(2)]
    ended = (await api.get(f"/runs/{held['id']}?wait=60")).json()

    assert [one["paused"] for one in paused] == [True, True]
    assert (seen["state"], other["state"]) == ("queued", "failed")
    assert [one["paused"] for one in resumed] == [False, False]
    assert ended["state"] == "completed"


async def test_runs_that_wait_already_are_held_too(api: httpx.AsyncClient) -> None:
    await api.post("/workers/plain/pause")
    held = (await api.post("/runs", json={"task": "echo"})).json()
    await api.post("/tasks/echo/pause")

    await api.post("/workers/plain/resume")
    other = (await api.post("/runs?wait=60", json={"task": "break"})).json()

    assert other["state"] == "failed"
    assert (await api.get(f"/runs/{held['id']}")).json()["state"] == "queued"


async def test_a_pause_outlasts_a_deploy_and_the_server(api: httpx.AsyncClient, engine: Engine) -> None:
    await api.post("/tasks/echo/pause")
    tasks = [{"name": "echo", "retries": 5}]
    await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks})
    deployed = (await api.get("/tasks/echo")).json()
    await api.delete("/workers/plain")
    orphaned = (await api.get("/tasks/echo")).json()
    await engine.stop(0)
    again = Engine(engine.settings)
    await again.start()
    try:
        restarted = await again.get_task("echo")
    finally:
        await again.stop(0)

    assert (deployed["retries"], deployed["paused"], orphaned["paused"], restarted.paused) == (5, True, True, True)


async def test_tasks_tell_whether_they_are_paused(api: httpx.AsyncClient) -> None:
    await api.post("/tasks/echo/pause")

    listed = (await api.get("/tasks")).json()["items"]

    assert {task["name"]: task["paused"] for task in listed} == {"break": False, "echo": True, "later": False}


@pytest.mark.parametrize("name", ["nobody", "no%20spaces", "%00", "a" * 200])
async def test_an_unknown_task_is_not_found(api: httpx.AsyncClient, name: str) -> None:
    for action in ("pause", "resume"):
        answer = await api.post(f"/tasks/{name}/{action}")
        assert (answer.status_code, answer.json()["code"]) == (404, "task_unknown")


async def test_a_pause_takes_no_members(api: httpx.AsyncClient) -> None:
    answer = await api.post("/tasks/echo/pause", json={"until": "tomorrow"})

    assert (answer.status_code, answer.json()["code"]) == (422, "member_unknown")
    assert (await api.get("/tasks/echo")).json()["paused"] is False
