"""The main job: an app mounts the handler, is registered, and gets its background tasks."""

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from tests.e2e.stage import Stage, until

SOON, LONG = 55.0, 3600
"""Seconds: a server that does something late may be slow, and finds what it has forgotten after a minute."""


def test_a_run_is_waited_for_and_answered_with_its_output(stage: Stage) -> None:
    run = stage.api.run("add", {"first": 40, "second": 2}, metadata={"order": 7})

    assert (run["state"], run["output"], run["error"]) == ("completed", 42, None)
    assert (run["attempt"], run["tries"], run["max_attempts"]) == (1, 1, 1)
    assert (run["worker"], run["metadata"]) == ("app", {"order": 7})
    assert [entry["kind"] for entry in run["timeline"]] == ["created", "started", "completed"]


def test_a_sync_function_with_a_dataclass_runs_as_well(stage: Stage) -> None:
    assert stage.api.run("greet", {"name": "Ada"})["output"] == {"greeting": "Hello, Ada!"}


def test_a_run_that_nobody_waits_for_is_executed_once(stage: Stage) -> None:
    submitted = stage.api.submit("add", {"first": 1})

    assert stage.api.ended(submitted["id"])["output"] == 2
    assert stage.journal.events(submitted["id"]) == ["started"]


def test_a_thousand_runs_in_one_request_are_each_executed_once(stage: Stage) -> None:
    mark = uuid4().hex
    body = {"runs": [{"task": "add", "input": {"first": n}, "metadata": {"mark": mark}} for n in range(1000)]}

    results = stage.api.call("POST", "/runs/bulk", body)["results"]

    ids = [run["id"] for run in results]
    assert len(set(ids)) == 1000
    assert [stage.api.ended(run_id)["output"] for run_id in ids] == [n + 1 for n in range(1000)]
    executed = [entry["run_id"] for entry in stage.journal.entries() if entry["run_id"] in set(ids)]
    assert sorted(executed) == sorted(ids)


def test_one_bad_item_of_a_bulk_is_refused_alone(stage: Stage) -> None:
    body = {"runs": [{"task": "add", "input": {"first": 1}}, {"task": "no-such-task"}, {"tusk": "add"}]}

    good, unknown, misspelt = stage.api.call("POST", "/runs/bulk", body)["results"]

    assert stage.api.ended(good["id"])["state"] == "completed"
    assert (unknown["status"], unknown["code"]) == (422, "task_unknown")
    assert (misspelt["status"], misspelt["field"]) == (422, "runs[2].tusk")


def test_a_delayed_run_starts_when_its_delay_is_over(stage: Stage) -> None:
    submitted = stage.api.submit("add", {"first": 1}, delay=1.0)
    assert submitted["state"] == "queued"

    run = stage.api.ended(submitted["id"])

    waited = seconds_between(run["created_at"], run["started_at"])
    assert 1.0 <= waited < SOON


def test_a_run_starts_at_its_moment_and_not_before(stage: Stage) -> None:
    at = datetime.now(UTC) + timedelta(seconds=1)

    run = stage.api.ended(stage.api.submit("add", {"first": 1}, run_at=at.isoformat())["id"])

    assert 0.0 <= (datetime.fromisoformat(run["started_at"]) - at).total_seconds() + 0.001 < SOON


def test_a_repeated_key_gives_the_same_run_and_executes_it_once(stage: Stage) -> None:
    key = uuid4().hex
    keyed = {"idempotency_key": key, "idempotency_ttl": 60}
    first = stage.api.run("add", {"first": 1}, **keyed)

    again = stage.api.submit("add", {"first": 1}, status=200, **keyed)
    other = stage.api.call("POST", "/runs", {"task": "add", "input": {"first": 2}, **keyed}, status=409)

    assert (again["id"], again["output"]) == (first["id"], 2)
    assert (other["code"], other["run_id"]) == ("idempotency_conflict", first["id"])
    assert stage.journal.events(first["id"]) == ["started"]


def test_a_run_that_cannot_start_before_its_ttl_is_cancelled(stage: Stage) -> None:
    submitted = stage.api.submit("add", {"first": 1}, delay=LONG, ttl=0.3)

    run = stage.api.ended(submitted["id"])

    assert run["state"] == "cancelled"
    assert run["reason"].startswith("ttl")
    assert stage.journal.events(run["id"]) == []


def test_a_failing_task_is_tried_again_by_its_policy(stage: Stage) -> None:
    run = stage.api.run("succeed_at_third")

    assert (run["state"], run["output"], run["tries"]) == ("completed", 3, 3)
    retries = [entry for entry in run["timeline"] if entry["kind"] == "retry"]
    assert [(entry["attempt"], entry["code"], entry["type"]) for entry in retries] == [
        (1, "task_error", "ConnectionError"),
        (2, "task_error", "ConnectionError"),
    ]
    assert stage.journal.events(run["id"]) == ["started"] * 3


def test_a_task_that_says_so_is_not_tried_again(stage: Stage) -> None:
    run = stage.api.run("refuse", "flying")

    assert (run["state"], run["tries"]) == ("failed", 1)
    assert run["error"]["message"] == "flying is out of the question"


def test_an_input_that_the_model_refuses_fails_with_the_fields_and_no_retry(stage: Stage) -> None:
    run = stage.api.run("add", {"first": "one"})

    assert (run["state"], run["tries"], run["error"]["code"]) == ("failed", 1, "invalid_input")
    assert "first" in str(run["error"])


def test_logs_and_progress_stand_in_the_timeline(stage: Stage) -> None:
    run = stage.api.run("narrate", metadata={"why": "to see"})

    assert run["output"] == {"why": "to see"}
    until(lambda: len(told(stage, run["id"])) == 2, "log and progress in the timeline")
    assert told(stage, run["id"]) == [
        ("log", "it has begun", "warning", None),
        ("progress", "half of it", None, 0.5),
    ]


def test_a_failed_run_that_is_replayed_keeps_its_history(stage: Stage) -> None:
    failed = stage.api.run("refuse", "swimming")

    stage.api.call("POST", f"/runs/{failed['id']}/replay")

    until(lambda: stage.api.show(failed["id"])["attempt"] == 2, "second attempt")
    run = stage.api.ended(failed["id"])
    assert (run["state"], run["tries"], run["max_attempts"]) == ("failed", 2, 1 + 6)
    assert "replayed" in [entry["kind"] for entry in run["timeline"]]


def test_waiting_ends_by_itself_with_the_state_of_the_run(stage: Stage) -> None:
    begun = time.monotonic()

    run = stage.api.call("POST", "/runs", {"task": "add", "input": {"first": 1}, "delay": LONG}, status=202, wait=0.3)

    assert run["state"] == "queued"
    assert 0.3 <= time.monotonic() - begun < SOON
    stage.api.call("POST", f"/runs/{run['id']}/cancel")


def told(stage: Stage, run_id: str) -> list[tuple[str, str, str | None, float | None]]:
    """Return the log and progress lines of a run's timeline."""
    timeline = stage.api.show(run_id)["timeline"]
    return [
        (entry["kind"], entry["message"], entry.get("level"), entry.get("value"))
        for entry in timeline
        if entry["kind"] in ("log", "progress")
    ]


def seconds_between(early: str, late: str) -> float:
    """Return the seconds between two times of the API."""
    return (datetime.fromisoformat(late) - datetime.fromisoformat(early)).total_seconds()
