"""Nodes of workflows become runs: queued when they are reached, suspended while they wait, or ended at once."""

import json
from collections.abc import Generator, Sequence
from typing import Any, Final

from hurlbat_dispatcher.domain.graph import WELL, Action, Fate, Node, decide
from hurlbat_dispatcher.domain.lifecycle import RunEvent, RunState
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed
from hurlbat_dispatcher.domain.runs import CancelledBy, RunKind, Submission, rank
from hurlbat_dispatcher.domain.triggers import by_workflow
from hurlbat_dispatcher.entries import entry_of
from hurlbat_dispatcher.errors import Problem
from hurlbat_dispatcher.expressions import ExpressionError
from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.runs import NewRun, RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import conditions, courses, submits
from hurlbat_dispatcher.turn import decide as decisions
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.knowing import find_lanes
from hurlbat_dispatcher.turn.ledger import AnyNode, Course, Ledger
from hurlbat_dispatcher.turn.submits import Intake, place

NO_LANE: Final = 0
"""Of nodes that never stood in one."""
MAX_OUTPUTS: Final = 4 << 20
"""Characters that the outputs of a node's parents may have together."""
FEW: Final = 4
"""So many outputs are never too large together."""
SKIPPED: Final = {Fate.SKIP: "skip_if", Fate.NEVER: "wait_for can never come true"}


def as_row(new: NewRun) -> RunRow:
    """Return a new run as a turn sees those that are stored."""
    known = new._asdict()
    return RunRow._make(known.get(name) for name in RunRow._fields)


def barred(desk: Desk, ledger: Ledger, workflow: RunRow, node: Node, parent: AnyNode) -> RunRow:
    """Make the run of a node that is never reached, as a parent of it did not end well."""
    said = "was cancelled" if parent.state == RunState.CANCELLED else "failed"
    row = _over(desk, ledger, workflow, node, trigger=None)
    return _ended(desk, ledger, row, RunEvent.CANCELLED, reason=f"node {parent.node} {said}", by=CancelledBy.NODE)


def reach(
    desk: Desk, ledger: Ledger, intake: Intake, workflow: RunRow, course: Course, node: Node
) -> Generator[Ask, Rows, RunRow]:
    """Make the run of a node whose parents have all ended well, as its conditions want it."""
    payload = yield from courses.payload_of(workflow, course)
    run_id = desk.ids.new()
    try:
        scope: dict[str, Any] = {}
        if conditions.reads_outputs(node):
            outputs = yield from courses.outputs_of(ledger, workflow.tenant, course, _well(course, node))
            scope = conditions.scope_of(workflow, payload, outputs)
        known, waits = yield from conditions.begin_waits(ledger, workflow, node, run_id, scope)
        given = payload[0] if node.input is None else conditions.input_of(node, scope)
    except ExpressionError as error:
        said = f"a condition or the input of node {node.name}: {error.sentence}"
        return _failed(desk, ledger, workflow, node, ErrorCode.EXPRESSION_FAILED, said)
    fate = decide(node, known)
    if fate is Fate.CANCEL:
        row = _over(desk, ledger, workflow, node, trigger=None)
        return _ended(desk, ledger, row, RunEvent.CANCELLED, reason="cancel_if", by=CancelledBy.CONDITION)
    if fate in SKIPPED:
        row = _over(desk, ledger, workflow, node, trigger=None)
        return _ended(desk, ledger, row, RunEvent.SKIPPED, reason=SKIPPED[fate])
    size = yield from _size(ledger, workflow.tenant, course, node)
    if size > MAX_OUTPUTS:
        said = f"the outputs of its parents have {size} characters; a node takes at most {MAX_OUTPUTS}"
        return _failed(desk, ledger, workflow, node, ErrorCode.PARENTS_TOO_LARGE, said)
    came = (yield from conditions.told(ledger, workflow.tenant, node, waits)) if fate is Fate.START else []
    trigger = yield from trigger_of(ledger, workflow, course, node, came)
    submission = Submission(
        node.task,
        given,
        payload[1],
        workflow.priority,
        parent=workflow.id,
        trigger=trigger,
    )
    try:
        entry = entry_of(run_id, workflow.tenant, submission, desk.registry, _worker_of(course, node))
    except Problem as problem:
        return _failed(desk, ledger, workflow, node, ErrorCode.NODE_REFUSED, problem.detail)
    entry = entry._replace(gather=None, root=workflow.root or workflow.id)
    yield from find_lanes(desk, [entry], ledger.now)
    kind = RunKind.NODE if entry.task.graph is None else RunKind.WORKFLOW
    kept = [one for one in waits if fate is Fate.WAIT or one.action == Action.CANCEL]
    ledger.new_waits += kept
    for one in kept:
        if one.met_at is None:
            ledger.wake_at(one.due_at)
    if fate is Fate.WAIT:
        new = submits.row_of(ledger.now, entry, desk.lane_ids[entry.task.name, entry.lane].id)._replace(
            kind=kind.value, node=node.name, state=RunState.SUSPENDED.value, ready=0, joined_at=None, expires_at=None
        )
        ledger.inserts.append(new)
    else:
        place(desk, ledger, entry, intake)
        new = intake.waiters[run_id] = intake.waiters[run_id]._replace(kind=kind.value, node=node.name)
    ledger.rows[run_id] = as_row(new)
    return ledger.rows[run_id]


def trigger_of(
    ledger: Ledger, workflow: RunRow, course: Course, node: Node, came: Sequence[str]
) -> Generator[Ask, Rows, str]:
    """Return what is told to a node of where it stands: its workflow, its parents, and what it has waited for.

    One that follows the end of all others has these for its parents, with the errors of those that failed.
    """
    rows = [course.nodes[name] for name in _parents(course, node) if name in course.nodes]
    failed = [row.id for row in rows if row.state == RunState.FAILED]
    errors = (yield from courses.errors_of(ledger, workflow.tenant, failed)) if failed else {}
    parents: dict[str, dict[str, Any]] = {}
    for row in rows:
        parents[row.node or ""] = {"run": row.id, "state": str(row.state)}
        error = json.loads(errors.get(row.id) or "{}")
        if error:
            parents[row.node or ""]["error"] = {name: error.get(name) for name in ("code", "type", "message")}
    return by_workflow(workflow.id, workflow.task, node.name, json.dumps(parents), f"[{','.join(came)}]")


def _parents(course: Course, node: Node) -> Sequence[str]:
    """Return the parents of a node; of one that follows the end of all others, these."""
    return node.parents if node.name in course.graph.nodes else list(course.graph.nodes)


def _well(course: Course, node: Node) -> list[str]:
    """Return the parents of a node that have ended well."""
    return [name for name in _parents(course, node) if name in course.nodes and course.nodes[name].state in WELL]


def _worker_of(course: Course, node: Node) -> str | None:
    """Return the worker that a sticky node would like to go to."""
    workers = (course.nodes[name].worker for name in node.parents if name in course.nodes)
    return next((worker for worker in workers if worker), None)


def _size(ledger: Ledger, tenant: int, course: Course, node: Node) -> Generator[Ask, Rows, int]:
    ids = [course.nodes[name].id for name in _well(course, node)]
    if len(ids) <= FEW:
        return 0
    stored = [run_id for run_id in ids if run_id not in ledger.outputs]
    rows = (yield graphs.SIZES.fetch(tenant, stored)) if stored else ()
    fresh = sum(len(ledger.outputs[run_id] or "") for run_id in ids if run_id in ledger.outputs)
    return fresh + sum(row[0] or 0 for row in rows)


def _over(desk: Desk, ledger: Ledger, workflow: RunRow, node: Node, *, trigger: str | None) -> RunRow:
    """Insert the run of a node that is to end at once."""
    task = desk.registry.tasks.get(node.task)
    new = NewRun(
        tenant=workflow.tenant,
        id=desk.ids.new(),
        kind=(RunKind.NODE if task is None or task.graph is None else RunKind.WORKFLOW).value,
        task=node.task,
        task_version=0 if task is None else task.version,
        lane=NO_LANE,
        state=RunState.QUEUED.value,
        ready=0,
        attempt=0,
        tries=0,
        max_attempts=1 if task is None else task.max_attempts,
        priority=workflow.priority,
        rank=rank(ledger.now, workflow.priority),
        joined_at=None,
        created_at=ledger.now,
        due_at=ledger.now,
        started_at=None,
        ttl_at=None,
        expires_at=None,
        worker=None,
        sender=None,
        idempotency_key=None,
        parent=workflow.id,
        root=workflow.root or workflow.id,
        node=node.name,
        child_key=None,
        trigger=trigger,
        input="null",
        metadata="{}",
    )
    ledger.inserts.append(new)
    return as_row(new)


def _failed(desk: Desk, ledger: Ledger, workflow: RunRow, node: Node, code: ErrorCode, said: str) -> RunRow:
    row = _over(desk, ledger, workflow, node, trigger=None)
    error = decisions.error_json(Failed(code, said, retryable=False))
    return _ended(desk, ledger, row, RunEvent.GAVE_UP, error=error)


def _ended(
    desk: Desk,
    ledger: Ledger,
    row: RunRow,
    event: RunEvent,
    *,
    error: str | None = None,
    reason: str | None = None,
    by: CancelledBy | None = None,
) -> RunRow:
    decisions.finish(desk, ledger, row, event, error=error, reason=reason, by=by)
    return ledger.rows[row.id]
