"""`GET /runs/{id}/events` as any client of server-sent events sees it, on a real socket."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.stage import PATIENCE, Object, Stage, set_stage
from tests.support.processes import TOKEN, Processes


class Events:
    """An open stream: its events as they come. `comments` are the lines that say nothing."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments: list[str] = []
        self._lines = response.iter_lines()

    def __iter__(self) -> Iterator[Object]:
        event: Object = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments.append(line)
            elif line:
                event[name] = event[name] + "\n" + value if name in event else value
            elif event:
                yield event | {"data": json.loads(event["data"])}
                event = {}

    def until(self, kind: str) -> list[Object]:
        """Return the events up to one of this kind."""
        found = []
        for event in self:
            found.append(event)
            if event["event"] == kind:
                return found
        raise AssertionError(f"the stream ended without {kind}: {found}")


@contextmanager
def watching(url: str, run_id: str, after: Any = None, **query: Any) -> Iterator[Events]:
    headers = {"authorization": f"Bearer {TOKEN}"} | ({} if after is None else {"last-event-id": str(after)})
    with (
        httpx.Client(timeout=PATIENCE, trust_env=False, verify=False) as client,
        client.stream("GET", f"{url}/runs/{run_id}/events", headers=headers, params=query) as response,
    ):
        assert response.status_code == 200, response.read()
        yield Events(response)


def told(events: list[Object]) -> list[tuple[str | None, str]]:
    return [(event.get("id"), event["event"]) for event in events]


def test_a_run_is_told_of_while_it_lives_and_to_those_who_come_late(stage: Stage, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = stage.api.submit("hold", str(gate), metadata={"why": "é"})
    with watching(stage.api.url, run["id"]) as events:
        headers = events.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store, no-transform", "no")
        first = events.until("started")
        assert told(first) == [("1", "created"), ("2", "started")]
        gate.touch()
        rest = list(events)
    assert told(rest) == [("3", "completed"), (None, "end")]
    final = stage.api.show(run["id"])
    assert [event["data"] for event in first + rest[:-1]] == final.pop("timeline")
    assert final.pop("children") == {"total": 0, "by_state": {}}  # which only who asks for the run is told
    assert rest[-1]["data"] == final
    for after, query in ((1, {}), (None, {"last_event_id": 1}), (1, {"last_event_id": 0})):
        with watching(stage.api.url, run["id"], after, **query) as events:
            assert told(list(events)) == [("2", "started"), ("3", "completed"), (None, "end")]
    with watching(stage.api.url, run["id"], 99) as events:
        assert told(list(events)) == [(None, "end")]


def test_logs_progress_and_retries_are_told_in_order(stage: Stage) -> None:
    for task in ("narrate", "succeed_at_third"):
        run = stage.api.submit(task)
        with watching(stage.api.url, run["id"]) as events:
            heard = list(events)
        shown = stage.api.show(run["id"])["timeline"]
        assert [event["data"] for event in heard[:-1]] == shown
        assert [event.get("id") for event in heard] == [*(str(n + 1) for n in range(len(shown))), None]


def test_what_cannot_be_watched_is_refused(stage: Stage) -> None:
    run = stage.api.submit("add", {"first": 1})
    for path, status, code in (
        (f"/runs/{run['id']}/events?last_event_id=x", 422, "parameter_invalid"),
        (f"/runs/{run['id']}/events?after=1", 422, "parameter_unknown"),
        ("/runs/0199a3c0-0000-7000-8000-000000000000/events", 404, "run_unknown"),
        ("/runs/none/events", 404, "run_unknown"),
    ):
        problem = stage.api.call("GET", path, status=status)
        assert problem["code"] == code
    url = f"{stage.api.url}/runs/{run['id']}/events"
    assert httpx.get(url, timeout=PATIENCE, trust_env=False).status_code == 401
    assert stage.api.send("HEAD", f"/runs/{run['id']}/events").headers["content-type"].startswith("text/event-stream")


def test_lines_in_a_payload_stay_in_its_event(stage: Stage) -> None:
    body = b'{"task": "add", "input": {\r\n "first":\n 4}, "delay": 3600}'
    headers = {"authorization": f"Bearer {TOKEN}"}
    run = httpx.post(f"{stage.api.url}/runs", content=body, headers=headers, timeout=PATIENCE, trust_env=False).json()
    stage.api.call("POST", f"/runs/{run['id']}/cancel")
    with watching(stage.api.url, run["id"]) as events:
        heard = list(events)
    assert told(heard) == [("1", "created"), ("2", "scheduled"), ("3", "cancelled"), (None, "end")]
    assert heard[-1]["data"]["input"] == {"first": 4}


def test_a_server_that_stops_ends_its_streams_at_once(processes: Processes, tmp_path: Path, sqlite_url: str) -> None:
    gate = tmp_path / "gate"
    with set_stage(processes, tmp_path, sqlite_url, HURLBAT_DRAIN_SECONDS="600") as stage:
        run = stage.api.submit("hold", str(gate))
        with watching(stage.api.url, run["id"]) as events, watching(stage.api.url, run["id"]) as others:
            assert told(events.until("started"))[-1] == ("2", "started")
            others.until("started")
            stage.server.signal(signal.SIGTERM)
            assert list(events) == list(others) == []  # the run goes on: only the server has ended them
            assert stage.api.call("GET", f"/runs/{run['id']}/events", status=503)["code"] == "stopping"
        gate.touch()
        assert stage.server.wait() == 0
