"""The rules about workflows and children: each must object to what breaks it, and to nothing that is well."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

import pytest

from tests.sim.composition_plan import CompositionPlan
from tests.sim.composition_rules import LATER, CompositionRules
from tests.sim.history import History, Rule
from tests.sim.plan import plan_of
from tests.sim.rows import Change, Moment, Row

NOW = 1_800_000_100_000
MOMENT = Moment("s0", NOW, NOW, "owner", 3, NOW + 5_000, {"owner": NOW + 5_000}, {"owner": "s0"})
ELSEWHERE = replace(MOMENT, process="s1", servers={"owner": "s0", "other": "s1"})
GRAPH = {
    "nodes": [
        {"name": "a", "task": "step", "parents": []},
        {"name": "b", "task": "step", "parents": []},
        {"name": "c", "task": "step", "parents": ["a", "b"], "wait_for": [{"event": "other", "look_back": 0.0}]},
    ],
    "on_failure": {"name": "undo", "task": "step"},
}


class Scene:
    """A workflow's run `w`, and a checker that sees what is made of it."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.history = History(lambda: 0.0, lambda _: None)
        self.connection = sqlite3.connect(":memory:")
        self.connection.execute("CREATE TABLE event (id, key, scope, payload, created_at)")
        self.connection.execute("CREATE TABLE news (n)")
        self.connection.execute("CREATE TABLE shape (task, version, graph)")
        self.connection.execute("INSERT INTO shape VALUES ('flow', 1, ?)", (json.dumps(GRAPH),))
        plan = replace(plan_of(0), composition=CompositionPlan(True, ({"name": "flow", "graph": GRAPH},)))
        self.rules = CompositionRules(self.connection, self.history, self.rows, plan)
        assert not self.commit(self.row("w", kind="workflow", task="flow", input='{"n": 1}', started_at=NOW))

    def row(self, run_id: str, **more: Any) -> Row:
        """A run that runs, unless said."""
        usual: dict[str, Any] = dict.fromkeys(Row._fields)
        usual |= {"id": run_id, "task": "step", "kind": "task", "state": "running", "attempt": 0, "tries": 0}
        usual |= {"input": '{"n": 1}', "metadata": "{}", "created_at": NOW, "priority": 2, "task_version": 1}
        return Row(**usual | more)

    def node(self, name: str, **more: Any) -> Row:
        """A node of the workflow."""
        return self.row(f"w-{name}", **{"kind": "node", "parent": "w", "root": "w", "node": name} | more)

    def child(self, run_id: str, parent: str, **more: Any) -> Row:
        """A child of a run."""
        return self.row(run_id, **{"parent": parent, "root": parent} | more)

    def commit(self, *rows: Row, moment: Moment = MOMENT) -> list[Rule]:
        """Store rows in one commit, and return the rules that this breaks."""
        changes = [Change(self.rows.get(row.id), row) for row in rows]
        self.rows.update({row.id: row for row in rows})
        self.history.violations.clear()
        self.rules.committed(changes, moment)
        return [violation.rule for violation in self.history.violations]

    def change(self, run_id: str, **more: Any) -> Row:
        """A run as it is to be."""
        return self.rows[run_id]._replace(**more)

    def late(self) -> set[Rule]:
        """Let time pass in which nothing is done, twice; return the rules that this breaks."""
        found: set[Rule] = set()
        for times in range(4):
            found |= set(self.commit(moment=replace(MOMENT, now=NOW + times * (LATER + 10))))
        return found

    def both_complete(self) -> None:
        """Let both first nodes have completed."""
        self.commit(*(self.node(name, state="completed", output='{"v": 2}') for name in "ab"))


def with_all_nodes() -> Scene:
    """A scene in which all nodes have completed, and the workflow has not."""
    scene = Scene()
    scene.both_complete()
    scene.commit(scene.node("c", state="suspended"))
    scene.connection.execute("INSERT INTO event VALUES ('e', 'other', NULL, '{}', ?)", (NOW,))
    assert not scene.commit(scene.change("w-c", state="queued"))
    assert not scene.commit(scene.change("w-c", state="completed", output="3"))
    return scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_the_first_nodes_may_start(scene: Scene) -> None:
    assert not scene.commit(scene.node("a"), scene.node("b", state="queued"))
    assert not scene.late()


def test_a_node_may_not_be_there_before_its_parents_have_ended(scene: Scene) -> None:
    scene.commit(scene.node("a", state="completed", output="1"), scene.node("b"))
    assert scene.commit(scene.node("c", state="suspended")) == [Rule.NODES]


def test_a_node_that_is_due_must_be_there_soon(scene: Scene) -> None:
    assert scene.late() == {Rule.NODES}


def test_only_the_owner_makes_nodes(scene: Scene) -> None:
    assert scene.commit(scene.node("a"), moment=ELSEWHERE) == [Rule.OWNER]


@pytest.mark.parametrize("more", [{"task": "long"}, {"root": "x"}, {"priority": 3}, {"metadata": '{"x": 1}'}])
def test_a_node_is_what_its_workflow_makes_it(scene: Scene, more: dict[str, Any]) -> None:
    assert scene.commit(scene.node("a", **more)) == [Rule.NODES]


def test_a_node_has_the_workflows_input(scene: Scene) -> None:
    assert scene.commit(scene.node("a", input="2")) == [Rule.PARENTS]


def test_a_node_below_one_that_failed_is_cancelled(scene: Scene) -> None:
    scene.commit(scene.node("a", state="failed"), scene.node("b"))
    barred = {"state": "cancelled", "cancelled_by": "node", "reason": "node a failed"}
    for wrong in ({"state": "queued"}, {"cancelled_by": "parent"}, {"reason": "node b failed"}):
        assert Rule.NODES in scene.commit(scene.node("c", **barred | wrong))
        del scene.rows["w-c"]
    assert not scene.commit(scene.node("c", **barred))


def test_a_node_waits_for_its_event(scene: Scene) -> None:
    scene.both_complete()
    assert scene.commit(scene.node("c", state="queued")) == [Rule.WAITS]


def test_a_node_goes_on_when_its_event_has_come_and_not_before(scene: Scene) -> None:
    scene.both_complete()
    assert not scene.commit(scene.node("c", state="suspended"))
    assert not scene.late()
    assert scene.commit(scene.change("w-c", state="queued")) == [Rule.WAITS]


def test_an_event_must_not_be_lost(scene: Scene) -> None:
    scene.both_complete()
    scene.commit(scene.node("c", state="suspended"))
    scene.connection.execute("INSERT INTO event VALUES ('e', 'other', NULL, '{}', ?)", (NOW + 500,))
    assert scene.late() == {Rule.WAITS}
    assert not scene.commit(scene.change("w-c", state="queued"))


def test_nothing_is_late_that_its_owner_has_not_heard_of(scene: Scene) -> None:
    scene.connection.execute("INSERT INTO news VALUES (1)")
    assert not scene.late()


def test_a_node_is_given_what_its_parents_put_out(scene: Scene) -> None:
    scene.both_complete()
    scene.commit(scene.node("c", state="suspended"))
    trigger = {"type": "workflow", "workflow": "flow", "run": "w", "node": "c"}
    told = {"run_id": "w-c", "parents": {"a": {"v": 2}, "b": {"v": 2}}, "trigger": trigger}
    scene.rules.given(told)
    assert not scene.history.violations
    for wrong in ({"parents": {"a": {"v": 2}, "b": None}}, {"trigger": trigger | {"run": "x"}}):
        scene.rules.given(told | wrong)
    assert [one.rule for one in scene.history.violations] == [Rule.PARENTS] * 2


def test_a_workflow_does_not_end_before_its_last_node(scene: Scene) -> None:
    scene.both_complete()
    assert scene.commit(scene.change("w", state="completed", output="{}", finished_at=NOW)) == [Rule.WHOLE]


@pytest.mark.parametrize(
    ("end", "broken"),
    [
        ({"state": "completed", "output": '{"c": 3}'}, []),
        ({"state": "completed", "output": '{"c": 4}'}, [Rule.WHOLE]),
        ({"state": "failed", "error": '{"code": "node_failed", "node": "c", "run": "w-c"}'}, [Rule.WHOLE]),
        ({"state": "cancelled", "cancelled_by": "node"}, [Rule.WHOLE]),
    ],
)
def test_a_workflow_ends_as_its_nodes_have(end: dict[str, Any], broken: list[Rule]) -> None:
    scene = with_all_nodes()
    assert scene.commit(scene.change("w", finished_at=NOW, **end)) == broken


def test_a_workflow_whose_nodes_have_ended_must_end() -> None:
    assert with_all_nodes().late() == {Rule.WHOLE}


def test_what_follows_a_failure_does_not_follow_a_cancellation(scene: Scene) -> None:
    scene.history.cancels |= {"w-a"}
    scene.commit(scene.node("a"), scene.node("b", state="completed", output="1"))
    scene.commit(scene.change("w-a", state="cancelled", cancelled_by="request"))
    scene.commit(scene.node("c", state="cancelled", cancelled_by="node", reason="node a was cancelled"))
    assert scene.commit(scene.node("undo")) == [Rule.NODES]


@pytest.mark.parametrize(("redone", "broken"), [("c", []), ("abc", [Rule.AGAIN]), ("b", [Rule.AGAIN])])
def test_a_replay_runs_what_was_asked_for(redone: str, broken: list[Rule]) -> None:
    scene = with_all_nodes()
    scene.commit(scene.change("w", state="completed", output='{"c": 3}', finished_at=NOW))
    scene.history.redone["w"].append(["c"])
    again = scene.change("w", state="queued", output=None, finished_at=None)
    assert scene.commit(again, *(scene.change(f"w-{name}", node=None, was_node=name) for name in redone)) == broken


def test_a_parent_has_one_child_of_a_key(scene: Scene) -> None:
    scene.commit(scene.row("p", metadata='{"x": 1}'))
    like = {"child_key": "k", "metadata": json.dumps({"x": 1, "y": 2})}
    assert not scene.commit(scene.child("one", "p", **like))
    assert not scene.commit(scene.child("other", "p", **like | {"child_key": "l"}))
    assert scene.commit(scene.child("two", "p", **like)) == [Rule.CHILDREN]


@pytest.mark.parametrize("more", [{"root": "x"}, {"metadata": "{}"}])
def test_a_child_is_linked_to_its_parent_and_takes_after_it(scene: Scene, more: dict[str, Any]) -> None:
    scene.commit(scene.row("p", metadata='{"x": 1}'))
    assert scene.commit(scene.child("one", "p", **{"metadata": '{"x": 1}'} | more)) == [Rule.CHILDREN]


def test_with_a_run_its_children_are_cancelled(scene: Scene) -> None:
    scene.commit(*(scene.node(name) for name in "ab"), scene.row("p"), scene.child("one", "p", state="queued"))
    scene.history.cancels.add("p")
    assert not scene.commit(scene.change("p", state="cancelled", cancelled_by="request"))
    assert scene.late() == {Rule.CASCADE}
    assert scene.commit(scene.change("one", state="running", attempt=1)) == [Rule.CASCADE]
    assert scene.commit(scene.child("two", "p", state="queued")) == [Rule.CASCADE]
    taken = {"state": "cancelled", "cancelled_by": "parent", "reason": "parent cancelled: why"}
    assert not scene.commit(scene.change("one", **taken))


def test_nobody_is_cancelled_for_a_parent_that_is_not(scene: Scene) -> None:
    scene.commit(scene.row("p"), scene.child("one", "p", state="queued"))
    taken = {"state": "cancelled", "cancelled_by": "parent", "reason": "parent cancelled: why"}
    assert scene.commit(scene.change("one", **taken)) == [Rule.CASCADE]


@pytest.mark.parametrize(("by", "rule"), [("condition", Rule.WAITS), ("task", Rule.ANSWER), ("request", Rule.ASKED)])
def test_who_cancels_is_who_is_said_to(scene: Scene, by: str, rule: Rule) -> None:
    scene.commit(scene.node("a"), scene.node("b"))
    assert scene.commit(scene.change("w-a", state="cancelled", cancelled_by=by, reason="x")) == [rule]
