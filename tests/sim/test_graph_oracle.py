"""The second opinion on graphs: it must know what they promise before anybody is held to it."""

from typing import Any

import pytest

from tests.sim.graph_oracle import Facts, Seen, fates, missing, outcome, sinks, standing, to_do_again

DIAMOND: dict[str, Any] = {
    "nodes": [
        {"name": "d", "parents": ["b", "c"]},
        {"name": "a"},
        {"name": "b", "parents": ["a"]},
        {"name": "c", "parents": ["a"]},
    ]
}
WITH_HANDLERS = DIAMOND | {"on_failure": {"name": "undo"}, "on_success": {"name": "praise"}}
WELL = dict.fromkeys("abcd", "completed")
EVENT = Seen("e1", "paid", "x", {"n": 2, "g": "a"}, 100_000)


def facts(**more: Any) -> Facts:
    usual: dict[str, Any] = {
        "given": {"n": 1, "g": "a"},
        "parents": {"a": {"v": 2}, "b": None},
        "reached_at": 100_000,
        "created_at": 90_000,
        "now": 101_000,
        "events": [EVENT],
        "slack": 2,
    }
    return Facts(**usual | more)


def on(event: str = "paid", look_back: float = 5.0, **more: Any) -> dict[str, Any]:
    return {"event": event, "look_back": look_back} | more


def test_only_roots_are_due_at_first() -> None:
    assert missing(WITH_HANDLERS, {}) == ["a"]
    assert standing(DIAMOND, {}, "d") == "waits"


def test_a_node_is_due_when_the_last_of_its_parents_has_ended_well() -> None:
    assert missing(DIAMOND, {"a": "completed", "b": "skipped", "c": "running"}) == []
    assert missing(DIAMOND, {"a": "completed", "b": "skipped", "c": "completed"}) == ["d"]


@pytest.mark.parametrize("bad", ["failed", "cancelled"])
def test_a_node_is_barred_by_one_bad_parent_while_others_go_on(bad: str) -> None:
    states = {"a": "completed", "b": bad, "c": "running"}
    assert standing(DIAMOND, states, "d") == "barred"
    assert outcome(DIAMOND, states | {"d": "cancelled"}) is None


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        (WELL, "completed"),
        (WELL | {"d": "skipped"}, "completed"),
        (WELL | {"d": "running"}, None),
        (WELL | {"c": "cancelled", "d": "cancelled"}, "cancelled"),
        (WELL | {"c": "cancelled", "b": "failed", "d": "cancelled"}, "failed"),
    ],
)
def test_a_workflow_ends_as_its_nodes_have(states: dict[str, str], wanted: str | None) -> None:
    assert outcome(DIAMOND, states) == wanted


def test_what_follows_the_end_is_waited_for() -> None:
    assert missing(WITH_HANDLERS, WELL) == ["praise"]
    assert outcome(WITH_HANDLERS, WELL) is None
    assert outcome(WITH_HANDLERS, WELL | {"praise": "running"}) is None
    assert outcome(WITH_HANDLERS, WELL | {"praise": "completed"}) == "completed"
    assert outcome(WITH_HANDLERS, WELL | {"praise": "failed"}) == "failed"
    failed = WELL | {"d": "failed"}
    assert (missing(WITH_HANDLERS, failed), outcome(WITH_HANDLERS, failed)) == (["undo"], None)
    cancelled = WELL | {"d": "cancelled"}
    assert (missing(WITH_HANDLERS, cancelled), outcome(WITH_HANDLERS, cancelled)) == ([], "cancelled")


def test_a_replay_runs_what_was_bad_and_all_below() -> None:
    states = WELL | {"b": "failed", "d": "cancelled"}
    assert to_do_again(DIAMOND, states, "failed") == {"b", "d"}
    assert to_do_again(DIAMOND, states, ["c"]) == {"c", "d"}
    assert to_do_again(DIAMOND, states, "start") == set("abcd")
    assert to_do_again(WITH_HANDLERS, WELL, "failed") == {*"abcd", "undo", "praise"}
    assert to_do_again(WITH_HANDLERS, WELL | {"praise": "failed"}, "failed") == {"undo", "praise"}
    assert to_do_again(DIAMOND, {"a": "completed", "b": "completed", "c": "completed"}, "failed") == {"d"}
    assert sinks(DIAMOND) == ["d"]


@pytest.mark.parametrize(
    ("node", "wanted"),
    [
        ({}, {"start"}),
        ({"wait_for": [{"sleep": 0.5}]}, {"start"}),
        ({"wait_for": [{"sleep": 2}]}, {"wait"}),
        ({"wait_for": [{"sleep": 1}]}, {"start", "wait"}),
        ({"wait_for": [on()]}, {"start"}),
        ({"wait_for": [on("other")]}, {"wait"}),
        ({"wait_for": [on(scope="x")]}, {"start"}),
        ({"wait_for": [on(scope="y")]}, {"wait"}),
        ({"wait_for": [on(scope_from="input.g")]}, {"wait"}),
        ({"wait_for": [on(expression="input.n % 2 == 0")]}, {"start"}),
        ({"wait_for": [on(expression="input.g == 'a'"), on("other")]}, {"wait"}),
        ({"wait_for": [{"any": [on("other"), {"sleep": 0.5}]}]}, {"start"}),
        ({"wait_for": [{"expression": "input.n % 2 == 0"}]}, {"skip"}),
        ({"wait_for": [{"any": [{"expression": "input.n % 2 == 0"}, on("other")]}]}, {"wait"}),
        ({"wait_for": [{"expression": "parents.b == null"}]}, {"start"}),
        ({"wait_for": [{"expression": "parents.a != null && parents.a.v % 2 == 0"}]}, {"start"}),
        ({"wait_for": [{"expression": "input.missing == 1"}]}, {"fail"}),
        ({"skip_if": [on()]}, {"skip"}),
        ({"skip_if": [on(), on("other")]}, {"start"}),
        ({"skip_if": [on()], "cancel_if": [{"sleep": 0.2}]}, {"cancel"}),
        ({"cancel_if": [{"expression": "input.n % 2 == 0"}]}, {"start"}),
    ],
)
def test_conditions_decide(node: dict[str, Any], wanted: set[str]) -> None:
    assert fates(node, facts()) == wanted


def test_a_wait_looks_back_from_when_it_was_reached_and_the_others_from_the_workflows_beginning() -> None:
    early = facts(events=[EVENT._replace(at=91_000)])
    assert fates({"wait_for": [on(look_back=5.0)]}, early) == {"wait"}
    assert fates({"wait_for": [on(look_back=10.0)]}, early) == {"start"}
    assert fates({"skip_if": [on(look_back=0.0)]}, early) == {"skip"}
    assert fates({"skip_if": [on(look_back=0.0)]}, facts(events=[EVENT._replace(at=89_000)])) == {"start"}


def test_of_an_event_of_the_same_commit_nobody_knows() -> None:
    fresh = facts(events=[EVENT._replace(fresh=True)])
    assert fates({"wait_for": [on()]}, fresh) == {"start", "wait"}
