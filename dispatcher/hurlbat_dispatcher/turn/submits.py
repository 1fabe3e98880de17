"""Submissions become rows: keys that were used before are found, and what is due joins its lane."""

from collections.abc import Generator, Sequence

from hurlbat_dispatcher.domain.lanes import Waiting
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, expiry, rank
from hurlbat_dispatcher.errors import Conflict, Problem
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger, Newcomer
from hurlbat_dispatcher.turn.operations import Entry, Operation, Placed, Submit

Keys = dict[tuple[int, str, str], tuple[str, str, int | None]]
"""(tenant, task, key) → (run, digest, until)."""
Waiters = dict[str, NewRun]
"""New runs of this turn that have not started, by id."""


def read_keys(operations: Sequence[Operation]) -> Generator[Ask, Rows, Keys]:
    """Read the idempotency keys that the submissions name."""
    wanted: dict[int, tuple[dict[str, None], dict[str, None]]] = {}
    for operation in operations:
        if isinstance(operation, Submit):
            for entry in operation.entries:
                key = entry.submission.idempotency_key
                if key is not None:
                    tasks, keys = wanted.setdefault(entry.tenant, ({}, {}))
                    tasks[entry.task.name] = None
                    keys[key] = None
    found: Keys = {}
    for tenant, (tasks, keys) in wanted.items():
        rows = yield runs.KEYS.fetch(tenant, list(tasks), list(keys))
        found.update(((tenant, row[0], row[1]), (row[2], row[3], row[4])) for row in rows)
    return found


def place(desk: Desk, ledger: Ledger, operation: Submit, keys: Keys, waiters: Waiters) -> None:
    """Make a row of each submission, or find the run that has its key already."""
    results: list[Placed | Problem] = []
    for entry in operation.entries:
        known = _known(ledger, entry, keys)
        if known is not None:
            results.append(known)
            continue
        row = _row(ledger.now, entry, desk.lane_ids[entry.task.name, entry.lane].id)
        waiters[row.id] = row
        results.append(Placed(None, row.id, created=True))
        if row.ready and desk.owns:
            lane, waiting = desk.lane(row.lane), Waiting(row.rank, row.id, row.priority)
            if lane.ranks:
                ledger.newcomers.append(Newcomer(row.id, row.lane, waiting))
            else:
                desk.picture.add(lane, waiting, ledger.now)
        elif row.ready:  # whoever took it in would like to send it
            waiters[row.id] = row._replace(ready=0, joined_at=None, sender=desk.me)
    ledger.submits.append((operation, results))


def answer_submits(ledger: Ledger) -> None:
    """Show each submission the run as it was stored: waiting, or started already."""
    if not ledger.submits:
        return
    stored = {row.id: row for row in ledger.inserts}
    for operation, results in ledger.submits:
        shown = [
            Placed(accepted_run(stored[result.run_id], ledger.refused.get(result.run_id)), result.run_id, created=True)
            if isinstance(result, Placed) and result.created
            else result
            for result in results
        ]
        ledger.reply(operation, shown)


def _known(ledger: Ledger, entry: Entry, keys: Keys) -> Placed | Problem | None:
    asked = entry.submission
    key = asked.idempotency_key
    if key is None:
        return None
    name = (entry.tenant, entry.task.name, key)
    found = keys.get(name)
    if found is not None:
        run_id, digest, until = found
        if until is None or until > ledger.now:
            if digest == entry.digest:
                return Placed(None, run_id, created=False)
            return Conflict(
                "idempotency_conflict",
                f"the key {key!r} was used for run {run_id} with another body; use another key",
                run_id=run_id,
            )
        ledger.old_keys.append((*name, run_id))
    until = None if asked.idempotency_ttl is None else ledger.now + max(1, int(asked.idempotency_ttl * 1000))
    keys[name] = (entry.id, entry.digest, until)
    ledger.new_keys.append((*name, entry.id, entry.digest, until))
    return None


def _row(now: int, entry: Entry, lane: int) -> NewRun:
    asked, task = entry.submission, entry.task
    due_at = now if asked.delay is None else now + int(asked.delay * 1000)
    if asked.run_at is not None:
        due_at = max(now, asked.run_at)
    priority = task.priority if asked.priority is None else asked.priority
    ttl_at = None if asked.ttl is None else now + int(asked.ttl * 1000)
    expires_at, _ = expiry(
        created_at=now, due_at=due_at, ttl_at=ttl_at, schedule_timeout=task.schedule_timeout, tries=0
    )
    return NewRun(
        entry.tenant,
        entry.id,
        task.name,
        task.version,
        lane,
        RunState.QUEUED.value,
        1 if due_at <= now else 0,
        0,
        0,
        task.max_attempts,
        priority,
        rank(due_at, priority),
        now if due_at <= now else None,
        now,
        due_at,
        None,
        ttl_at,
        expires_at,
        None,
        None,
        asked.idempotency_key,
        asked.parent,
        asked.trigger,
        asked.input,
        asked.metadata,
    )


def accepted_run(row: NewRun, refused: str | None = None) -> Run:
    """Show a run that was just inserted, and perhaps cancelled at once for a reason."""
    state = RunState.RUNNING if row.attempt else RunState.QUEUED
    return Run(
        row.id,
        row.task,
        state if refused is None else RunState.CANCELLED,
        row.attempt,
        row.tries,
        row.max_attempts,
        row.input,
        row.metadata,
        row.priority,
        row.created_at,
        row.due_at,
        started_at=row.started_at,
        expires_at=row.expires_at,
        finished_at=None if refused is None else row.created_at,
        worker=row.worker,
        reason=refused,
        idempotency_key=row.idempotency_key,
        parent=row.parent,
        trigger=row.trigger,
    )
