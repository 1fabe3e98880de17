"""What cannot be is refused with a sentence that names it, and nothing of it is stored."""

from typing import Any

import pytest

from tests.e2e.stage import SECRET, Object
from tests.flow.stand import Flow

KEY = {"key": "input.user", "max_runs": 1}

REGISTRATIONS: dict[str, tuple[Object, str]] = {
    "max_runs of 0": ({"concurrency": [KEY | {"max_runs": 0}]}, "max_runs"),
    "negative max_runs": ({"concurrency": [KEY | {"max_runs": -1}]}, "max_runs"),
    "max_runs as a fraction": ({"concurrency": [KEY | {"max_runs": 1.5}]}, "max_runs"),
    "unknown strategy": ({"concurrency": [KEY | {"strategy": "FIRST_COME"}]}, "strategy"),
    "rule without a key": ({"concurrency": [{"max_runs": 1}]}, "key"),
    "nine rules": ({"concurrency": [KEY | {"name": f"rule-{n}"} for n in range(9)]}, "concurrency"),
    "key that does not parse": ({"concurrency": [KEY | {"key": "input.user +"}]}, "input.user +"),
    "key of an unknown variable": ({"concurrency": [KEY | {"key": "user.id"}]}, "user"),
    "key by an unknown function": ({"concurrency": [KEY | {"key": "shell(input.user)"}]}, "shell"),
    "key that is too long": ({"concurrency": [KEY | {"key": f"'{'k' * 600}'"}]}, "key"),
    "units of 0": ({"rate_limits": [{"key": "static", "units": 0}]}, "units"),
    "units that do not parse": ({"rate_limits": [{"key": "static", "units": "1 +"}]}, "1 +"),
    "limit without duration": ({"rate_limits": [{"dynamic_key": "input.user", "limit": 1}]}, "duration"),
    "static and dynamic at once": ({"rate_limits": [{"key": "a", "dynamic_key": "input.a"}]}, "dynamic_key"),
    "neither static nor dynamic": ({"rate_limits": [{"units": 1}]}, "dynamic_key"),
    "static with a limit of its own": ({"rate_limits": [{"key": "a", "limit": 1, "duration": 1}]}, "limit"),
    "dynamic limit of 0": ({"rate_limits": [{"dynamic_key": "input.a", "limit": 0, "duration": 1}]}, "limit"),
    "duration of 0": ({"rate_limits": [{"dynamic_key": "input.a", "limit": 1, "duration": 0}]}, "duration"),
    "units above their own limit": (
        {"rate_limits": [{"dynamic_key": "input.a", "units": 3, "limit": 2, "duration": 1}]},
        "units",
    ),
    "slot_cost of 0": ({"slot_cost": 0}, "slot_cost"),
    "unknown stickiness": ({"sticky": "firm"}, "sticky"),
}

RULES: dict[str, Object] = {
    "bad.key": {"concurrency": [KEY, {"key": "input.org", "max_runs": 1, "name": "org"}]},
    "bad.static": {"rate_limits": [{"key": "bad-known", "units": "input.units"}]},
    "bad.unknown": {"rate_limits": [{"key": "bad-unknown"}]},
    "bad.dynamic": {"rate_limits": [{"dynamic_key": "input.user", "limit": "input.most", "duration": "input.seconds"}]},
    "bad.cost": {"slot_cost": 17},
    "bad.sticky": {"sticky": "hard"},
}
USER: Object = {"user": "u"}

SUBMITS: dict[str, tuple[str, Object, str, str]] = {
    "a member that is missing": ("bad.key", {"user": "u"}, "expression_failed", "name:org"),
    "no input at all": ("bad.key", {}, "expression_failed", "input.user"),
    "a key that is a list": ("bad.key", {"user": ["u"]}, "key_wrong_type", "input.user"),
    "a key that is a map": ("bad.key", {"org": {"id": 1}} | USER, "key_wrong_type", "name:org"),
    "a key longer than 256 bytes": ("bad.key", {"org": "ö" * 129} | USER, "key_too_long", "name:org"),
    "an unknown static key": ("bad.unknown", {}, "rate_limit_unknown", "PUT /rate-limits/bad-unknown"),
    "units above the limit": ("bad.static", {"units": 11}, "units_above_limit", "bad-known"),
    "units below 0": ("bad.static", {"units": -1}, "units_invalid", "input.units"),
    "units in words": ("bad.static", {"units": "three"}, "units_invalid", "input.units"),
    "units as a fraction": ("bad.static", {"units": 1.5}, "units_invalid", "input.units"),
    "a dynamic key that is a map": ("bad.dynamic", {"user": {}}, "key_wrong_type", "input.user"),
    "a dynamic key longer than 256 bytes": ("bad.dynamic", {"user": "u" * 257}, "key_too_long", "input.user"),
    "a limit in words": ("bad.dynamic", {"most": "many"} | USER, "limit_invalid", "input.most"),
    "a limit below 0": ("bad.dynamic", {"most": -1} | USER, "limit_invalid", "input.most"),
    "a duration of 0": ("bad.dynamic", {"most": 1, "seconds": 0} | USER, "duration_invalid", "input.seconds"),
    "a duration of years": ("bad.dynamic", {"most": 1, "seconds": 10**9} | USER, "duration_invalid", "input.seconds"),
    "more slots than any worker has": ("bad.cost", {}, "slot_cost_too_high", "17"),
}
"""By what is wrong: the task, the input, the problem's code, and what it names."""


@pytest.fixture(scope="module")
def rules(flow: Flow) -> Flow:
    """The server, with tasks whose rules runs may break."""
    flow.limit("bad-known", 10)
    flow.worker("bad", *[{"name": name} | policy for name, policy in RULES.items()])
    return flow


def plain(*tasks: Object) -> Object:
    return {"name": "bad-plain", "url": "http://127.0.0.1:9/", "mode": "plain", "secret": SECRET, "tasks": tasks}


@pytest.mark.parametrize("policy", REGISTRATIONS.values(), ids=REGISTRATIONS)
def test_a_policy_that_cannot_be_is_refused(flow: Flow, policy: tuple[Object, str]) -> None:
    wrong, named = policy

    problem = flow.api.call("POST", "/workers", plain({"name": "bad.policy"} | wrong), status=422)

    assert named in f"{problem['detail']} {problem.get('field')}"
    flow.api.call("GET", "/workers/bad-plain", status=404)
    flow.api.call("GET", "/tasks/bad.policy", status=404)


def test_tasks_that_share_a_rule_must_agree_on_its_strategy(flow: Flow) -> None:
    tasks = [
        {"name": f"bad.{strategy}", "concurrency": [KEY | {"name": "disputed", "strategy": strategy}]}
        for strategy in ("GROUP_ROUND_ROBIN", "CANCEL_NEWEST")
    ]

    problem = flow.api.call("POST", "/workers", plain(*tasks), status=422)

    assert "disputed" in problem["detail"]
    flow.api.call("GET", "/workers/bad-plain", status=404)


def test_a_manifest_that_cannot_be_is_rejected_in_words(flow: Flow) -> None:
    flow.worker("bad-first", {"name": "bad.first", "concurrency": [KEY | {"name": "settled"}]})
    other: Any = {"name": "bad.second", "concurrency": [KEY | {"name": "settled", "strategy": "CANCEL_NEWEST"}]}
    flow.declare("bad-second", other)

    worker = flow.api.register(flow.host, "bad-second", path="/bad-second/")

    assert worker["state"] == "rejected"
    assert "settled" in worker["problem"]
    flow.api.call("GET", "/tasks/bad.second", status=404)


@pytest.mark.parametrize("submit", SUBMITS.values(), ids=SUBMITS)
def test_an_input_that_breaks_a_rule_is_refused_and_not_stored(
    rules: Flow, submit: tuple[str, Object, str, str]
) -> None:
    task, given, code, named = submit

    problem = rules.api.call("POST", "/runs", {"task": task, "input": given}, status=422)

    assert problem["code"] == code
    assert named in " ".join(problem.get(member, "") for member in ("detail", "rule", "expression"))
    assert list(rules.api.listed(task=task)) == []


def test_an_unknown_parent_is_refused(rules: Flow) -> None:
    body = {"task": "bad.sticky", "input": {}, "parent": "01980000-0000-7000-8000-000000000000"}

    assert rules.api.call("POST", "/runs", body, status=422)["code"] == "parent_unknown"


def test_in_bulk_each_run_is_judged_alone(rules: Flow) -> None:
    rules.worker("bulk", {"name": "bulk", "concurrency": [KEY]})
    inputs: list[Object] = [{"user": "u"}, {}, {"user": []}, {"user": None}, {"user": 3}]

    results = rules.api.call("POST", "/runs/bulk", {"runs": [{"task": "bulk", "input": one} for one in inputs]})[
        "results"
    ]

    assert [one.get("code") for one in results] == [None, "expression_failed", "key_wrong_type", None, None]
    assert [rules.api.ended(one["id"])["state"] for one in results if "id" in one] == ["completed"] * 3
    assert len(rules.runs("bulk")) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit": 1},
        {"duration": 1},
        {"limit": -1, "duration": 1},
        {"limit": 1.5, "duration": 1},
        {"limit": "1", "duration": 1},
        {"limit": 1, "duration": 0},
        {"limit": 1, "duration": -1},
        {"limit": 1, "duration": "minute"},
        {"limit": 1, "duration": 10**9},
        {"limit": 10**12, "duration": 1},
        {"limit": 1, "duration": 1, "burst": 2},
    ],
    ids=str,
)
def test_a_limit_that_cannot_be_is_refused(flow: Flow, body: Object) -> None:
    problem = flow.api.call("PUT", "/rate-limits/bad-limit", body, status=422)

    assert problem["detail"]
    flow.api.call("GET", "/rate-limits/bad-limit", status=404)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("PUT", "/rate-limits/not%20a%20name", 422),
        ("PUT", f"/rate-limits/{'k' * 129}", 422),
        ("DELETE", "/rate-limits/nobody", 404),
        ("POST", "/rate-limits/nobody/pause", 404),
        ("POST", "/tasks/nobody/pause", 404),
        ("POST", "/tasks/nobody/resume", 404),
    ],
)
def test_what_is_not_there_is_not_found(flow: Flow, method: str, path: str, status: int) -> None:
    flow.api.call(method, path, {"limit": 1, "duration": 1} if method == "PUT" else None, status=status)


def test_a_key_that_is_null_means_that_the_rule_does_not_apply(rules: Flow) -> None:
    found = rules.api.run("bad.dynamic", {"user": None})

    assert found["state"] == "completed"
