"""What each operation does to a run: the pure rules applied to its row, the changes put into the ledger."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hurlbat_dispatcher.backoff import clamp, wait_after
from hurlbat_dispatcher.domain.graph import to_do_again
from hurlbat_dispatcher.domain.lanes import Waiting
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunEvent, RunState, move
from hurlbat_dispatcher.domain.outcome import Cancelled, ErrorCode, Failed, PushedBack, Succeeded
from hurlbat_dispatcher.domain.runs import CANCEL_HOLD_MS, Backoff, CancelledBy, expiry, rank, was_charged
from hurlbat_dispatcher.domain.terms import RANKING
from hurlbat_dispatcher.domain.verdict import Verdict, judge
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound, Problem
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import CancelOrder, Ledger
from hurlbat_dispatcher.turn.operations import AttemptEnd

GAVE_IN = "cancelled by the task"
"""The reason of a run that its task has cancelled without saying why."""
DISPLACED = "concurrency"
"""The reason of a run that a concurrency rule cancelled."""
QUIET_AFTER = 100
"""Starts that were not charged are told one by one up to this many, then only every hundredth."""


def end_attempt(desk: Desk, ledger: Ledger, end: AttemptEnd, *, again: bool = False) -> Problem | None:
    """Apply the end of an attempt; an answer of any but the running attempt changes nothing but the record.

    `again`: it may be the very end that is stored already, and then it is not told a second time.
    """
    row = ledger.rows.get(end.run_id)
    if row is None:
        return NotFound("run_unknown", f"there is no run {end.run_id}")
    mark = f"{end.attempt}:{end.report}" if end.report else None
    if mark and row.report == mark:
        return None
    if row.state != RunState.RUNNING or row.attempt != end.attempt:
        return _late(desk, ledger, row, end, told=again and row.attempt == end.attempt)
    row = row if end.delivery is None else row._replace(delivery=end.delivery)
    task = desk.registry.tasks.get(row.task)
    backoff = wait_after(task.backoff if task else Backoff(), row.tries, desk.chance)
    verdict = judge(
        end.answer,
        tries=row.tries,
        max_attempts=row.max_attempts,
        backoff=backoff,
        free=row.attempt - row.tries,
        once=task is not None and task.max_attempts == 1 and row.tries >= row.max_attempts,
    )
    if verdict.event is RunEvent.PUT_BACK:
        _put_back(desk, ledger, row, verdict, mark)
    else:
        output = end.answer.output if isinstance(end.answer, Succeeded) else None
        error = error_json(verdict.failure) if verdict.failure else None
        reason, by = None, None
        if isinstance(end.answer, Cancelled):
            reason, by = end.answer.reason or GAVE_IN, CancelledBy.TASK
        finish(desk, ledger, row, verdict.event, output=output, error=error, reason=reason, report=mark, by=by)
    if not verdict.sent:
        ledger.unsent.add((row.id, row.attempt))
    desk.release(row.id, unsent=not verdict.sent)
    if isinstance(end.answer, Failed | PushedBack) and end.answer.rate_limit_key is not None:
        until = ledger.now + int((end.answer.retry_after or 0) * 1000)
        ledger.overrun.append((row.tenant, row.lane, end.answer.rate_limit_key, until))
    return None


def cancel(
    desk: Desk, ledger: Ledger, row: RunRow, reason: str, by: CancelledBy = CancelledBy.REQUEST
) -> Problem | None:
    """Cancel a run in whatever state; a running attempt keeps its slot until its worker confirms, or for a while.

    A workflow keeps what it draws on until its nodes have stopped.
    """
    if row.state in FINAL:
        if row.state == RunState.CANCELLED:
            if row.holds_until is not None and row.worker:  # which has not confirmed, and may not have been told
                ledger.cancels.append(_order(row, reason))
            return None
        return Conflict("run_finished", f"the run is {row.state} already", state=row.state)
    if row.state == RunState.RUNNING:
        holds_until = ledger.now + CANCEL_HOLD_MS
        ledger.wake_at(holds_until)
        finish(desk, ledger, row, RunEvent.CANCELLED, reason=reason, holds_until=holds_until, by=by)
        if row.worker:
            ledger.cancels.append(_order(row, reason))
    else:
        desk.forget_waiting(row)
        finish(desk, ledger, row, RunEvent.CANCELLED, reason=reason, by=by)
    return None


def displace(desk: Desk, ledger: Ledger, row: RunRow, detail: Mapping[str, Any]) -> None:
    """Cancel a run for a concurrency rule; one that has ended meanwhile stays as it is."""
    if row.state not in FINAL:
        ledger.note(row, "displaced", dict(detail))
        cancel(desk, ledger, row, DISPLACED, CancelledBy.CONCURRENCY)


def _order(row: RunRow, reason: str) -> CancelOrder:
    return CancelOrder(row.worker or "", row.id, row.attempt, reason, row.sender)


def replay(
    desk: Desk, ledger: Ledger, row: RunRow, nodes: Sequence[str] = (), *, everything: bool = False
) -> Problem | None:
    """Let a final run start again, with as many tries more as its task allows; its history stays.

    Of a workflow only some `nodes` run anew: see `domain.graph.to_do_again`.
    """
    if row.state not in FINAL:
        return Conflict(
            "run_not_finished", f"the run is {row.state}; only a finished run can be replayed", state=row.state
        )
    if row.holds_until is not None:
        return Conflict(
            "run_stopping", "the worker has not confirmed that the cancelled attempt stopped; try again in 5 s"
        )
    problem = _redo(ledger, row, nodes, everything=everything)
    if problem is not None:
        return problem
    task = desk.registry.tasks.get(row.task)
    more = task.max_attempts if task else 1
    move(RunState(row.state), RunEvent.REPLAYED)
    expires_at, _ = expiry(
        created_at=ledger.now,
        due_at=ledger.now,
        ttl_at=None,
        schedule_timeout=task.schedule_timeout if task else None,
        tries=row.tries,
    )
    finished_at, error = ledger.endings.get(row.id, (None, None))
    failure = {name: value for name, value in json.loads(error or "{}").items() if name in ("code", "type", "message")}
    ended = {"was": row.state, "finished_at": finished_at, "reason": row.reason} | failure | _sent_by(row)
    ended["max_attempts"] = row.max_attempts
    ledger.note(row, "replayed", ended | {"started_at": row.started_at, "worker": row.worker} | _due_first(row))
    ledger.replays.append(
        (row.tries + more, rank(ledger.now, row.priority), ledger.now, expires_at, row.tenant, row.id)
    )
    _changed(ledger, row, state=RunState.QUEUED)
    ledger.wake_at(ledger.now)
    ledger.queued = True
    return None


def _redo(ledger: Ledger, row: RunRow, nodes: Sequence[str], *, everything: bool) -> Problem | None:
    """Let the nodes of a workflow go that are to run anew."""
    node = row.node or row.was_node
    if node is not None:
        return Conflict(
            "run_is_node",
            f'the run is the node {node} of run {row.parent}; replay that from here: {{"from": ["{node}"]}}',
            parent=row.parent,
        )
    course = ledger.courses.get(row.id)
    if course is None:
        return None
    if any(node.state not in FINAL or node.holds_until is not None for node in course.nodes.values()):
        return Conflict("run_stopping", "nodes of the workflow have not stopped yet; try again in 5 s")
    unknown = [name for name in nodes if name not in course.graph.nodes]
    if unknown:
        known = ", ".join(list(course.graph.nodes)[:20])
        return Invalid("node_unknown", f"the workflow has no node {unknown[0]}; its nodes are {known}", field="from")
    again = to_do_again(course.graph, course.states, course.graph.nodes if everything else nodes)
    ledger.superseded += [(row.tenant, row.id, name) for name in course.nodes if name in again]
    return None


def move_run(desk: Desk, ledger: Ledger, row: RunRow, due_at: int | None, priority: int | None) -> Problem | None:
    """Let a run that waits for its time start at another (ms); one that is due, or was, cannot be moved."""
    if row.state != RunState.QUEUED:
        code = "run_running" if row.state == RunState.RUNNING else "run_finished"
        return Conflict(code, f"the run is {row.state}; only one that waits for its time can be moved", state=row.state)
    if row.ready or row.attempt or row.joined_at is not None or row.due_at <= ledger.now:
        return Conflict("run_due", "the run is due already; only one that waits for its time can be moved")
    due_at = max(ledger.now, row.due_at if due_at is None else due_at)
    priority = row.priority if priority is None else priority
    task = desk.registry.tasks.get(row.task)
    expires_at, _ = expiry(
        created_at=row.created_at,
        due_at=due_at,
        ttl_at=row.ttl_at,
        schedule_timeout=task.schedule_timeout if task else None,
        tries=row.tries,
    )
    ledger.moves.append((priority, rank(due_at, priority), due_at, expires_at, row.tenant, row.id))
    if due_at != row.due_at:
        ledger.note(row, "moved", {"due_at": due_at, "was_due_at": row.due_at})
    ledger.wake_at(due_at)
    ledger.wake_at(expires_at)
    ledger.queued = True
    _changed(ledger, row, state=RunState.QUEUED)
    return None


def is_over(ledger: Ledger, run_id: str) -> bool:
    """Tell whether a run that was loaded has ended, by its row or in this turn."""
    row = ledger.rows.get(run_id)
    return row is None or row.state in FINAL


def expire(desk: Desk, ledger: Ledger, row: RunRow) -> None:
    """End a run that did not start in time: cancelled by its `ttl`, or failed by its task's `schedule_timeout`."""
    desk.forget_waiting(row)
    if row.ttl_at is not None and row.ttl_at == row.expires_at and row.tries == 0:
        finish(desk, ledger, row, RunEvent.EXPIRED, reason="ttl: it did not start in time", by=CancelledBy.TTL)
    else:
        late = Failed(ErrorCode.SCHEDULE_TIMEOUT, "no attempt could start within schedule_timeout", retryable=False)
        finish(desk, ledger, row, RunEvent.TIMED_OUT, error=error_json(late), reason=str(ErrorCode.SCHEDULE_TIMEOUT))


def lose(desk: Desk, ledger: Ledger, row: RunRow) -> None:
    """Rescue an attempt whose lease ran out: charged, by the same path as any other failure."""
    task = desk.registry.tasks.get(row.task)
    if task and row.deadline_at is not None and ledger.now >= row.deadline_at:
        seconds = task.execution_timeout / 1000
        answer = Failed(ErrorCode.EXECUTION_TIMEOUT, f"it ran for longer than execution_timeout ({seconds:g} s)")
    elif row.lease_until is None:
        answer = Failed(ErrorCode.LEASE_EXPIRED, "the server that had sent it stopped; it may have run")
    else:
        answer = Failed(
            ErrorCode.LEASE_EXPIRED, "the worker was not heard of before its lease ran out; it may have run"
        )
    end_attempt(desk, ledger, AttemptEnd(row.id, row.attempt, answer))


def deadline_from(desk: Desk, now: int, row: RunRow, begun: int | None) -> int | None:
    """Return when the execution timeout of an attempt that goes on alone is over (ms), with a heartbeat's grace.

    `begun` is how long ago (ms) its handler began, where that is known; else it is taken to begin now.
    """
    task = desk.registry.tasks.get(row.task)
    return None if task is None else now - (begun or 0) + task.execution_timeout + desk.lease // 3


def error_json(failure: Failed) -> str:
    """Return what a run shows as its error."""
    shown: dict[str, Any] = {
        "code": failure.code,
        "type": failure.type or str(failure.code),
        "message": failure.message,
    }
    for name in ("stack", "raw"):
        value = getattr(failure, name)
        if value is not None:
            shown[name] = value
    text = json.dumps(shown)
    return text if failure.details is None else f'{text[:-1]}, "details": {failure.details}}}'


def _due_first(row: RunRow) -> dict[str, Any]:
    """Keep for the story when a run was due at first, if that was later than its submit."""
    return {"was_due_at": row.due_at} if row.attempt <= 1 and row.due_at > row.created_at else {}


def _sent_by(row: RunRow) -> dict[str, Any]:
    """Keep by what delivery an attempt was sent that is not the last one any more."""
    return {} if row.delivery is None else {"delivery": row.delivery}


def _put_back(desk: Desk, ledger: Ledger, row: RunRow, verdict: Verdict, mark: str | None) -> None:
    task = desk.registry.tasks.get(row.task)
    due_at = ledger.now + int(clamp(verdict.wait or 0.0) * 1000)
    since = max(due_at, (row.joined_at or 0) + 1)  # so that it can be told from one that never started
    started = verdict.charged or was_charged(row.rank, row.priority, row.joined_at)
    expires_at = row.expires_at  # a start that is not charged puts off nothing
    if verdict.charged:
        expires_at, _ = expiry(
            created_at=row.created_at,
            due_at=due_at,
            ttl_at=row.ttl_at,
            schedule_timeout=task.schedule_timeout if task else None,
            tries=row.tries,
        )
    failure = verdict.failure
    ledger.put_backs.append(
        (
            row.tries if verdict.charged else row.tries - 1,
            rank(since, row.priority) if verdict.charged else row.rank,  # what did not happen costs no place in line
            due_at,
            expires_at,
            row.started_at if started else None,
            error_json(failure) if failure else None,
            mark,
            row.tenant,
            row.id,
            row.attempt,
        )
    )
    free = row.attempt - row.tries
    if verdict.charged or free < QUIET_AFTER or free % QUIET_AFTER == 0:
        detail: dict[str, Any] = {"started_at": row.started_at, "worker": row.worker, "due_at": due_at}
        detail |= _due_first(row) | _sent_by(row)
        if failure is not None:
            detail |= {"code": failure.code, "type": failure.type, "message": failure.message}
        if verdict.note is not None:
            detail["message"] = verdict.note
        ledger.note(row, verdict.kind, detail)
    _changed(ledger, row, state=RunState.QUEUED)
    desk.picture.backed_off(row.id, started=started)
    ledger.wake_at(due_at)
    ledger.freed.append((row.id, row.attempt))
    if task is None or any(rule.strategy in RANKING for rule in task.flow.concurrency):
        ledger.back.append((row.id, row.attempt, started))
    ledger.queued = True


def finish(
    desk: Desk,
    ledger: Ledger,
    row: RunRow,
    event: RunEvent,
    *,
    output: str | None = None,
    error: str | None = None,
    reason: str | None = None,
    holds_until: int | None = None,
    report: str | None = None,
    by: CancelledBy | None = None,
) -> None:
    """End a run. `output` and `error` are raw JSON; until `holds_until` (ms) it keeps what it draws on."""
    state = move(RunState(row.state), event)
    ended = (state.value, ledger.now, output, error, reason, holds_until, report, by, row.delivery)
    ledger.ends.append((*ended, row.tenant, row.id, row.attempt))
    if row.idempotency_key is not None:
        ledger.ended_keys.append((row.tenant, row.id))
    ledger.rows[row.id] = row._replace(state=state, holds_until=holds_until)
    ledger.touched.add(row.id)
    desk.picture.ended(row.id)
    ledger.finished.append(row.id)
    if row.node is not None or state is RunState.CANCELLED:
        ledger.followed[row.id] = ledger.rows[row.id]
        ledger.outputs[row.id], ledger.errors[row.id] = output, error
    if state is RunState.FAILED:
        task = desk.registry.tasks.get(row.task)
        if task is not None and task.on_failure is not None:
            ledger.failures.append((row, error))
    if holds_until is None:
        ledger.freed.append((row.id, row.attempt))


def _late(desk: Desk, ledger: Ledger, row: RunRow, end: AttemptEnd, *, told: bool) -> Problem:
    if row.attempt == end.attempt and row.delivery is None:
        ledger.sent_by(row, end.delivery)
    if row.holds_until is not None and row.attempt == end.attempt:
        release(desk, ledger, row)
    outcome = "completed" if isinstance(end.answer, Succeeded) else getattr(end.answer, "code", "not_started")
    if not told:
        ledger.note(row, "late", {"outcome": str(outcome), "state": row.state}, attempt=end.attempt)
    return Conflict(
        "attempt_over", f"attempt {end.attempt} is not running; the answer changes nothing", state=row.state
    )


def release(desk: Desk, ledger: Ledger, row: RunRow) -> None:
    """Give back what a cancelled attempt still holds."""
    ledger.releases.append((row.tenant, row.id))
    ledger.freed.append((row.id, row.attempt))
    ledger.rows[row.id] = row._replace(holds_until=None)
    desk.release(row.id)
    if row.node is not None:
        ledger.stopped[row.id] = ledger.rows[row.id]


def waiting(row: RunRow) -> Waiting:
    """Return the run as it stands in its lane."""
    return Waiting(row.rank, row.id, row.priority)


def _changed(ledger: Ledger, row: RunRow, *, state: RunState) -> None:
    ledger.rows[row.id] = row._replace(state=state)
    ledger.touched.add(row.id)
