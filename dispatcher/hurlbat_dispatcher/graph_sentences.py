"""Sentences that say how far a workflow is, and what a node of it waits for."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hurlbat_dispatcher.domain.graph import Action, Graph
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.store.graphs import WaitRow
from hurlbat_dispatcher.store.workflows import NodeRow
from hurlbat_dispatcher.telling import rfc3339

MOST_NAMED: Final = 5
"""Nodes of a kind that are named; more are counted."""

Waits = Sequence[WaitRow]
"""The conditions of one run."""


def how_far(graph: Graph, reached: Mapping[str, NodeRow], waits: Mapping[str, Waits], unserved: Collection[str]) -> str:
    """Say how many nodes of a workflow have ended, and what the others do.

    `waits` is by the run of a node, `unserved` are tasks that no worker serves.
    """
    ended = [row for row in reached.values() if row.state in FINAL]
    count = len(graph.nodes) + sum(1 for node in graph.last if node.name in reached)
    said = [f"{len(ended)} of its {count} nodes {'has' if len(ended) == 1 else 'have'} ended."]
    by_state: dict[str, list[str]] = {}
    for name, row in reached.items():
        by_state.setdefault(row.state, []).append(name)
    for state, singular, plural in (
        (RunState.RUNNING, "runs", "run"),
        (RunState.QUEUED, "is queued", "are queued"),
    ):
        names = by_state.get(state, [])
        if names:
            said.append(f"{_listed(names)} {singular if len(names) == 1 else plural}.")
    nobodys = sorted({reached[name].task for name in by_state.get(RunState.QUEUED, ())} & set(unserved))
    if nobodys:
        said.append(f"No registered worker serves {_listed(nobodys)}.")
    waiting = by_state.get(RunState.SUSPENDED, [])
    said += [f"{name} {what_for(waits.get(reached[name].id, ()))}" for name in waiting[:MOST_NAMED]]
    if len(waiting) > MOST_NAMED:
        said.append(f"{len(waiting) - MOST_NAMED} more wait for their conditions.")
    left = len(graph.nodes) - sum(1 for name in graph.nodes if name in reached)
    if left:
        said.append(f"{left} {'comes' if left == 1 else 'come'} after these.")
    return " ".join(said)


def what_for(waits: Waits) -> str:
    """Say what a node waits for."""
    clauses = _open(waits)
    return f"waits for {', and '.join(map(_either, clauses))}." if clauses else "waits for its conditions."


def how_to_meet(waits: Waits) -> str:
    """Say what would let a node start."""
    clauses = _open(waits)
    events = any(row.key is not None for clause in clauses for row in clause)
    time = any(row.due_at is not None for clause in clauses for row in clause)
    return ("Time, and events" if time and events else "Time." if time else "Events") + (
        ": POST /events." if events else ""
    )


def opens_at(waits: Waits) -> int | None:
    """Return when a node starts by the passing of time alone (ms), or None where that is not enough."""
    times = []
    for clause in _open(waits):
        sleeps = [row.due_at for row in clause if row.due_at is not None]
        if not sleeps:
            return None
        times.append(min(sleeps))
    return max(times, default=None)


def _open(waits: Waits) -> list[list[WaitRow]]:
    """Return the groups of alternatives that must come true, and of which none has."""
    groups: dict[int, list[WaitRow]] = {}
    for row in waits:
        if row.action == Action.START:
            groups.setdefault(row.clause, []).append(row)
    return [rows for rows in groups.values() if all(row.met_at is None for row in rows)]


def _either(rows: Sequence[WaitRow]) -> str:
    return " or ".join(map(_condition, rows))


def _condition(row: WaitRow) -> str:
    if row.due_at is not None:
        return f"the time {rfc3339(row.due_at)}"
    scope = "" if row.scope is None else f" of the scope {row.scope}"
    narrowed = "" if row.expression is None else f" with {row.expression}"
    return f"the event {row.key}{scope}{narrowed}"


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:MOST_NAMED])
    if len(names) > MOST_NAMED:
        return f"{', '.join(shown)} and {len(names) - MOST_NAMED} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
