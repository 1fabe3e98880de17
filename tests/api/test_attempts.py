"""Attempts over HTTP: what was sent, what came back, who may see it."""

import httpx
import pytest

pytestmark = pytest.mark.anyio


async def test_an_attempt_is_shown_with_its_request_its_answer_and_a_sentence(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs?wait=60", json={"task": "echo", "input": {"n": 2**70}})).json()

    shown = (await api.get(f"/runs/{run['id']}/attempts/1")).json()

    assert (shown["run_id"], shown["attempt"], shown["task"], shown["state"]) == (run["id"], 1, "echo", "completed")
    assert (shown["started_at"], shown["finished_at"]) == (run["started_at"], run["finished_at"])
    request, response = shown["request"], shown["response"]
    assert (request["method"], request["runs"]) == ("POST", 1)
    assert request["headers"]["webhook-signature"] == "…"
    assert request["body"]["type"] == "deliver"
    [delivered] = request["body"]["data"]["runs"]
    assert (delivered["run_id"], delivered["input"], delivered["lease_token"]) == (run["id"], {"n": 2**70}, "…")
    assert (response["status"], response["body"]) == (200, f'{{"n":{2**70}}}')
    assert shown["timings"]["total"] >= shown["timings"]["first_byte"] >= 0
    assert shown["trouble"] is None


async def test_the_attempts_of_a_run_are_listed_without_what_was_sent(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs?wait=60", json={"task": "break"})).json()

    page = (await api.get(f"/runs/{run['id']}/attempts?limit=1")).json()

    [shown] = page["items"]
    assert page["next_cursor"] is None
    assert (shown["attempt"], shown["state"], shown["charged"], shown["code"]) == (1, "failed", True, "http_error")
    assert shown["sentence"] == "It failed (http_error: the worker answered 422: it is broken), and the run with it."
    assert "request" not in shown


async def test_an_attempt_that_is_not_there_is_404_and_a_bad_cursor_422(api: httpx.AsyncClient) -> None:
    run = (await api.post("/runs?wait=60", json={"task": "echo"})).json()
    for path in (f"/runs/{run['id']}/attempts/2", f"/runs/{run['id']}/attempts/0", f"/runs/{'0' * 36}/attempts/1"):
        assert (await api.get(path)).status_code == 404
    bad = await api.get(f"/runs/{run['id']}/attempts?cursor=x")
    assert (bad.status_code, bad.json()["code"]) == (422, "bad_cursor")


async def test_nobody_sees_them_without_the_token(api: httpx.AsyncClient, stranger: httpx.AsyncClient) -> None:
    run = (await api.post("/runs?wait=60", json={"task": "echo"})).json()
    for path in (f"/runs/{run['id']}/attempts", f"/runs/{run['id']}/attempts/1"):
        assert (await stranger.get(path)).status_code == 401
