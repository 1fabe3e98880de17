"""Workers that know Standard Webhooks and HTTP, and none of our packages."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.stage import PATIENCE, Journal, Object, Stage, start_plain_worker, until


@pytest.fixture
def plain(stage: Stage, tmp_path: Path) -> Iterator[Journal]:
    """A plain worker, registered with its tasks; its journal."""
    journal = Journal(tmp_path / "plain-journal")
    worker = start_plain_worker(stage.processes, journal, stage.api)
    yield journal
    stage.api.call("DELETE", "/workers/plain", status=204)
    worker.kill()


@pytest.mark.usefixtures("plain")
def test_a_plain_workers_answer_is_the_output(stage: Stage) -> None:
    assert stage.api.run("plain.double", 21)["output"] == 42
    assert stage.api.run("plain.text")["output"] == "plainly text"
    empty = stage.api.run("plain.empty")
    assert (empty["state"], empty["output"]) == ("completed", None)


def test_backpressure_of_a_plain_worker_is_not_charged(stage: Stage, plain: Journal) -> None:
    run = stage.api.run("plain.busy-at-first")

    assert (run["state"], run["attempt"], run["tries"]) == ("completed", 2, 1)
    assert "pushed_back" in [entry["kind"] for entry in run["timeline"]]
    assert plain.events(run["id"]) == ["started"] * 2


def test_a_plain_worker_fails_for_good_when_it_says_so_and_by_policy_otherwise(stage: Stage, plain: Journal) -> None:
    never, broken = stage.api.run("plain.never"), stage.api.run("plain.break")

    assert (never["state"], never["tries"], never["error"]["code"]) == ("failed", 1, "http_error")
    assert (broken["state"], broken["tries"]) == ("failed", 2)
    assert "it broke" in broken["error"]["message"]
    assert len(plain.events(broken["id"])) == 2


@pytest.mark.usefixtures("plain")
def test_an_accepted_run_is_completed_by_report_and_an_exact_repeat_is_fine(stage: Stage) -> None:
    run = stage.api.run("plain.reported", {})

    assert (run["state"], run["output"], run["tries"]) == ("completed", "reported", 1)
    assert "taken up" in [entry.get("message") for entry in run["timeline"]]


@pytest.mark.usefixtures("plain")
def test_an_accepted_run_is_failed_by_report(stage: Stage) -> None:
    run = stage.api.run("plain.reported", {"error": "it rained"})

    assert (run["state"], run["tries"]) == ("failed", 1)
    assert (run["error"]["type"], run["error"]["message"]) == ("Sad", "it rained")


def test_an_accepted_run_hears_of_its_cancellation_by_heartbeat(stage: Stage, plain: Journal, tmp_path: Path) -> None:
    submitted = stage.api.submit("plain.reported", {"gate": str(tmp_path / "gate")})
    until(lambda: taken_up(stage, submitted), "sign of life")

    cancelled = stage.api.call("POST", f"/runs/{submitted['id']}/cancel", {"reason": "no longer needed"})

    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "no longer needed")
    until(lambda: plain.events(submitted["id"])[1:] == ["cancelled"], "cancellation at the worker")


@pytest.mark.usefixtures("plain")
def test_no_other_token_opens_the_reporting_api(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    submitted = stage.api.submit("plain.reported", {"gate": str(gate)})
    url = f"{stage.server.url}/runs/{submitted['id']}/attempts/1/complete"

    refused = [
        httpx.post(url, json={"output": 1}, headers=headers, timeout=PATIENCE, trust_env=False).status_code
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer test-token-0123456789abcdef"})
    ]

    assert refused == [401] * 3
    gate.touch()
    assert stage.api.ended(submitted["id"])["output"] == "reported"


def taken_up(stage: Stage, run: Object) -> bool:
    return "taken up" in [entry.get("message") for entry in stage.api.show(run["id"])["timeline"]]
