"""Debounce, batches and throttles, seen from outside: which run answers a submit, and what the worker gets."""

from typing import Any

import pytest

from tests.e2e.stage import Object
from tests.flow.checks import stamp
from tests.ways.stand import LONG, Ways, in_seconds, outcomes, started


def answers(ways: Ways, task: str, *inputs: Any, **more: Any) -> list[tuple[int, str]]:
    """Submit these inputs one after the other; return each answer's status, and the run."""
    told = [ways.api.send("POST", "/runs", {"task": task, "input": one} | more) for one in inputs]
    return [(answer.status_code, answer.json()["id"]) for answer in told]


def together(ways: Ways, task: str, *inputs: Any) -> list[str]:
    """Submit these inputs in one bulk, between which no time passes; return the run of each."""
    runs = [{"task": task, "input": one} for one in inputs]
    return [run["id"] for run in ways.api.call("POST", "/runs/bulk", {"runs": runs})["results"]]


def due(ways: Ways, run_id: str) -> None:
    """Let a run that gathers be due now."""
    ways.api.call("PATCH", f"/runs/{run_id}", {"delay": 0})


def test_a_trailing_run_stands_for_all_and_has_what_came_last(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "trailing", "debounce": {"period": LONG, "key": "input.user"}})

    (status, first), *others = answers(ways, "trailing", *({"user": "u", "n": n} for n in range(4)))
    [(_, other)] = answers(ways, "trailing", {"user": "v", "n": 0}, metadata={"m": 1}, priority=5)

    assert status == 201
    assert others == [(200, first)] * 3
    assert other != first
    for run_id in (first, other):
        due(ways, run_id)
    assert ways.api.ended(first)["input"] == {"user": "u", "n": 3}
    ended = ways.api.ended(other)
    assert (ended["metadata"], ended["priority"]) == ({"m": 1}, 5)
    assert sorted(noted["input"]["n"] for noted in ways.until_noted(2, "trailing")) == [0, 3]
    [(status, later)] = answers(ways, "trailing", {"user": "u", "n": 4})
    assert status == 201
    assert later != first
    ways.api.call("POST", f"/runs/{later}/cancel")


def test_a_trailing_run_starts_when_nothing_has_come_for_a_while(either_ways: Ways) -> None:
    """What comes in one bulk comes at one moment."""
    ways = either_ways
    ways.serve({"name": "quiet", "debounce": {"period": 0.3}})

    ids = together(ways, "quiet", 0, 1, 2)

    assert len(set(ids)) == 1
    ended = ways.api.ended(ids[0])
    assert ended["input"] == 2
    assert stamp(ended["started_at"]) - stamp(ended["created_at"]) >= 300


def test_a_trailing_run_waits_no_longer_than_it_may(ways: Ways) -> None:
    ways.serve({"name": "patient", "debounce": {"period": LONG, "max_wait": LONG}})

    [(_, first)] = answers(ways, "patient", 0)
    latest = ways.api.show(first)["due_at"]
    for n in range(1, 4):
        answers(ways, "patient", n)

    assert ways.api.show(first)["due_at"] == latest
    due(ways, first)
    assert ways.api.ended(first)["input"] == 3


def test_a_leading_run_starts_at_once_and_absorbs_what_follows(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "leading", "debounce": {"period": LONG, "mode": "leading"}})

    (status, first), *others = answers(ways, "leading", 0, 1, 2)
    assert (status, others) == (201, [(200, first), (200, first)])
    assert ways.api.ended(first)["input"] == 0
    assert answers(ways, "leading", 3) == [(200, first)]

    assert len(ways.runs("leading")) == len(ways.noted("leading")) == 1


def test_a_full_batch_is_one_run_with_the_list_of_all_inputs(either_ways: Ways) -> None:
    ways = either_ways
    ways.serve({"name": "batch", "batch_size": 3, "batch_timeout": LONG, "batch_key": "input.user"})

    inputs = [{"user": user, "n": n} for n, user in enumerate("abababa")]
    told = answers(ways, "batch", *inputs)

    assert [status for status, _ in told] == [201, 201, 200, 200, 200, 200, 201]
    of_a, of_b, rest = told[0][1], told[1][1], told[6][1]
    assert [run_id for _, run_id in told] == [of_a, of_b, of_a, of_b, of_a, of_b, rest]
    assert ways.api.ended(of_a)["input"] == inputs[0:6:2]
    assert ways.api.ended(of_b)["input"] == inputs[1:6:2]
    assert ways.api.show(rest)["state"] == "queued"
    assert sorted(len(noted["input"]) for noted in ways.noted("batch")) == [3, 3]
    ways.api.call("POST", f"/runs/{rest}/cancel")


def test_a_batch_that_is_not_full_runs_when_its_time_is_over(ways: Ways) -> None:
    ways.serve({"name": "slowly", "batch_size": 100, "batch_timeout": 0.3})

    ids = together(ways, "slowly", 1, 2)

    assert len(set(ids)) == 1
    ended = ways.api.ended(ids[0])
    assert ended["input"] == [1, 2]
    assert stamp(ended["started_at"]) - stamp(ended["created_at"]) >= 300


def test_a_bulk_fills_batches_in_its_order(ways: Ways) -> None:
    ways.serve({"name": "bulky", "batch_size": 4, "batch_timeout": 0.3})

    ids = together(ways, "bulky", *range(10))

    batches = [ways.api.ended(run_id)["input"] for run_id in dict.fromkeys(ids)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_events_are_gathered_as_submits_are(ways: Ways) -> None:
    ways.serve(
        {"name": "gathers", "on_events": ["gather"], "batch_size": 3, "batch_timeout": LONG},
        {"name": "settles", "on_events": ["gather"], "debounce": {"period": LONG, "mode": "leading"}},
    )

    events = [ways.publish("gather", {"n": n}) for n in range(3)]

    assert [sorted(outcomes(event)) for event in events] == [[("gathers", "started"), ("settles", "started")]] * 3
    runs = {run_id for event in events for run_id in started(event)}
    assert len(runs) == 2
    inputs = [ways.api.ended(run_id)["input"] for run_id in runs]
    assert sorted(inputs, key=str) == sorted([[{"n": 0}, {"n": 1}, {"n": 2}], {"n": 0}], key=str)


@pytest.mark.parametrize("key", [None, "input.user"])
def test_a_throttle_starts_no_more_than_it_says(ways: Ways, key: str | None) -> None:
    name = "throttle.user" if key else "throttle"
    throttle: Object = {"limit": 2, "period": LONG} | ({"key": key} if key else {})
    ways.serve({"name": name, "throttle": throttle})

    inputs = [{"user": user} for user in "aaabb"]
    ids = [run_id for _, run_id in answers(ways, name, *inputs)]
    ways.settle()

    starts = 4 if key else 2
    ways.until_noted(starts, name)
    states = [ways.api.show(run_id)["state"] for run_id in ids]
    assert states.count("queued") == 5 - starts
    assert states[2] == "queued"
    assert len(ways.noted(name)) == starts


def test_a_throttle_of_one_task_is_none_of_another(ways: Ways) -> None:
    throttle = {"limit": 1, "period": LONG, "key": "input.user"}
    ways.serve({"name": "apart.1", "throttle": throttle}, {"name": "apart.2", "throttle": throttle})

    for task in ("apart.1", "apart.2"):
        assert ways.api.run(task, {"user": "u"})["state"] == "completed"


@pytest.mark.parametrize("more", [{"delay": 5}, {"run_at": in_seconds(5)}], ids=["delay", "run_at"])
@pytest.mark.parametrize("policy", [{"debounce": {"period": 1}}, {"batch_size": 2}], ids=str)
def test_what_is_gathered_is_not_for_later(ways: Ways, policy: Object, more: Object) -> None:
    task = f"undelayed.{next(iter(policy))}.{next(iter(more))}"
    ways.serve({"name": task} | policy)

    problem = ways.api.call("POST", "/runs", {"task": task} | more, status=422)

    assert problem["code"] == "gathered_not_delayed"
    assert ways.runs(task) == []
