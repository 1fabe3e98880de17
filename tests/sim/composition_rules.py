"""Composition, held against what is committed: nodes, conditions, the ends of workflows, children and cancellation.

What ought to be is worked out by `graph_oracle`, from graphs in JSON and from rows, after every commit.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from hurlbat.graph import Graph
from tests.sim.composition_plan import INPUTS
from tests.sim.composition_rows import CompositionReader, Family, output_of
from tests.sim.graph_oracle import (
    WELL,
    Facts,
    Fate,
    fates,
    missing,
    node_of,
    outcome,
    sinks,
    standing,
    to_do_again,
)
from tests.sim.history import History, Rule
from tests.sim.plan import Plan
from tests.sim.rows import Change, Moment, Row
from tests.sim.rules import fired_again

Complaint = tuple[Rule, str]

SAME: Final = 2
"""Milliseconds by which two times of one transaction may differ."""
LATER: Final = 2_000
"""Milliseconds after which what could not be done in one turn has been done in another."""
EVER: Final = 10**13
"""Milliseconds within which any two times are."""
BADLY: Final = {"failed": "failed", "cancelled": "was cancelled"}
BORN_AS: Final[Mapping[str, Fate]] = {"suspended": "wait", "skipped": "skip", "failed": "fail"}


class CompositionRules:
    """Who belongs to whom, and what became of it. `rows` is what is committed now."""

    def __init__(self, connection: sqlite3.Connection, history: History, rows: Mapping[str, Row], plan: Plan) -> None:
        self._reader = CompositionReader(connection)
        self._family = Family(rows)
        self._history = history
        self._rows = rows
        self._plan = plan.composition
        self._shapes: dict[tuple[str, int], Mapping[str, Any]] = {}
        """The graph of each version of a workflow."""
        self._on = plan.composition.on
        self._flows = plan.flow.on  # and so a node may be refused that takes more units than there are
        self._outputs: dict[str, Mapping[str, Any]] = {}
        """What the parents of each node had put out when it was reached."""
        self._cancelled: set[str] = set()
        """Runs that were cancelled, and the owner of the lanes has heard of it."""
        self._owed: dict[tuple[str, str], tuple[int, bool]] = {}
        """What ought to have been done by the owner, since when (ms), and whether it was given a second time for it."""
        self._epoch = -1
        self._now = 0

    def committed(self, changes: Sequence[Change], moment: Moment) -> None:
        """Look at what a commit has changed."""
        if self._on:
            for what in self._complaints(changes, moment):
                self._history.broke(*what)

    def _complaints(self, changes: Sequence[Change], moment: Moment) -> Iterator[Complaint]:
        self._reader.read_events()
        self._now = moment.now
        redone: dict[str, list[Row]] = {}
        for change in changes:
            self._family.learn(change)
        for change in changes:
            before, after = change.before, change.after
            if after is None:
                continue
            if change.begins and self._is_over(after.parent) and not self._history.replays[after.id]:
                yield Rule.CASCADE, f"{after.id} started, and its parent {after.parent} is cancelled"
            if after.node is not None:
                yield from self._node(before, after, moment)
            elif before is not None and before.node is not None:
                if after.was_node != before.node:
                    yield Rule.AGAIN, f"the node {before.node} of {after.parent} is {after.was_node} now"
                redone.setdefault(after.parent or "", []).append(before)
            elif before is None and after.parent is not None:
                yield from self._child(after)
            if after.kind == "workflow" and before is not None:
                yield from self._workflow(before, after)
                if after.task_version != before.task_version:
                    yield Rule.WHOLE, f"{after.id} had version {before.task_version} and has {after.task_version}"
            if after.state == "cancelled" and (before is None or not before.final):
                yield from self._why(before, after)
        born = {change.after.id for change in changes if change.before is None and change.after is not None}
        for workflow, rows in redone.items():
            yield from self._again(self._rows[workflow], rows, born)
        yield from self._late(moment)

    def graph_of(self, workflow: Row) -> Mapping[str, Any]:
        """Return the graph that a workflow's run was submitted with, as it was declared."""
        name = workflow.task, workflow.task_version
        if name not in self._shapes:
            stored = Graph.model_validate_json(self._reader.shape(*name))
            declared = self._plan.declared(workflow.task)
            self._shapes[name] = next(graph for graph in declared if Graph.model_validate(graph) == stored)
        return self._shapes[name]

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def _node(self, before: Row | None, after: Row, moment: Moment) -> Iterator[Complaint]:
        workflow = self._rows[after.parent or ""]
        called = f"the node {after.node} of {workflow.id}"
        graph = self.graph_of(workflow)
        node = node_of(graph, after.node or "")
        if node is None:
            yield Rule.NODES, f"there is no node {after.node} in {workflow.task}, and {after.id} is one"
        elif before is None:
            yield from self._born(after, workflow, graph, node, moment)
        elif before.state == "suspended" != after.state:
            allowed = self._fates(after, node)
            if after.state == "queued" and "start" not in allowed:
                yield Rule.WAITS, f"{called} goes on, and ought to {allowed}"
            elif after.state == "skipped" and "skip" not in allowed:
                yield Rule.WAITS, f"{called} is skipped ({after.reason}), and ought to {allowed}"
            elif after.state not in ("queued", "skipped", "cancelled"):
                yield Rule.TABLE, f"{called} went from suspended to {after.state}"
        elif before.state != "suspended" == after.state or (after.state == "skipped" != before.state):
            yield Rule.TABLE, f"{called} went from {before.state} to {after.state}"

    def _born(
        self, after: Row, workflow: Row, graph: Mapping[str, Any], node: Mapping[str, Any], moment: Moment
    ) -> Iterator[Complaint]:
        called = f"the node {after.node} of {workflow.id}"
        others = self._family.nodes(workflow.id)
        states = {name: row.state for name, row in others.items() if name != after.node}
        if not moment.by_owner:
            yield Rule.OWNER, f"{moment.process} made {called} and does not own the lanes"
        if workflow.state != "running" and not (workflow.final and workflow.finished_at == after.created_at):
            yield Rule.NODES, f"{called} came to be, and that is {workflow.state}"
        if after.task != node.get("task", after.node) or after.root != (workflow.root or workflow.id):
            yield Rule.NODES, f"{called} is a {after.task} below {after.root}"
        told = after.final or after.metadata == workflow.metadata
        if not told or after.priority != workflow.priority:
            yield Rule.NODES, f"{called} has the metadata {after.metadata} and the priority {after.priority}"
        match standing(graph, states, after.node or ""):
            case "waits":
                yield Rule.NODES, f"{called} came to be as {after.state} while its parents are {states}"
            case "barred":
                bad = [f"node {name} {BADLY[states[name]]}" for name in node["parents"] if states.get(name) in BADLY]
                if (after.state, after.cancelled_by) != ("cancelled", "node") or after.reason not in bad:
                    yield Rule.NODES, f"{called} is {after.state} ({after.reason}), and must not be, by {bad}"
            case _:
                yield from self._reached(after, workflow, graph, node, others)

    def _reached(
        self,
        after: Row,
        workflow: Row,
        graph: Mapping[str, Any],
        node: Mapping[str, Any],
        others: Mapping[str, Row],
    ) -> Iterator[Complaint]:
        called = f"the node {after.node} of {workflow.id}"
        parents = node.get("parents", ())
        if node not in graph["nodes"]:
            parents = [one["name"] for one in graph["nodes"] if others[one["name"]].state in WELL]
        self._outputs[after.id] = {name: output_of(others[name]) for name in parents}
        allowed = self._fates(after, node)
        became: Fate = BORN_AS.get(after.state, "start")
        if (after.state, after.cancelled_by) == ("cancelled", "condition"):
            became = "cancel"
        refused = after.failure.get("code") == "node_refused" and self._flows and allowed & {"start", "wait"}
        if became not in allowed and not refused:
            yield Rule.WAITS, f"{called} is {after.state} ({after.reason}, {after.error}), and ought to {allowed}"
        if became == "fail":
            return
        wanted = json.loads(workflow.input)
        if "input" in node:
            wanted = INPUTS[node["input"]](wanted, self._outputs[after.id])
        if became == "start" and json.loads(after.input) != wanted:
            yield Rule.PARENTS, f"{called} has the input {after.input}, and ought to have {wanted}"

    def _fates(self, row: Row, node: Mapping[str, Any], *, later: int = 0) -> set[Fate]:
        """Return what may become of a node now, or so many ms later."""
        workflow = self._rows[row.parent or ""]
        slack = EVER if self._history.set_back else SAME
        facts = Facts(
            given=json.loads(workflow.input),
            parents=self._outputs[row.id],
            reached_at=row.created_at,
            created_at=workflow.created_at,
            now=self._now + later,
            events=self._reader.events,
            slack=slack,
        )
        return fates(node, facts)

    def given(self, run: Mapping[str, Any]) -> None:
        """Look at a run as it is delivered to a worker."""
        row = self._rows.get(run["run_id"])
        if row is None or row.node is None or row.kind != "node":
            return
        if run.get("parents") != self._outputs[row.id]:
            says = f"{run.get('parents')}, and not {self._outputs[row.id]}"
            self._history.broke(Rule.PARENTS, f"the node {row.node} of {row.parent} is given {says}")
        trigger = run.get("trigger") or {}
        wanted = {
            "type": "workflow",
            "workflow": self._rows[row.parent or ""].task,
            "run": row.parent,
            "node": row.node,
        }
        if {name: trigger.get(name) for name in wanted} != wanted:
            self._history.broke(Rule.PARENTS, f"the node {row.node} of {row.parent} is told {trigger}")

    # -- workflows -----------------------------------------------------------------------------------------------------

    def _workflow(self, before: Row, after: Row) -> Iterator[Complaint]:
        if before.final and after.state == "queued":
            return  # what is run again is seen of its nodes
        if not after.final or before.final or after.started_at is None:
            return  # one that never began has no nodes
        graph, nodes = self.graph_of(after), self._family.nodes(after.id)
        states = {name: row.state for name, row in nodes.items()}
        wanted = outcome(graph, states)
        if after.state == "cancelled" and after.cancelled_by != "node":
            return
        if wanted is None or missing(graph, states):
            yield Rule.WHOLE, f"{after.id} ended as {after.state}, and its nodes are {states}"
        elif wanted != after.state:
            yield Rule.WHOLE, f"{after.id} is {after.state} and ought to be {wanted}: {states}"
        elif after.state == "completed":
            put_out = {name: output_of(nodes[name]) for name in sinks(graph)}
            if json.loads(after.output or "null") != put_out:
                yield Rule.WHOLE, f"{after.id} put out {after.output}, and its nodes {put_out}"
        elif after.state == "failed":
            failure = after.failure
            culprit = nodes.get(failure.get("node", ""))
            handler = graph.get("on_success") or graph.get("on_failure") or {}
            bad = culprit is not None and (culprit.state == "failed" or culprit.node == handler.get("name"))
            if culprit is None or not bad or (failure["code"], failure["run"]) != ("node_failed", culprit.id):
                yield Rule.WHOLE, f"{after.id} failed with {failure}, and its nodes are {states}"

    def _again(self, workflow: Row, redone: Sequence[Row], born: AbstractSet[str]) -> Iterator[Complaint]:
        """Hold the nodes that are run again against what was asked for."""
        was = {name: row.state for name, row in self._family.nodes(workflow.id).items() if row.id not in born}
        was |= {row.node or "": row.state for row in redone}
        asked = self._history.redone[workflow.id]
        wanted = [to_do_again(self.graph_of(workflow), was, part) & was.keys() for part in asked]
        found = {row.node for row in redone}
        if found not in wanted:
            yield Rule.AGAIN, f"{found} of {workflow.id} are run again, and by {asked} of {was} that is {wanted}"
        if not all(row.final for row in redone):
            yield Rule.AGAIN, f"nodes of {workflow.id} are run again that have not ended: {redone}"

    # -- children and cancellation -------------------------------------------------------------------------------------

    def _child(self, after: Row) -> Iterator[Complaint]:
        parent = self._rows.get(after.parent or "")
        if parent is None:
            yield Rule.CHILDREN, f"{after.id} is a child of {after.parent}, which is not stored"
            return
        if self._is_over(parent.id):
            yield Rule.CASCADE, f"{after.id} was taken as a child of {parent.id}, which is cancelled"
        if after.root != (parent.root or parent.id):
            yield Rule.CHILDREN, f"{after.id} has the root {after.root}, and its parent {parent.root or parent.id}"
        if not json.loads(parent.metadata).items() <= json.loads(after.metadata).items():
            yield Rule.CHILDREN, f"{after.id} has the metadata {after.metadata}, and its parent {parent.metadata}"
        if after.child_key is not None:
            first = self._family.keys[parent.id, after.child_key]
            if first != after.id:
                yield Rule.CHILDREN, f"{after.id} and {first} are both the child {after.child_key} of {parent.id}"

    def _is_over(self, run_id: str | None) -> bool:
        """Tell whether a run is cancelled, and the owner of the lanes knew it before this commit."""
        return run_id in self._cancelled and self._rows[run_id or ""].state == "cancelled"

    def _why(self, before: Row | None, after: Row) -> Iterator[Complaint]:
        """Hold a cancellation against who is said to have done it."""
        match after.cancelled_by:
            case "parent":
                parent = self._rows.get(after.parent or "")
                known = parent is not None and (parent.state == "cancelled" or self._history.replays[parent.id])
                if not known or not (after.reason or "").startswith(("parent cancelled", "workflow cancelled")):
                    yield Rule.CASCADE, f"{after.id} was cancelled for {after.parent}, which is not: {after.reason}"
            case "condition":
                graph = self.graph_of(self._rows[after.parent or ""])
                allowed = self._fates(after, node_of(graph, after.node or "") or {})
                if "cancel" not in allowed:
                    yield Rule.WAITS, f"{after.id} was cancelled by {after.reason}, and ought to {allowed}"
            case "node":
                if before is not None and after.kind != "workflow":
                    yield Rule.NODES, f"{after.id} was {before.state} and cancelled for a node before it"
            case "task":
                reason = self._history.gave_in.get((after.id, after.attempt))
                if reason is None or reason != after.reason:
                    yield Rule.ANSWER, f"{after.id} was cancelled by itself ({after.reason}), and it said {reason}"
            case "request" if after.id not in self._history.cancels and not fired_again(after):
                yield Rule.ASKED, f"{after.id} is said to be cancelled on request, and nobody asked"

    # -- what must have been done --------------------------------------------------------------------------------------

    def _late(self, moment: Moment) -> Iterator[Complaint]:
        """Complain of what the owner has not done for long, though it has heard of everything."""
        if moment.epoch != self._epoch:
            self._epoch = moment.epoch
            self._owed.clear()
        if self._reader.unheard():
            self._owed.clear()
            return
        if not moment.by_living_owner:
            return
        self._cancelled = {row.id for row in self._rows.values() if row.state == "cancelled"}
        owed = dict(self.owed())
        self._owed = {what: self._owed.get(what, (moment.now, False)) for what in owed}
        for what, (since, again) in list(self._owed.items()):
            if moment.now > since + LATER and not self._history.set_back:
                self._owed[what] = (moment.now, True)  # it may have stood still until now: another time for it
                if again:
                    yield owed[what], f"{' '.join(what)} since {since}"

    def owed(self) -> Iterator[tuple[tuple[str, str], Rule]]:
        """Return what the rows call for and is not done."""
        for run_id in self._family.parents():
            parent = self._rows.get(run_id)
            if parent is None:
                continue
            if parent.state == "cancelled":
                for row in self._family.children(run_id):
                    if not row.final and not self._history.replays[row.id]:
                        yield (row.id, f"is {row.state} below the cancelled {run_id}"), Rule.CASCADE
        for row in self._rows.values():
            if row.kind == "workflow" and row.state == "running":
                yield from self._of_workflow(row)

    def _of_workflow(self, workflow: Row) -> Iterator[tuple[tuple[str, str], Rule]]:
        graph, nodes = self.graph_of(workflow), self._family.nodes(workflow.id)
        states = {name: row.state for name, row in nodes.items()}
        due = missing(graph, states)
        for name in due:
            yield (workflow.id, f"lacks its node {name}"), Rule.NODES
        if not due and outcome(graph, states) is not None:
            yield (workflow.id, f"goes on, and its nodes are {states}"), Rule.WHOLE
        for name, row in nodes.items():
            node = node_of(graph, name)
            if row.final or node is None or row.id not in self._outputs:
                continue
            allowed = self._fates(row, node)
            if allowed == {"cancel"} or (row.state == "suspended" and "wait" not in allowed):
                yield (row.id, f"the node {name} of {workflow.id} is {row.state} and ought to {allowed}"), Rule.WAITS

    def endless(self) -> list[str]:
        """Return the workflows that wait for nothing but events that do not come."""
        return [
            row.id
            for row in self._rows.values()
            if row.kind == "workflow" and row.state == "running" and self._is_endless(row)
        ]

    def _is_endless(self, workflow: Row) -> bool:
        alive = [row for row in self._family.nodes(workflow.id).values() if not row.final]
        return bool(alive) and all(row.state == "suspended" and not self._sleeps(row) for row in alive)

    def _sleeps(self, row: Row) -> bool:
        """Tell whether time alone will make a difference to a node."""
        node = node_of(self.graph_of(self._rows[row.parent or ""]), row.node or "") or {}
        return self._fates(row, node) != self._fates(row, node, later=EVER)
