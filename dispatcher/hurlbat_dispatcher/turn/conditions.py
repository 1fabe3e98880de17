"""What nodes wait for: conditions are evaluated, remembered while they are open, and come true by events and time."""

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final

from hurlbat_dispatcher.domain.graph import Action, Condition, Node, Place
from hurlbat_dispatcher.domain.runs import DEFAULT_PRIORITY
from hurlbat_dispatcher.expressions import (
    EVENT_VARIABLES,
    GRAPH_VARIABLES,
    ExpressionError,
    as_bool,
    as_json,
    as_key,
    compile_expression,
)
from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.graphs import EventRow, WaitRow
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.ledger import Ledger

MOST: Final = 1_000
"""Sleeps that end in one turn, the rest in the next; and events that are read at a time."""
_DECODE: Final = json.JSONDecoder().decode

Known = dict[Place, bool]
"""Of conditions that are true, or never will be."""


def scope_of(row: RunRow, payload: tuple[str, str], outputs: Mapping[str, str]) -> dict[str, Any]:
    """Return the variables of a workflow's expressions. Raises `ExpressionError`."""
    try:
        return {
            "input": _DECODE(payload[0]),
            "metadata": _DECODE(payload[1]),
            "parents": {name: _DECODE(text) for name, text in outputs.items()},
            "run": {"id": row.id, "task": row.task, "priority": row.priority or DEFAULT_PRIORITY, "parent": row.parent},
        }
    except (ValueError, RecursionError):
        raise ExpressionError("the input or an output is no JSON that can be read") from None


def input_of(node: Node, scope: Mapping[str, Any]) -> str:
    """Return what the expression of a node's input gives, in JSON. Raises `ExpressionError`."""
    assert node.input is not None
    return as_json(compile_expression(node.input, GRAPH_VARIABLES).evaluate(scope))


def reads_outputs(node: Node) -> bool:
    """Tell whether an expression of a node reads what its workflow knows."""
    return node.input is not None or any(
        condition.scope_from is not None or (condition.expression is not None and condition.event is None)
        for _, clauses in node.clauses
        for clause in clauses
        for condition in clause
    )


def places_of(node: Node) -> list[tuple[Place, Condition]]:
    """Return all conditions of a node with their places."""
    return [
        (Place(action, n, place), condition)
        for action, clauses in node.clauses
        for n, clause in enumerate(clauses)
        for place, condition in enumerate(clause)
    ]


def begin_waits(
    ledger: Ledger, workflow: RunRow, node: Node, run_id: str, scope: Mapping[str, Any]
) -> Generator[Ask, Rows, tuple[Known, list[WaitRow]]]:
    """Evaluate the conditions of a node that was just reached, and return what is known, and what may be waited for.

    Events are looked for that have come already, those of this very turn among them. Raises `ExpressionError`.
    """
    known: Known = {}
    waits: list[WaitRow] = []
    for place, condition in places_of(node):
        event, met = None, False
        if condition.event is not None:
            condition = _of_its_scope(condition, scope)
            since = ledger.now if place.action is Action.START else workflow.created_at
            event = yield from _look_back(ledger, workflow.tenant, condition, since - condition.look_back)
            met = event is not None
        elif condition.sleep is None:
            assert condition.expression is not None
            met = as_bool(compile_expression(condition.expression, GRAPH_VARIABLES).evaluate(scope))
            if not met:
                known[place] = False
                continue
        if met:
            known[place] = True
        waits.append(_row(ledger.now, workflow, run_id, place, condition, met=met, event=event))
    return known, waits


def _of_its_scope(condition: Condition, scope: Mapping[str, Any]) -> Condition:
    """Return a condition with the scope that its expression gives. Raises `ExpressionError`."""
    if condition.scope_from is None:
        return condition
    value = as_key(compile_expression(condition.scope_from, GRAPH_VARIABLES).evaluate(scope))
    if not value:
        raise ExpressionError("scope_from gave no scope")
    return condition._replace(scope=value)


def _row(
    now: int, workflow: RunRow, run_id: str, place: Place, condition: Condition, *, met: bool, event: EventRow | None
) -> WaitRow:
    kind = "event" if condition.event is not None else "sleep" if condition.sleep is not None else "when"
    since = (now if place.action is Action.START else workflow.created_at) - condition.look_back
    return WaitRow(
        workflow.tenant,
        run_id,
        place.action.value,
        place.clause,
        place.place,
        kind,
        condition.event,
        condition.scope,
        condition.expression,
        since if kind == "event" else None,
        now + condition.sleep if condition.sleep is not None else None,
        now if met else None,
        None if event is None else event.id,
    )


def known_of(node: Node, waits: Iterable[WaitRow]) -> Known:
    """Return what is known of a node's conditions, given the rows of those that may come true."""
    found = {Place(Action(row.action), row.clause, row.place): row.met_at is not None for row in waits}
    known: Known = {}
    for place, _ in places_of(node):
        if found.get(place) is not False:  # what is open is not known; what was never kept is false for good
            known[place] = place in found
    return known


def _look_back(ledger: Ledger, tenant: int, condition: Condition, since: int) -> Generator[Ask, Rows, EventRow | None]:
    """Return the first event that makes a condition true, of those that are stored and of those of this turn."""
    key, scope, expression = condition.event or "", condition.scope, condition.expression
    most = 1 if expression is None else MOST
    place = (since, "")
    while True:
        events = yield from graphs.events_after(tenant, key, scope, place, most)
        for event in events:
            if fits(event, scope, expression, since):
                return event
        if len(events) < most:
            break
        place = (events[-1].created_at, events[-1].id)
    fresh = (event for event in published(ledger) if event.key == key)
    return next((event for event in fresh if fits(event, scope, expression, since)), None)


def published(ledger: Ledger) -> list[EventRow]:
    """Return the events that this turn stores."""
    return [
        EventRow(event.id, event.key, event.scope, event.payload, event.metadata, ledger.now) for event in ledger.events
    ]


def fits(event: EventRow, scope: str | None, expression: str | None, since: int) -> bool:
    """Tell whether an event of the right key makes a condition true. An expression that fails on it does not."""
    if event.created_at < since or (scope is not None and event.scope != scope):
        return False
    if expression is None:
        return True
    try:
        variables = {
            "input": _DECODE(event.payload),
            "metadata": _DECODE(event.metadata),
            "payload": {},
            "event": {"id": event.id, "key": event.key, "scope": event.scope},
        }
        return as_bool(compile_expression(expression, EVENT_VARIABLES).evaluate(variables))
    except (ExpressionError, ValueError, RecursionError):
        return False


def meet(
    ledger: Ledger, events: Sequence[EventRow], tenant: int, *, look: bool
) -> Generator[Ask, Rows, dict[str, None]]:
    """Let conditions come true by these events, and with `look` by the time; return the runs that waited for them."""
    met: dict[str, None] = {}
    keys = list(dict.fromkeys(event.key for event in events))
    scopes = list(dict.fromkeys(event.scope for event in events if event.scope is not None))
    for row in (yield from graphs.awaited(tenant, keys, scopes)) if keys else ():
        event = next(
            (one for one in events if one.key == row.key and fits(one, row.scope, row.expression, row.since or 0)), None
        )
        if event is not None:
            _met(ledger, row, event.id, met)
    if look:
        rows = yield graphs.DUE.fetch(ledger.now, MOST)
        for row in map(WaitRow._make, rows):
            _met(ledger, row, None, met)
        if len(rows) == MOST:
            ledger.wake_at(ledger.now)
    return met


def read_waits(ledger: Ledger, tenant: int, run_ids: Sequence[str]) -> Generator[Ask, Rows, None]:
    """Know what runs wait for, and what of it has come true, in this turn or before."""
    rows = yield graphs.WAITS.fetch(tenant, list(run_ids))
    changed = {values[2:]: values[:2] for values in ledger.met}
    for row in map(WaitRow._make, rows):
        if row[:5] in changed:
            met_at, event_id = changed[row[:5]]
            row = row._replace(met_at=met_at, event=event_id)
        ledger.waits.setdefault(row.run, []).append(row)


def _met(ledger: Ledger, row: WaitRow, event: str | None, met: dict[str, None]) -> None:
    ledger.met.append((ledger.now, event, *row[:5]))
    met[row.run] = None


def told(ledger: Ledger, tenant: int, node: Node, waits: Sequence[WaitRow]) -> Generator[Ask, Rows, list[str]]:
    """Return what let a node start, each condition in JSON, as its task is told."""
    came = [row for row in waits if row.action == Action.START and row.met_at is not None]
    ids = list(dict.fromkeys(row.event for row in came if row.event is not None))
    rows = (yield graphs.EVENTS.fetch(tenant, ids)) if ids else ()
    events = {row[0]: EventRow._make(row) for row in rows} | {event.id: event for event in published(ledger)}
    conditions = dict(places_of(node))
    found = []
    for row in came:
        condition = conditions[Place(Action(row.action), row.clause, row.place)]
        if row.event is not None:
            event = events.get(row.event)
            payload = "null" if event is None else event.payload
            said = json.dumps({"event": row.key, "id": row.event, "scope": None if event is None else event.scope})
            found.append(f'{said[:-1]},"payload":{payload}}}')
        elif condition.sleep is not None:
            found.append(json.dumps({"sleep": condition.sleep / 1000}))
        else:
            found.append(json.dumps({"expression": condition.expression}))
    return found


def forget(ledger: Ledger, tenant: int, run_id: str, actions: Iterable[Action] = tuple(Action)) -> None:
    """Let a run wait no longer for what these lists say."""
    ledger.waited += [(tenant, run_id, action.value) for action in actions]
