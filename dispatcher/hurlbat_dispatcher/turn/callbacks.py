"""When a run has finally failed, the task that its own task names for that runs: stored with the failure itself."""

import json
from collections.abc import Generator
from typing import NamedTuple

from hurlbat_dispatcher.domain.runs import Submission, Task
from hurlbat_dispatcher.domain.triggers import by_failure, is_failure
from hurlbat_dispatcher.entries import entry_of
from hurlbat_dispatcher.errors import Problem
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.telling import rfc3339
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Entry
from hurlbat_dispatcher.turn.submits import Intake, place_more


class _Failed(NamedTuple):
    input: str
    metadata: str
    trigger: str | None


def call(desk: Desk, ledger: Ledger, intake: Intake) -> Generator[Ask, Rows, None]:
    """Place a run for each failure of this turn whose task names another for it; its own failure will call none."""
    named = [(row, error, desk.registry.tasks[row.task]) for row, error in ledger.failures]
    ledger.failures = []
    ids = {row.id for row, _, _ in named}
    found = yield runs.FAILED.fetch(DEFAULT_TENANT, sorted(ids))
    stored = {row[0]: _Failed._make(row[1:]) for row in found}
    for new in ledger.inserts:  # nodes that were made in this turn, and failed at once
        if new.id in ids:
            stored[new.id] = _Failed(new.input, new.metadata, new.trigger)
    for row, error, task in named:
        failed = stored.get(row.id)
        if failed is None or is_failure(failed.trigger):
            continue
        entry = _entry(desk, ledger, row, failed, error, task)
        [placed] = [entry] if isinstance(entry, Problem) else (yield from place_more(desk, ledger, [entry], intake))
        if isinstance(placed, Problem):
            ledger.note(row, "callback_failed", {"task": task.on_failure, "message": placed.detail})
        else:
            ledger.note(row, "callback", {"task": task.on_failure, "run": placed.run_id})


def _entry(desk: Desk, ledger: Ledger, row: RunRow, failed: _Failed, error: str | None, task: Task) -> Entry | Problem:
    told = (
        f'{{"run":{{"id":"{row.id}","task":{json.dumps(row.task)},"input":{failed.input},"metadata":{failed.metadata},'
        f'"error":{error or "null"},"tries":{row.tries},"finished_at":"{rfc3339(ledger.now)}"}}}}'
    )
    submission = Submission(task.on_failure or "", told, failed.metadata, trigger=by_failure(row.id, row.task))
    try:
        return entry_of(desk.ids.new(), row.tenant, submission, desk.registry, row.worker)
    except Problem as problem:
        return problem
