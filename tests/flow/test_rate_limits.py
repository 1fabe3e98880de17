"""Rate limits are strict in every window, are used up, and follow what is changed at once."""

import os
import time
from datetime import datetime
from typing import Any

import pytest

from tests.e2e.stage import Object, until
from tests.flow.checks import fullest_window, stamp
from tests.flow.stand import LONG, Flow, wait_until

SECONDS = int(os.environ.get("HURLBAT_TEST_FLOW_SECONDS", "4"))
"""How long the limits are saturated."""
SPELLS = 6
"""How often, until nearly all of them was used in one spell: at times the machine has no time for the server."""
FIRST = 0.95
"""After how many seconds the one run that came first is followed by all the others."""
SECOND = 1000
ATTAINED = 0.95
LIMIT = 10
DYNAMIC = {"dynamic_key": "input.user", "units": "input.units", "limit": "input.most", "duration": 1}


def limited(flow: Flow, task: str, *rates: Object, **more: Any) -> None:
    """Declare a task with these rate limits."""
    flow.worker(task, {"name": task, "rate_limits": rates} | more)


def test_no_window_holds_more_than_the_limit_and_nearly_all_of_it_is_used(either_flow: Flow) -> None:
    """The restarting window lets 19 through where two of its windows meet."""
    flow = either_flow
    flow.limit("steady", LIMIT, 1)
    flow.limit("triple", LIMIT, 1)
    limits = [{"key": "steady"}], [{"key": "triple", "units": 3}], [DYNAMIC]
    names = ("rate.steady", "rate.triple", "rate.dynamic")
    tasks = [{"name": name, "rate_limits": rates} for name, rates in zip(names, limits, strict=True)]
    flow.worker("rate", *tasks)
    users = {"a": 5, "b": 8}
    inputs = [{"user": user, "most": most, "units": 2} for user, most in users.items()]
    firsts = [flow.api.submit(name, {})["id"] for name in names[:2]]
    first = max(stamp(flow.api.ended(run_id)["started_at"]) for run_id in firsts) / 1000

    wait_until(first + FIRST)
    short: set[str] = set()
    for spell in range(SPELLS):
        began = time.time()
        enough = LIMIT * (SECONDS + 2)
        flow.submit_all("rate.steady", *[{}] * enough)
        flow.submit_all("rate.triple", *[{}] * (enough // 3))
        flow.submit_all("rate.dynamic", *inputs * (SECONDS * 4 + 4))
        wait_until(began + SECONDS + FIRST)

        found = [(name, flow.started_at(name), LIMIT, units) for name, units in zip(names[:2], (1, 3), strict=True)]
        dynamic = [run for run in flow.runs("rate.dynamic").values() if run["started_at"]]
        for user, most in users.items():
            starts = sorted(stamp(run["started_at"]) for run in dynamic if run["input"]["user"] == user)
            found.append((user, starts, most, 2))
        for _, starts, limit, units in found:
            assert fullest_window(starts, SECOND, units) <= limit
        missed = {name for name, starts, limit, units in found if not nearly_all(starts, began, limit // units)}
        short = short & missed if spell else missed
        if not short:
            break
    for name in names:
        flow.api.call("POST", "/runs/cancel", {"filter": {"task": name, "state": "queued"}}, status=202)
    assert short == set()


def nearly_all(starts: list[int], began: float, limit: int) -> bool:
    """Whether nearly as many have started in each second of a spell as may."""
    saturated = [at for at in starts if began * SECOND - 5 <= at < (began + SECONDS) * SECOND]
    return len(saturated) >= ATTAINED * limit * SECONDS


def test_a_limit_that_is_raised_or_lowered_counts_at_once(flow: Flow) -> None:
    flow.limit("moved", 1)
    limited(flow, "moved", {"key": "moved"})
    ids = flow.submit_all("moved", *[{}] * 8)
    flow.until_completed("moved", 1)

    for limit, most in ((4, 4), (2, 4), (5, 5)):
        flow.limit("moved", limit)
        flow.until_completed("moved", most)
        flow.settle()
        assert len(flow.journal.starts("moved")) == most
    flow.limit("moved", 100)

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 8


def test_a_limit_of_zero_holds_and_loses_nothing(flow: Flow) -> None:
    flow.limit("stopped", 2)
    limited(flow, "stopped", {"key": "stopped"})
    ids = flow.submit_all("stopped", *[{}] * 3)
    flow.until_completed("stopped", 2)
    flow.limit("stopped", 0)
    ids += flow.submit_all("stopped", {}, {})
    flow.settle()
    assert flow.states(ids) == ["completed"] * 2 + ["queued"] * 3

    flow.limit("stopped", 5)

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 5


def test_of_several_limits_a_run_takes_all_or_none(flow: Flow) -> None:
    """Were the units of the wide one taken while the narrow one holds, the others would find nothing left."""
    flow.limit("wide", 6)
    flow.limit("narrow", 1)
    both = {"name": "both", "rate_limits": [{"key": "wide"}, {"key": "narrow"}]}
    flow.worker("both", both, {"name": "wide-only", "rate_limits": [{"key": "wide"}]})
    held = flow.submit_all("both", *[{}] * 6)
    flow.until_completed("both", 1)

    flow.submit_all("wide-only", *[{}] * 6)
    flow.until_completed("wide-only", 5)
    flow.settle()

    assert len(flow.journal.starts("wide-only")) == 5
    flow.limit("narrow", 100)
    flow.limit("wide", 100)
    assert [flow.api.ended(run_id)["state"] for run_id in held] == ["completed"] * 6


def test_a_retry_takes_units_again(flow: Flow) -> None:
    flow.limit("again", 2)
    limited(flow, "again", {"key": "again"}, retries=1, backoff={"initial": 0})
    first = flow.api.run("again", {"retry_after": [0, None]})
    assert (first["state"], first["attempt"]) == ("completed", 2)

    second = flow.api.submit("again", {})["id"]
    flow.settle()

    assert flow.states([second]) == ["queued"]
    flow.limit("again", 3)
    assert flow.api.ended(second)["state"] == "completed"


def test_each_run_is_held_to_the_limit_it_came_with_and_all_starts_count(flow: Flow) -> None:
    shared = {"dynamic_key": "'of-two-tasks'", "limit": "input.most", "duration": LONG}
    flow.worker("two", *[{"name": name, "rate_limits": [shared]} for name in ("two.small", "two.large")])

    for task, most, started in (("two.small", 2, 2), ("two.large", 4, 2), ("two.small", 3, 0)):
        before = len(flow.journal.starts(task))
        flow.submit_all(task, *[{"most": most}] * 5)
        flow.until_completed(task, before + started)
        flow.settle()
        assert len(flow.journal.starts(task)) == before + started


@pytest.mark.parametrize("kind", ["static", "dynamic"])
def test_a_key_that_is_paused_holds_its_runs_until_it_is_resumed(flow: Flow, kind: str) -> None:
    task, key = f"paused-key.{kind}", f"paused.{kind}"
    query: Object = {"dynamic": "true"} if kind == "dynamic" else {}
    if kind == "static":
        flow.limit(key, 100)
        limited(flow, task, {"key": key})
    else:
        limited(flow, task, {"dynamic_key": f"'{key}'", "limit": 100, "duration": LONG})
    flow.api.call("POST", f"/rate-limits/{key}/pause", **query)
    ids = flow.submit_all(task, *[{}] * 3)
    flow.settle()
    assert flow.states(ids) == ["queued"] * 3

    flow.api.call("POST", f"/rate-limits/{key}/resume", **query)

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 3


@pytest.mark.parametrize("seconds", [0.3, 600])
def test_a_task_that_is_told_to_wait_can_pause_a_key_for_all(flow: Flow, seconds: float) -> None:
    key = f"fragile.{seconds:g}"
    flow.limit(key, 100)
    limited(flow, key, {"key": key}, retries=1)
    first = flow.api.submit(key, {"retry_after": [seconds, key]})["id"]
    until(lambda: "retry" in {entry["kind"] for entry in flow.api.show(first)["timeline"]}, "failure")

    ids = flow.submit_all(key, *[{}] * 3)
    flow.settle()
    if seconds > 1:
        assert flow.states([first, *ids]) == ["queued"] * 4
        shown = flow.api.call("GET", f"/rate-limits/{key}")
        assert shown["paused"]
        assert stamp(shown["paused_until"]) == stamp(flow.api.show(first)["due_at"])
        flow.api.call("POST", f"/rate-limits/{key}/resume")

    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 3
    if seconds < 1:
        assert flow.api.ended(first)["state"] == "completed"
        began, *others = [one["at"] for one in flow.journal.entries(key) if one["event"] == "started"]
        assert min(others) - began >= seconds * SECOND


def test_a_limit_that_runs_wait_on_is_not_deleted(flow: Flow) -> None:
    flow.limit("needed", 1)
    limited(flow, "needed", {"key": "needed"})
    ids = flow.submit_all("needed", *[{}] * 8)
    flow.until_completed("needed", 1)

    problem = flow.api.call("DELETE", "/rate-limits/needed", status=409)

    assert problem["code"] == "rate_limit_in_use"
    assert any(run_id in str(problem) for run_id in ids[1:])
    assert sum(run_id in str(problem) for run_id in ids) <= 5
    assert sorted(flow.states(ids)) == ["completed"] + ["queued"] * 7
    flow.limit("needed", 100)
    assert [flow.api.ended(run_id)["state"] for run_id in ids] == ["completed"] * 8
    flow.api.call("DELETE", "/rate-limits/needed", status=204)
    flow.api.call("GET", "/rate-limits/needed", status=404)


def test_limits_are_shown_with_what_is_used(flow: Flow) -> None:
    flow.limit("shown", 5, 1800)
    limited(flow, "shown", {"key": "shown", "units": 2})
    flow.api.run("shown", {})

    found = flow.api.call("GET", "/rate-limits/shown")

    assert (found["key"], found["limit"], found["duration"], found["used"]) == ("shown", 5, 1800, 2)
    assert [one for one in flow.api.call("GET", "/rate-limits", limit=1000)["items"] if one["key"] == "shown"] == [
        found
    ]
    assert datetime.fromisoformat(found["updated_at"]).tzinfo is not None


def test_the_same_limit_put_again_changes_nothing(flow: Flow) -> None:
    before = flow.limit("same", 1)
    limited(flow, "same", {"key": "same"})
    ids = flow.submit_all("same", {}, {})
    flow.until_completed("same", 1)

    after = flow.limit("same", 1)
    flow.settle()

    assert (before["limit"], before["duration"]) == (after["limit"], after["duration"])
    assert sorted(flow.states(ids)) == ["completed", "queued"]
    flow.limit("same", 2)
    until(lambda: flow.states(ids) == ["completed"] * 2, "both ends")
