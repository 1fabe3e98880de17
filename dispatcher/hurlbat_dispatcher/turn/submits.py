"""Submissions become rows: keys that were used before are found, and what is due joins its lane."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from hurlbat_dispatcher.domain.gathering import GatherKind
from hurlbat_dispatcher.domain.lanes import Waiting
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import FOR_EVER, CancelledBy, Run, RunKind, expiry, rank
from hurlbat_dispatcher.errors import Conflict, Problem
from hurlbat_dispatcher.run_ids import unknown_parent
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import gathering
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.gathering import Gatherings
from hurlbat_dispatcher.turn.knowing import find_lanes
from hurlbat_dispatcher.turn.ledger import Ledger, Newcomer, Waiters
from hurlbat_dispatcher.turn.operations import Entry, Fire, Operation, Placed, Publish, Submit

Keys = dict[tuple[int, str, str], tuple[str, str, int | None]]
"""(tenant, task, key), as `Submission.key` says them → (run, digest, until)."""


@dataclass(slots=True)
class Intake:
    """What a turn knows of the runs that it takes in."""

    keys: Keys
    gatherings: Gatherings
    waiters: Waiters = field(default_factory=dict)


def entries_of(operations: Sequence[Operation]) -> list[Entry]:
    """Return all submissions that operations carry, those of events among them."""
    entries: list[Entry] = []
    for operation in operations:
        if isinstance(operation, Submit):
            entries += operation.entries
        elif isinstance(operation, Publish):
            entries += [start.entry for event in operation.events for start in event.starts if start.entry is not None]
    return entries


def parents_of(operation: Submit) -> list[str]:
    """Return the runs whose children are submitted: whether they may have any is seen once they are locked."""
    return [entry.submission.parent for entry in operation.entries if entry.submission.parent is not None]


def read_keys(entries: Sequence[Entry]) -> Generator[Ask, Rows, Keys]:
    """Read the keys that the submissions name."""
    wanted: dict[int, tuple[dict[str, None], dict[str, None]]] = {}
    for entry in entries:
        named = entry.submission.key
        if named is not None:
            tasks, keys = wanted.setdefault(entry.tenant, ({}, {}))
            tasks[named[0]] = None
            keys[named[1]] = None
    found: Keys = {}
    for tenant, (tasks, keys) in wanted.items():
        rows = yield runs.KEYS.fetch(tenant, list(tasks), list(keys))
        for task, name, run_id, digest, until, state in rows:
            found[tenant, task, name] = (run_id, digest, until if state is not None else 0)  # else its run is gone
    return found


def place_all(desk: Desk, ledger: Ledger, operation: Submit, intake: Intake) -> None:
    """Place each submission of an operation."""
    placed = [_orphaned(ledger, entry) or place(desk, ledger, entry, intake) for entry in operation.entries]
    ledger.submits.append((operation, placed))


def place_more(
    desk: Desk, ledger: Ledger, entries: Sequence[Entry], intake: Intake
) -> Generator[Ask, Rows, list[Placed | Problem]]:
    """Place runs that the turn itself has come upon."""
    yield from gathering.read_more(ledger, intake.gatherings, entries)
    yield from find_lanes(desk, entries, ledger.now)
    return [place(desk, ledger, entry, intake) for entry in entries]


def place(desk: Desk, ledger: Ledger, entry: Entry, intake: Intake) -> Placed | Problem:
    """Make a row of a submission, or find the run that has its key already."""
    known = _known(ledger, entry, intake.keys)
    if known is not None:
        return known
    lane_id = desk.lane_ids[entry.task.name, entry.lane].id
    if entry.gather is not None:
        absorbing = gathering.absorb(ledger, intake.gatherings, intake.waiters, entry, lane_id)
        if absorbing is not None:
            _keep_key(ledger, entry, intake, absorbing)
            return Placed(None, absorbing, created=False)
    _keep_key(ledger, entry, intake, entry.id)
    row = row_of(ledger.now, entry, lane_id)
    if entry.gather is not None:
        row = gathering.begin_with(intake.gatherings, row, entry, ledger.now)
    intake.waiters[row.id] = row
    if row.ready and desk.owns:
        lane, waiting = desk.lane(row.lane), Waiting(row.rank, row.id, row.priority)
        if lane.ranks:
            ledger.newcomers.append(Newcomer(row.id, row.lane, waiting))
        else:
            desk.picture.add(lane, waiting, ledger.now)
    elif row.ready:  # whoever took it in would like to send it
        intake.waiters[row.id] = row._replace(ready=0, joined_at=None, sender=desk.me)
    return Placed(None, row.id, created=True)


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
        ledger.reply(operation, shown[0] if isinstance(operation, Fire) else shown)


def _orphaned(ledger: Ledger, entry: Entry) -> Problem | None:
    """Refuse the child of a run that is gone, or was cancelled. Its row is locked: so nobody cancels it meanwhile."""
    parent = entry.submission.parent
    if parent is None:
        return None
    row = ledger.rows.get(parent)
    if row is None:
        return unknown_parent(parent)
    if row.state == RunState.CANCELLED:
        said = f"run {parent} was cancelled; it starts no children"
        return Conflict("parent_cancelled", said, run_id=parent)
    return None


def _known(ledger: Ledger, entry: Entry, keys: Keys) -> Placed | Problem | None:
    asked = entry.submission
    if asked.key is None:
        return None
    name = (entry.tenant, *asked.key)
    found = keys.get(name)
    if found is not None:
        run_id, digest, until = found
        if until is None or until > ledger.now:
            if digest == entry.digest:
                return Placed(None, run_id, created=False)
            said = f"the key {asked.idempotency_key!r} was used for run {run_id} with another body; use another key"
            if asked.child_key is not None:
                said = f"the child {asked.child_key!r} of run {asked.parent} is run {run_id}, which has another task,"
                said += " input, metadata or priority; use another child_key"
            return Conflict("idempotency_conflict", said, run_id=run_id)
        ledger.old_keys.append((*name, run_id))
    return None


def _keep_key(ledger: Ledger, entry: Entry, intake: Intake, run_id: str) -> None:
    """Let a submission's key name the run that it is, or that absorbed it."""
    asked = entry.submission
    if asked.key is None:
        return
    name = (entry.tenant, *asked.key)
    until: int | None = FOR_EVER
    if asked.idempotency_key is not None:
        until = None if asked.idempotency_ttl is None else ledger.now + max(1, int(asked.idempotency_ttl * 1000))
        if run_id != entry.id and not gathering.take_key(
            ledger, intake.gatherings, intake.waiters, run_id, asked.idempotency_key, until_its_end=until is None
        ):
            return
    intake.keys[name] = (run_id, entry.digest, until)
    ledger.new_keys.append((*name, run_id, entry.digest, until))


def row_of(now: int, entry: Entry, lane: int) -> NewRun:
    """Return the row of a submission that is a run of its own."""
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
        (RunKind.TASK if task.graph is None else RunKind.WORKFLOW).value,
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
        entry.root,
        None,
        asked.child_key,
        asked.trigger,
        f"[{asked.input}]" if task.gather is not None and task.gather.kind is GatherKind.BATCH else asked.input,
        asked.metadata,
        int(asked.awaited) or None,
    )


def accepted_run(row: NewRun, refused: str | None = None) -> Run:
    """Show a run that was just inserted, and perhaps cancelled at once for a reason."""
    state = RunState.RUNNING if row.attempt else RunState(row.state)  # a workflow that began has no attempts
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
        worker=row.worker or None,
        reason=refused,
        idempotency_key=row.idempotency_key,
        parent=row.parent,
        trigger=row.trigger,
        kind=RunKind(row.kind),
        root=row.root,
        node=row.node,
        task_version=row.task_version,
        child_key=row.child_key,
        cancelled_by=None if refused is None else CancelledBy.CONCURRENCY.value,
    )
