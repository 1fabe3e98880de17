"""The reporting API: what a worker says of an attempt that it took with 202."""

import json
from typing import Any

import httpx
import pytest

from tests.api.conftest import LEASE, FakeWorker

pytestmark = pytest.mark.anyio


class Attempt:
    """An attempt that the worker has taken, and its reports."""

    def __init__(self, api: httpx.AsyncClient, client: httpx.AsyncClient, delivered: dict[str, Any]) -> None:
        self._api = api
        self._client = client
        self.delivered = delivered

    async def report(self, action: str, body: Any = None, *, token: str | None = None) -> httpx.Response:
        """Report with the lease token, or another one."""
        headers = {"authorization": f"Bearer {token or self.delivered['lease_token']}"}
        content = b"" if body is None else json.dumps(body).encode()
        return await self._client.post(f"{self.delivered['report_url']}/{action}", content=content, headers=headers)

    async def run(self, wait: str = "") -> dict[str, Any]:
        """Return the run as it is now."""
        found: dict[str, Any] = (await self._api.get(f"/runs/{self.delivered['run_id']}{wait}")).json()
        return found


@pytest.fixture
async def attempt(api: httpx.AsyncClient, stranger: httpx.AsyncClient, worker: FakeWorker) -> Attempt:
    """An attempt of the task `later`, accepted with 202."""
    await api.post("/runs", json={"task": "later"})
    await worker.reached.wait()
    return Attempt(api, stranger, worker.delivered[-1])


async def test_a_reported_output_completes_the_run(attempt: Attempt) -> None:
    answer = await attempt.report("complete", {"output": {"a": 1}})

    run = await attempt.run()
    assert (answer.status_code, answer.json()) == (200, {"recorded": True})
    assert (run["state"], run["output"]) == ("completed", {"a": 1})


async def test_a_report_without_a_body_completes_with_null(attempt: Attempt) -> None:
    assert (await attempt.report("complete")).status_code == 200
    assert (await attempt.run())["output"] is None


async def test_a_reported_failure_fails_the_run(attempt: Attempt) -> None:
    error = {"type": "ValueError", "message": "no", "stack": "here", "details": [{"loc": ["a"]}]}

    answer = await attempt.report("fail", {"error": error, "retryable": False})

    run = await attempt.run()
    assert answer.status_code == 200
    assert run["state"] == "failed"
    assert {name: run["error"][name] for name in error} == error
    assert run["error"]["code"] == "task_error"


async def test_a_reported_failure_may_name_the_rate_limit_that_has_to_wait(attempt: Attempt) -> None:
    for bad in ("", "k" * 257, 7):
        answer = await attempt.report("fail", {"retry_after": 30, "rate_limit_key": bad})
        assert (answer.status_code, answer.json()["code"]) == (422, "member_invalid")
        assert "rate_limit_key" in answer.json()["detail"]
    assert (await attempt.report("fail", {"retry_after": 30, "rate_limit_key": "cdn"})).status_code == 200
    assert (await attempt.run())["state"] == "failed"


async def test_a_task_s_own_cancellation_ends_its_run(attempt: Attempt) -> None:
    assert (await attempt.report("cancel", {"reason": 7})).json()["code"] == "member_invalid"
    told = {"reason": "no such\norder\0" + "x" * 300}

    assert [(await attempt.report("cancel", told)).status_code for _ in range(2)] == [200, 200]

    assert (await attempt.report("complete")).status_code == 409
    run = await attempt.run()
    assert (run["state"], run["error"]) == ("cancelled", None)
    assert run["reason"] == "no such order " + "x" * 242


async def test_an_exact_repeat_is_fine_and_any_other_final_report_is_not(attempt: Attempt) -> None:
    assert (await attempt.report("complete", {"output": 1})).status_code == 200
    assert (await attempt.report("complete", {"output": 1})).status_code == 200
    assert (await attempt.report("complete", {"output": 2})).status_code == 409
    assert (await attempt.report("fail", {"error": "no"})).status_code == 409
    assert (await attempt.run())["output"] == 1


async def test_a_heartbeat_renews_the_lease(attempt: Attempt) -> None:
    answer = await attempt.report("heartbeat")

    assert (answer.status_code, answer.json()) == (200, {"cancelled": False, "lease": LEASE})


async def test_a_heartbeat_tells_of_a_cancellation(attempt: Attempt, api: httpx.AsyncClient) -> None:
    await api.post(f"/runs/{attempt.delivered['run_id']}/cancel")

    answer = await attempt.report("heartbeat")

    assert answer.status_code == 409 or answer.json()["cancelled"] is True


async def test_a_report_after_a_cancellation_changes_nothing(attempt: Attempt, api: httpx.AsyncClient) -> None:
    await api.post(f"/runs/{attempt.delivered['run_id']}/cancel")

    assert (await attempt.report("complete", {"output": 1})).status_code == 409
    assert (await attempt.run())["state"] == "cancelled"


async def test_log_lines_stand_in_the_timeline(attempt: Attempt, api: httpx.AsyncClient) -> None:
    answer = await attempt.report("log", {"entries": [{"message": "one"}, {"level": "warning", "message": "two"}]})
    await attempt.report("complete")

    entries = [entry for entry in (await attempt.run())["timeline"] if entry["kind"] == "log"]
    assert answer.status_code == 200
    assert [(entry["level"], entry["message"]) for entry in entries] == [("info", "one"), ("warning", "two")]


@pytest.mark.parametrize("action", ["heartbeat", "complete", "fail", "cancel", "log"])
async def test_the_token_is_judged_before_the_body_is_read(attempt: Attempt, action: str) -> None:
    assert (await attempt.report(action, "x" * 200_000, token="nobody's")).status_code == 401
    assert (await attempt.report(action, "x" * 200_000)).status_code == 413


@pytest.mark.parametrize("action", ["heartbeat", "complete", "fail", "cancel", "log"])
async def test_a_token_of_another_attempt_opens_nothing(attempt: Attempt, action: str) -> None:
    body: dict[str, Any] = {"entries": []} if action == "log" else {}

    other = await attempt.report(action, body, token=attempt.delivered["lease_token"][::-1])
    attempt.delivered["report_url"] = attempt.delivered["report_url"].removesuffix("1") + "2"
    old = await attempt.report(action, body)

    assert (other.status_code, old.status_code) == (401, 401)
    assert (await attempt.run())["state"] == "running"


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("complete", {"outptu": 1}, "outptu"),
        ("fail", {"error": {}, "retry": False}, "retry"),
        ("fail", {"rate_limit": "cdn"}, "rate_limit"),
        ("log", {"entries": {}}, "entries"),
        ("log", {"entries": [{"message": "m"}] * 101}, "entries"),
        ("log", {"entries": [{"level": "info"}]}, "entries[0].message"),
        ("log", {"entries": [{"message": "m", "level": 7}]}, "entries[0].level"),
        ("log", {}, "entries"),
        ("heartbeat", {"progress": 1}, "progress"),
    ],
)
async def test_a_report_that_breaks_a_rule_is_refused_with_its_place(
    attempt: Attempt, action: str, body: Any, field: str
) -> None:
    answer = await attempt.report(action, body)

    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert (await attempt.run())["state"] == "running"


@pytest.mark.parametrize("number", ["0", "x", "-1", "1.0", "9" * 30, "%D9%A1"])
async def test_an_attempt_that_cannot_be_is_not_found(attempt: Attempt, number: str) -> None:
    attempt.delivered["report_url"] = attempt.delivered["report_url"].removesuffix("1") + number

    assert (await attempt.report("heartbeat")).status_code in (401, 404)
