"""Keys that are over after a while, runs of later that are moved, and schedules, over HTTP."""

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.e2e.stage import Object, until
from tests.flow.checks import stamp
from tests.ways.stand import LONG, Ways, in_seconds

SECOND = 1000
EVERY_SECOND = "* * * * * *"


def test_a_key_has_one_run_until_its_time_is_over(ways: Ways) -> None:
    ways.serve({"name": "keyed"}, {"name": "keyed.long"}, {"name": "keyed.other"})
    body = {"task": "keyed", "input": {"n": 1}, "idempotency_key": "k", "idempotency_ttl": 0.2}

    ids = [ways.api.call("POST", "/runs", body, status=201)["id"]]
    for _ in range(2):
        time.sleep(0.25)  # what is tested is that this much time matters
        ids.append(ways.api.call("POST", "/runs", body, status=201)["id"])
    long = body | {"task": "keyed.long", "idempotency_ttl": LONG}
    first = ways.api.call("POST", "/runs", long, status=201)
    assert ways.api.call("POST", "/runs", long, status=200)["id"] == first["id"]
    assert ways.api.send("POST", "/runs", long | {"task": "keyed.other"}).status_code == 201
    refused = ways.api.call("POST", "/runs", long | {"input": {"n": 2}}, status=409)
    assert first["id"] in str(refused)

    assert len(set(ids)) == 3
    assert sorted(noted["run_id"] for noted in ways.until_noted(3, "keyed")) == sorted(ids)
    ways.api.ended(first["id"])
    assert [noted["run_id"] for noted in ways.noted("keyed.long")] == [first["id"]]


def test_a_run_of_later_is_listed_moved_and_cancelled_while_it_waits(either_ways: Ways, tmp_path: Path) -> None:
    ways = either_ways
    ways.serve({"name": "later"})
    gate = tmp_path / "gate"
    ids = [ways.api.submit("later", {"gate": str(gate)}, delay=LONG)["id"] for _ in range(3)]
    first, second, third = ids

    assert [run["id"] for run in ways.runs("later", delayed="true")] == ids
    moved = ways.api.call("PATCH", f"/runs/{first}", {"delay": 2 * LONG, "priority": 9})
    assert (moved["state"], moved["priority"]) == ("queued", 9)
    assert stamp(moved["due_at"]) - stamp(moved["created_at"]) >= 2 * LONG * SECOND
    assert ways.api.call("POST", f"/runs/{third}/cancel")["state"] == "cancelled"
    assert [run["id"] for run in ways.runs("later", delayed="true")] == [first, second]

    ways.api.call("PATCH", f"/runs/{first}", {"run_at": in_seconds(-60)})
    ways.until_noted(1, "later")
    due = ways.api.call("PATCH", f"/runs/{second}", {"delay": 0.3})["due_at"]
    ways.until_noted(2, "later")
    assert [noted["run_id"] for noted in ways.noted("later")] == [first, second]
    assert ways.api.call("PATCH", f"/runs/{first}", {"delay": LONG}, status=409)["code"] == "run_running"
    gate.touch()
    assert stamp(ways.api.ended(second)["started_at"]) >= stamp(due)
    ways.api.ended(first)
    for ended in (first, third):
        assert ways.api.call("PATCH", f"/runs/{ended}", {"delay": LONG}, status=409)["code"] == "run_finished"
    assert len(ways.noted("later")) == 2


def test_a_run_that_is_due_and_waits_is_not_moved(ways: Ways) -> None:
    ways.serve({"name": "due"})
    ways.api.call("POST", "/tasks/due/pause")
    run_id = ways.api.submit("due")["id"]
    ways.settle()

    assert ways.api.call("PATCH", f"/runs/{run_id}", {"delay": LONG}, status=409)["code"] == "run_due"
    ways.api.call("POST", "/tasks/due/resume")

    assert ways.api.ended(run_id)["state"] == "completed"


def test_a_cron_of_each_second_starts_one_run_for_each_second(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "tick"}, {"name": "tock", "crons": [{"expression": EVERY_SECOND, "input": {"from": "policy"}}]})
    schedule = {"name": "ticking", "task": "tick", "expression": EVERY_SECOND, "input": {"from": "api"}}
    ways.api.call("POST", "/schedules", schedule, status=201)

    until(lambda: len(ways.noted("tick")) >= 3 and len(ways.noted("tock")) >= 3, "three seconds")
    for name in ("ticking", "tock.0"):
        ways.api.call("POST", f"/schedules/{name}/pause")

    for name, task, said in (("ticking", "tick", "api"), ("tock.0", "tock", "policy")):
        fires = list(ways.api.call("GET", f"/schedules/{name}/fires", limit=100)["items"])[::-1]
        assert {fire["outcome"] for fire in fires} == {"started"}
        assert_each_second([stamp(fire["due_at"]) for fire in fires])
        runs = {run["id"]: run for run in ways.runs(task)}
        assert sorted(runs) == sorted(fire["run"] for fire in fires)
        for fire in fires:
            trigger = {"type": "schedule", "schedule": name, "due_at": fire["due_at"], "manual": False}
            assert runs[fire["run"]]["trigger"] == trigger
        noted = ways.until_noted(len(runs), task)
        assert sorted(one["run_id"] for one in noted) == sorted(runs)
        assert [one["input"] for one in noted] == [{"from": said}] * len(runs)


def assert_each_second(times: Sequence[int]) -> None:
    """Whole seconds, each once, and none left out."""
    assert [time % SECOND for time in times] == [0] * len(times)
    assert [later - earlier for earlier, later in pairwise(times)] == [SECOND] * (len(times) - 1)


def test_a_schedule_of_the_api_lives_as_it_is_told(ways: Ways) -> None:
    ways.serve({"name": "lives", "crons": [{"expression": "0 0 1 1 *"}]})
    body = {"name": "life", "task": "lives", "expression": "30 2 * * *", "timezone": "Europe/Berlin", "missed": "skip"}

    made = ways.api.call("POST", "/schedules", body, status=201)
    assert made == ways.api.call("POST", "/schedules", body) == ways.api.call("GET", "/schedules/life")
    assert ways.api.call("POST", "/schedules", body | {"missed": "all"}, status=409)["code"] == "schedule_exists"
    assert (made["source"], made["paused"], made["last_at"], made["overlap"]) == ("api", False, None, "allow")
    times = ways.api.call("GET", "/schedules/life/next", count=10)["items"]
    assert len(times) == 10
    assert times[0] == made["next_at"]
    preview = {"expression": body["expression"], "timezone": body["timezone"], "count": 3}
    assert ways.api.call("POST", "/schedules/preview", preview)["items"] == times[:3]

    assert ways.api.call("POST", "/schedules/life/pause")["next_at"] is None
    assert [one["name"] for one in ways.api.call("GET", "/schedules", task="lives", paused="true")["items"]] == ["life"]
    run = ways.api.call("POST", "/schedules/life/trigger", status=201)
    assert (run["task"], run["trigger"]["schedule"], run["trigger"]["manual"]) == ("lives", "life", True)
    assert ways.api.ended(run["id"])["state"] == "completed"
    [fire] = ways.api.call("GET", "/schedules/life/fires")["items"]
    assert (fire["manual"], fire["run"], fire["outcome"]) == (True, run["id"], "started")
    assert ways.api.call("POST", "/schedules/life/resume")["next_at"] == times[0]
    patched = ways.api.call("PATCH", "/schedules/life", {"expression": "0 4 29 2 *"})
    assert patched["next_at"] != times[0]
    ways.api.call("DELETE", "/schedules/life", status=204)
    ways.api.call("GET", "/schedules/life", status=404)

    for method in ("PATCH", "DELETE"):
        change = {"missed": "all"} if method == "PATCH" else None
        assert ways.api.call(method, "/schedules/lives.0", change, status=409)["code"] == "schedule_of_task"


def test_a_schedule_for_one_time_fires_once(ways: Ways) -> None:
    ways.serve({"name": "single"})
    made = ways.api.call("POST", "/schedules", {"task": "single", "run_at": in_seconds(-60)}, status=201)
    other = ways.api.call("POST", "/schedules", {"task": "single", "run_at": in_seconds(1)}, status=201)

    ways.until_noted(2, "single")
    until(lambda: ways.api.call("GET", f"/schedules/{other['name']}")["last_run"], "run of the schedule")

    assert [noted["trigger"]["schedule"] for noted in ways.noted("single")].count(other["name"]) == 1
    assert made["name"] != other["name"]


@pytest.mark.parametrize("overlap", ["skip", "cancel"])
def test_what_overlaps_is_left_out_or_takes_the_place(ways: Ways, tmp_path: Path, overlap: str) -> None:
    """Of due times that are seen together, as the server or its host had stood still, one has a run in either way."""
    gate, name = tmp_path / "gate", f"overlap-{overlap}"
    ways.serve({"name": name})
    body: Object = {"name": name, "task": name, "expression": EVERY_SECOND, "overlap": overlap}
    ways.api.call("POST", "/schedules", body | {"input": {"gate": str(gate)}}, status=201)

    def outcomes_of() -> list[str]:
        fires = ways.api.call("GET", f"/schedules/{name}/fires", limit=1000)["items"][::-1]
        return [fire["outcome"] for fire in fires]

    word, times = ("overlap", 1) if overlap == "skip" else ("started", 2)
    until(lambda: outcomes_of().count(word) >= times, "two fires")
    ways.api.call("POST", f"/schedules/{name}/pause")

    *before, last = ways.runs(name)
    if overlap == "skip":
        assert (before, outcomes_of()) == ([], ["started", *["overlap"] * (len(outcomes_of()) - 1)])
    else:
        assert outcomes_of()[-1] == "started"
        assert outcomes_of().count("started") == 1 + len(before)
    assert {run["state"] for run in before} <= {"cancelled"}
    ways.api.until_state(last["id"], "running")
    gate.touch()
    assert ways.api.ended(last["id"])["state"] == "completed"
