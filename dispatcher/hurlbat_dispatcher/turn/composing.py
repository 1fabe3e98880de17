"""Workflows go on: nodes are reached when their parents have ended, and what was cancelled takes along what it began.

Only the server that starts runs does this, in the turn that ends a node, so that no two decide on one workflow. What
other servers have ended and published comes to it as `news`, in the order of their commits.
"""

import json
from collections.abc import Generator, Sequence
from typing import Final

from hurlbat_dispatcher.domain.graph import Action, Fate, Node, decide, next_steps, outcome
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunEvent, RunState
from hurlbat_dispatcher.domain.runs import CancelledBy, RunKind, expiry, rank
from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.graphs import EventRow
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import conditions, courses, nodes
from hurlbat_dispatcher.turn import decide as decisions
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import AnyNode, Course, Ledger
from hurlbat_dispatcher.turn.submits import Intake

MOST: Final = 1_000
"""Children that one turn cancels, and rows of news that it reads; the rest comes in the next, at once."""
MOST_NODES: Final = 5_000
"""Runs that one turn makes before workflows that begin leave their nodes to the next."""
MAX_OUTPUT: Final = 4 << 20
"""Characters that the output of a workflow may have, in JSON."""


def compose(desk: Desk, ledger: Ledger, intake: Intake, *, look: bool) -> Generator[Ask, Rows, None]:
    """Do all that follows from what this turn has ended and published; with `look`, also what time and others bring."""
    if not desk.owns:
        _tell_owner(ledger)
        return
    events = conditions.published(ledger)
    if look:
        events += yield from _read_news(ledger)
    if events or look:
        ledger.woken |= yield from conditions.meet(ledger, events, DEFAULT_TENANT, look=look)
    if ledger.woken:
        woken = list(ledger.woken)
        for run_id in woken[MOST:]:
            _later(ledger, "woken", run_id)
        yield from _wake(desk, ledger, woken[:MOST])
    if ledger.begun:
        begun, ledger.begun = list(ledger.begun), {}
        yield from courses.read(desk, ledger, DEFAULT_TENANT, begun[:MOST])
        yield from _first_nodes(desk, ledger, intake, begun)
    yield from follow(desk, ledger, intake)


def follow(desk: Desk, ledger: Ledger, intake: Intake) -> Generator[Ask, Rows, None]:
    """Do what follows from ends, and what follows from that."""
    while ledger.followed or ledger.stopped or ledger.cancelled:
        yield from _let_go_of(desk, ledger)
        yield from _follow(desk, ledger, intake)


def begin(desk: Desk, ledger: Ledger, intake: Intake, run_ids: Sequence[str]) -> Generator[Ask, Rows, None]:
    """Let workflows begin that were admitted: they run, and their first nodes are reached."""
    stored = [run_id for run_id in run_ids if run_id not in intake.waiters]
    yield from ledger.load(DEFAULT_TENANT, sorted(run_id for run_id in stored if run_id not in ledger.rows))
    begun: list[str] = []
    payloads: dict[str, tuple[str, str]] = {}
    for run_id in run_ids:
        new = intake.waiters.pop(run_id, None)
        if new is not None:
            new = new._replace(state=RunState.RUNNING.value, ready=1, worker="", started_at=ledger.now, sender=None)
            ledger.inserts.append(new._replace(joined_at=new.joined_at or ledger.now))
            ledger.rows[run_id] = nodes.as_row(ledger.inserts[-1])
            payloads[run_id] = (new.input, new.metadata)
        else:
            row = ledger.rows.get(run_id)
            if row is None or run_id in ledger.touched or row.state != RunState.QUEUED or not row.ready:
                desk.release(run_id, unsent=True)  # cancelled in the meantime, here or by another server
                continue
            ledger.begins.append((ledger.now, ledger.now, row.tenant, row.id))
            ledger.rows[run_id] = row._replace(state=RunState.RUNNING.value, started_at=ledger.now, worker="")
        begun.append(run_id)
    begins_now = set(begun)
    ledger.readies = [values for values in ledger.readies if values[-1] not in begins_now]
    yield from courses.read(desk, ledger, DEFAULT_TENANT, begun)
    for run_id in begun:
        if run_id in payloads and run_id in ledger.courses:
            ledger.courses[run_id].payload = payloads[run_id]
    yield from _first_nodes(desk, ledger, intake, begun)
    yield from follow(desk, ledger, intake)


def _first_nodes(desk: Desk, ledger: Ledger, intake: Intake, begun: Sequence[str]) -> Generator[Ask, Rows, None]:
    """Reach the first nodes of workflows that run; where there are too many for one turn, the next goes on."""
    for n, run_id in enumerate(begun):
        row = ledger.rows.get(run_id)
        if row is None or row.state != RunState.RUNNING or run_id in ledger.touched:
            continue
        known = desk.registry.tasks.get(row.task)
        if known is not None and known.version < row.task_version:  # its tasks may be as new as the workflow
            ledger.outdated = True
            ledger.news[row.tenant, "begun", run_id] = None
            ledger.wake_at(ledger.now + 100)
        elif n >= MOST or len(ledger.inserts) + len(intake.waiters) > MOST_NODES:
            _later(ledger, "begun", run_id)
        else:
            yield from _advance(desk, ledger, intake, row, None)


def _tell_owner(ledger: Ledger) -> None:
    """Leave a word of what has ended and was published for the server that starts runs."""
    ledger.news |= {(row.tenant, "ended", row.id): None for row in ledger.followed.values()}
    ledger.news |= {(row.tenant, "stopped", row.id): None for row in ledger.stopped.values()}
    ledger.news |= {(event.tenant, "event", event.id): None for event in ledger.events}
    ledger.followed.clear()
    ledger.stopped.clear()
    ledger.queued = ledger.queued or bool(ledger.news)


def _later(ledger: Ledger, kind: str, run_id: str) -> None:
    """Have something looked at in the next turn, whoever does it."""
    ledger.news[DEFAULT_TENANT, kind, run_id] = None
    ledger.wake_at(ledger.now)


def _read_news(ledger: Ledger) -> Generator[Ask, Rows, list[EventRow]]:
    """Learn what other servers have ended, and return what they have published."""
    rows = yield graphs.UNSEEN.fetch(MOST)
    if not rows:
        return []
    told: dict[str, dict[str, None]] = {}
    for _, _, kind, subject in rows:
        told.setdefault(kind, {})[subject] = None
    events = list(told.pop("event", ()))
    ledger.woken |= told.pop("woken", {})
    ledger.begun |= told.get("begun", {})
    unknown = {run_id for ids in told.values() for run_id in ids if run_id not in ledger.rows}
    yield from ledger.load(DEFAULT_TENANT, sorted(unknown))
    for kind, into in (("ended", ledger.followed), ("stopped", ledger.stopped), ("cancel", ledger.cancelled)):
        into.update((run_id, ledger.rows[run_id]) for run_id in told.get(kind, ()) if run_id in ledger.rows)
    found = (yield graphs.EVENTS.fetch(DEFAULT_TENANT, events)) if events else ()
    ledger.old_news += [(row[0],) for row in rows]
    if len(rows) == MOST:
        ledger.wake_at(ledger.now)
    return list(map(EventRow._make, found))


# -- what has ended ----------------------------------------------------------------------------------------------------


def _follow(desk: Desk, ledger: Ledger, intake: Intake) -> Generator[Ask, Rows, None]:
    followed, ledger.followed = ledger.followed, {}
    ended: dict[str, dict[str, None]] = {}
    for row in followed.values():
        if row.node is not None and row.parent is not None:
            ended.setdefault(row.parent, {})[row.node] = None
    if ended:
        yield from ledger.load(DEFAULT_TENANT, sorted(run_id for run_id in ended if run_id not in ledger.rows))
        yield from courses.read(desk, ledger, DEFAULT_TENANT, ended)
    for run_id, names in ended.items():
        workflow, course = ledger.rows.get(run_id), ledger.courses.get(run_id)
        if workflow is None or course is None:
            continue
        for name in names:
            _forget_waits(ledger, workflow, course, name)
        if workflow.state == RunState.RUNNING:
            yield from _advance(desk, ledger, intake, workflow, list(names))
        else:
            _let_go(desk, ledger, workflow, course)
    cancelled, ledger.cancelled = list((followed | ledger.cancelled).values()), {}
    cancelled = [row for row in cancelled if ledger.rows.get(row.id, row).state == RunState.CANCELLED]
    if cancelled:
        yield from _take_along(desk, ledger, intake, cancelled)


def _forget_waits(ledger: Ledger, workflow: RunRow, course: Course, name: str) -> None:
    row = course.nodes.get(name)
    row = None if row is None else ledger.rows.get(row.id, row)
    if row is not None and row.state in FINAL and conditions.places_of(course.graph.node(name)):
        conditions.forget(ledger, workflow.tenant, row.id)


def _take_along(desk: Desk, ledger: Ledger, intake: Intake, cancelled: Sequence[RunRow]) -> Generator[Ask, Rows, None]:
    """Cancel the children of what was cancelled, and the nodes of workflows, as far as they have not ended."""
    reasons = {row.id: _why(ledger, row) for row in cancelled}
    rows = yield graphs.CHILDREN.fetch(DEFAULT_TENANT, sorted(reasons), MOST)
    if len(rows) == MOST:
        for run_id in sorted(reasons):
            _later(ledger, "cancel", run_id)
    ids = [row[0] for row in rows]
    yield from ledger.load(DEFAULT_TENANT, sorted(run_id for run_id in ids if run_id not in ledger.rows))
    for run_id in ids:
        row = ledger.rows.get(run_id)
        if row is None or row.parent is None:
            continue
        if run_id in ledger.touched:
            _later(ledger, "cancel", row.parent)
        elif row.state not in FINAL:
            decisions.cancel(desk, ledger, row, reasons[row.parent], CancelledBy.PARENT)
    for new in (*intake.waiters.values(), *ledger.inserts):  # made in this very turn
        if new.parent in reasons and ledger.rows.get(new.id, new).state not in FINAL:
            _later(ledger, "cancel", new.parent)
    for row in cancelled:
        yield from courses.read(desk, ledger, DEFAULT_TENANT, [row.id])
        course = ledger.courses.get(row.id)
        if course is not None:
            _let_go(desk, ledger, ledger.rows.get(row.id, row), course)


def _why(ledger: Ledger, row: RunRow) -> str:
    said = next((values[4] for values in reversed(ledger.ends) if values[-2] == row.id), row.reason)
    whose = "workflow" if row.kind == RunKind.WORKFLOW else "parent"
    return f"{whose} cancelled: {said}"[:256] if said else f"{whose} cancelled"


def _let_go_of(desk: Desk, ledger: Ledger) -> Generator[Ask, Rows, None]:
    """Look at the workflows of nodes that have stopped."""
    stopped, ledger.stopped = ledger.stopped, {}
    ids = sorted({row.parent for row in stopped.values() if row.parent is not None})
    yield from ledger.load(DEFAULT_TENANT, [run_id for run_id in ids if run_id not in ledger.rows])
    yield from courses.read(desk, ledger, DEFAULT_TENANT, ids)
    for run_id in ids:
        workflow, course = ledger.rows.get(run_id), ledger.courses.get(run_id)
        if workflow is not None and course is not None:
            _let_go(desk, ledger, workflow, course)


def _let_go(desk: Desk, ledger: Ledger, workflow: RunRow, course: Course) -> None:
    """Let a workflow that was cancelled give back what it draws on, once its nodes have stopped."""
    if workflow.holds_until is None:
        return
    courses.as_they_stand(ledger, course)
    if all(row.state in FINAL and row.holds_until is None for row in course.nodes.values()):
        decisions.release(desk, ledger, workflow)


# -- what comes next ---------------------------------------------------------------------------------------------------


def _advance(
    desk: Desk, ledger: Ledger, intake: Intake, workflow: RunRow, after: list[str] | None
) -> Generator[Ask, Rows, None]:
    """Let a workflow go on after nodes that have ended, or from wherever it stands; end it when there is no more."""
    course = ledger.courses.get(workflow.id)
    if course is None:
        return
    courses.as_they_stand(ledger, course)
    for name in after or ():
        _note(ledger, workflow, course.nodes[name])
    while True:
        steps = next_steps(course.graph, course.states, after)
        if not steps:
            break
        after = []
        for step in steps:
            if step.barred_by is not None:
                row = nodes.barred(desk, ledger, workflow, step.node, course.nodes[step.barred_by])
            else:
                row = yield from nodes.reach(desk, ledger, intake, workflow, course, step.node)
            course.nodes[step.node.name] = row
            _note(ledger, workflow, row)
            if row.state in FINAL:
                after.append(step.node.name)
                ledger.followed.pop(row.id, None)  # it is followed here
        if not after:
            break
    state = outcome(course.graph, course.states)
    if state is not None:
        yield from _end(desk, ledger, workflow, course, state)


def _note(ledger: Ledger, workflow: RunRow, row: AnyNode) -> None:
    """Tell of a node that did not simply run and end well."""
    if row.state not in (RunState.QUEUED, RunState.RUNNING, RunState.COMPLETED):
        ledger.note(workflow, "node", {"node": row.node, "state": str(row.state), "run": row.id})


def _end(desk: Desk, ledger: Ledger, workflow: RunRow, course: Course, state: RunState) -> Generator[Ask, Rows, None]:
    output, error, reason, by = None, None, None, None
    event = RunEvent.SUCCEEDED
    if state is RunState.COMPLETED:
        found = yield from courses.outputs_of(ledger, workflow.tenant, course, course.graph.sinks)
        output = "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in found.items()) + "}"
        if len(output) > MAX_OUTPUT:
            said = f"the outputs of its last nodes have {len(output)} characters, and a workflow's at most {MAX_OUTPUT}"
            event, output = RunEvent.GAVE_UP, None
            error = json.dumps({"code": "output_too_large", "type": "output_too_large", "message": said})
    elif state is RunState.FAILED:
        event = RunEvent.GAVE_UP
        failed = _first(course, RunState.FAILED) or _first(course, RunState.CANCELLED)
        assert failed is not None
        errors = yield from courses.errors_of(ledger, workflow.tenant, [failed.id])
        error = _error(failed, json.loads(errors.get(failed.id) or "{}"))
    else:
        event = RunEvent.CANCELLED
        node = _first(course, RunState.CANCELLED)
        reason, by = f"node {None if node is None else node.node} was cancelled", CancelledBy.NODE
    if workflow.id in ledger.touched:
        for row in list(course.nodes.values())[-1:]:
            _later(ledger, "ended", row.id)
        return
    decisions.finish(desk, ledger, workflow, event, output=output, error=error, reason=reason, by=by)
    desk.release(workflow.id)


def _first(course: Course, state: RunState) -> AnyNode | None:
    """Return the node that ended so first, but for those that were barred by others."""
    found = [row for row in course.nodes.values() if row.state == state]
    return min(found, key=lambda row: (row.lane == nodes.NO_LANE, row.id), default=None)


def _error(node: AnyNode, error: dict[str, object]) -> str:
    said = error.get("message")
    kind = error.get("type") or error.get("code") or "cancelled"
    return json.dumps(
        {
            "code": "node_failed",
            "type": kind,
            "message": f"node {node.node} {node.state}: {kind}" + (f": {said}" if said else ""),
            "node": node.node,
            "run": node.id,
        }
    )


# -- what came true ----------------------------------------------------------------------------------------------------


def _wake(desk: Desk, ledger: Ledger, ids: Sequence[str]) -> Generator[Ask, Rows, None]:
    """Look again at nodes of which conditions came true."""
    yield from conditions.read_waits(ledger, DEFAULT_TENANT, ids)
    yield from ledger.load(DEFAULT_TENANT, sorted(run_id for run_id in ids if run_id not in ledger.rows))
    rows = [ledger.rows[run_id] for run_id in ids if run_id in ledger.rows]
    parents = list(dict.fromkeys(row.parent for row in rows if row.parent is not None))
    yield from ledger.load(DEFAULT_TENANT, sorted(run_id for run_id in parents if run_id not in ledger.rows))
    yield from courses.read(desk, ledger, DEFAULT_TENANT, parents)
    for row in rows:
        course = ledger.courses.get(row.parent or "")
        workflow = ledger.rows.get(row.parent or "")
        if row.state in FINAL:
            conditions.forget(ledger, row.tenant, row.id)
        if row.state in FINAL or course is None or workflow is None or row.node is None:
            continue
        if row.id in ledger.touched:
            _later(ledger, "woken", row.id)
            continue
        node = course.graph.node(row.node)
        waits = ledger.waits.get(row.id, [])
        fate = decide(node, conditions.known_of(node, waits))
        if fate is Fate.CANCEL:
            decisions.cancel(desk, ledger, row, "cancel_if", CancelledBy.CONDITION)
        elif row.state != RunState.SUSPENDED:
            continue
        elif fate in (Fate.SKIP, Fate.NEVER):
            decisions.finish(desk, ledger, row, RunEvent.SKIPPED, reason=nodes.SKIPPED[fate])
        elif fate is Fate.START:
            yield from _resume(desk, ledger, workflow, course, row, node)


def _resume(
    desk: Desk, ledger: Ledger, workflow: RunRow, course: Course, row: RunRow, node: Node
) -> Generator[Ask, Rows, None]:
    """Let a node be due that has waited."""
    courses.as_they_stand(ledger, course)
    came = yield from conditions.told(ledger, row.tenant, node, ledger.waits.get(row.id, []))
    trigger = yield from nodes.trigger_of(ledger, workflow, course, node, came)
    task = desk.registry.tasks.get(row.task)
    expires_at, _ = expiry(
        created_at=row.created_at,
        due_at=ledger.now,
        ttl_at=row.ttl_at,
        schedule_timeout=task.schedule_timeout if task else None,
        tries=row.tries,
    )
    ledger.resumes.append((ledger.now, rank(ledger.now, row.priority), expires_at, trigger, row.tenant, row.id))
    ledger.rows[row.id] = row._replace(state=RunState.QUEUED.value, ready=0, due_at=ledger.now)
    ledger.touched.add(row.id)
    conditions.forget(ledger, row.tenant, row.id, (Action.START, Action.SKIP))
    ledger.wake_at(ledger.now)
    ledger.queued = True
