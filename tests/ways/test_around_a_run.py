"""What goes on around a run, over HTTP: its timeline as it grows, what runs when it failed, and many runs at once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.e2e.stage import PATIENCE, Object, until
from tests.support.processes import TOKEN
from tests.ways.stand import LONG, Ways


class Told(NamedTuple):
    """One event of a stream."""

    id: str | None
    event: str
    data: Object


def stream(ways: Ways, run_id: str, last: str | None = None) -> Iterator[Told]:
    """Read the timeline of a run as it grows, to its end."""
    headers = {"authorization": f"Bearer {TOKEN}"} | ({"last-event-id": last} if last else {})
    url = f"{ways.server.url}/runs/{run_id}/events"
    with httpx.stream("GET", url, headers=headers, timeout=PATIENCE, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: dict[str, str] = {}
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if line:
                name, _, value = line.partition(":")
                found[name] = value.removeprefix(" ")
            elif found:
                yield Told(found.get("id"), found["event"], json.loads(found["data"]))
                found = {}


def test_a_stream_tells_the_timeline_as_it_grows_to_those_who_come_early_and_late(
    either_ways: Ways, tmp_path: Path
) -> None:
    ways = either_ways
    backoff = {"strategy": "fixed", "initial": 0.05, "jitter": False}
    ways.serve({"name": "streamed", "retries": 1, "backoff": backoff})
    gate = tmp_path / "gate"
    run_id = ways.api.submit("streamed", {"gate": str(gate), "fails": 1})["id"]

    early: list[Told] = []
    for told in stream(ways, run_id):
        early.append(told)
        if told.event == "started" and told.data["attempt"] == 1:
            assert ways.api.show(run_id)["state"] == "running"
            gate.touch()

    timeline = ways.api.show(run_id)["timeline"]
    *entries, end = early
    assert [told.data for told in entries] == timeline
    assert [told.event for told in entries] == [entry["kind"] for entry in timeline]
    assert [told.id for told in entries] == [str(n) for n in range(1, len(timeline) + 1)]
    assert (end.event, end.data["id"], end.data["state"]) == ("end", run_id, "completed")
    assert [told[1:] for told in stream(ways, run_id)] == [told[1:] for told in early]
    assert [told[1:] for told in stream(ways, run_id, last=entries[1].id)] == [told[1:] for told in early[2:]]
    assert [told.event for told in stream(ways, run_id, last=entries[-1].id)] == ["end"]


def test_a_run_that_nobody_knows_has_no_stream(ways: Ways) -> None:
    ways.api.call("GET", "/runs/01980000-0000-7000-8000-000000000000/events", status=404)


def test_what_runs_when_a_run_has_finally_failed(either_ways: Ways) -> None:
    ways = either_ways
    backoff = {"strategy": "fixed", "initial": 0.05, "jitter": False}
    ways.serve(
        {"name": "fails", "retries": 1, "backoff": backoff, "on_failure": "mourns"},
        {"name": "mourns", "on_failure": "fails"},
    )

    failed = ways.api.run("fails", {"fails": 2}, metadata={"m": 1})
    saved = ways.api.run("fails", {"fails": 1})
    assert (failed["state"], saved["state"]) == ("failed", "completed")
    [called] = ways.until_noted(1, "mourns")
    ways.settle()

    assert called["trigger"] == {"type": "failure", "run": failed["id"], "task": "fails"}
    told = called["input"]["run"]
    same = ("id", "task", "input", "metadata", "error", "tries", "finished_at")
    assert {name: told[name] for name in same} == {name: failed[name] for name in same}
    assert [run["id"] for run in ways.runs("mourns")] == [called["run_id"]]
    assert ways.api.ended(called["run_id"])["state"] == "completed"


def test_the_failure_of_what_was_called_for_a_failure_calls_nothing(ways: Ways) -> None:
    ways.serve({"name": "ping", "on_failure": "pong"}, {"name": "pong", "on_failure": "ping"})

    assert ways.api.run("ping", {"fails": 1})["state"] == "failed"
    ways.until_noted(1, "pong")
    ways.settle()

    assert len(ways.runs("ping")) == len(ways.runs("pong")) == 1


def finished(ways: Ways, operation: Object) -> Object:
    """Return an operation when it is done."""
    path = f"/operations/{operation['id']}"
    until(lambda: ways.api.call("GET", path)["state"] == "done", "done operation")
    found: Object = ways.api.call("GET", path)
    return found


def test_many_runs_are_cancelled_and_replayed_by_a_filter(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "many"}, {"name": "spared"})
    runs = [{"task": task, "input": n, "delay": LONG} for n in range(60) for task in ("many", "spared")]
    ids = [run["id"] for run in ways.api.call("POST", "/runs/bulk", {"runs": runs})["results"]]
    of_many: Object = {"task": "many", "state": ["queued", "running"]}

    dry = ways.api.call("POST", "/runs/cancel", {"filter": of_many, "dry_run": True})
    assert dry == {"matched": 60}
    assert {run["state"] for run in ways.runs("many")} == {"queued"}
    begun = ways.api.call("POST", "/runs/cancel", {"filter": of_many, "reason": "no longer"}, status=202)
    done = finished(ways, begun)
    assert (done["kind"], done["matched"], done["done"], done["skipped"]) == ("cancel", 60, 60, 0)
    assert done["finished_at"]
    assert {(run["state"], run["reason"]) for run in ways.runs("many")} == {("cancelled", "no longer")}
    assert {run["state"] for run in ways.runs("spared")} == {"queued"}

    some = {"ids": ids[:20], "state": "cancelled"}
    replayed = finished(ways, ways.api.call("POST", "/runs/replay", {"filter": some}, status=202))
    assert (replayed["matched"], replayed["done"]) == (10, 10)
    assert [ways.api.ended(run_id)["state"] for run_id in ids[0:20:2]] == ["completed"] * 10
    assert len(ways.noted("many")) == 10
    spared = {"filter": {"task": "spared", "state": "queued"}}
    finished(ways, ways.api.call("POST", "/runs/cancel", spared, status=202))
    assert {run["state"] for run in ways.runs("spared")} == {"cancelled"}
