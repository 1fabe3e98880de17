"""Schedules fire: a due time becomes a run, once, in the transaction that moves the schedule on.

Only the owner of the lanes does this, and a due time that is stored already is not fired again, whatever became of
the schedule meanwhile.
"""

from collections.abc import Generator, Sequence
from typing import Final

import structlog

from hurlbat_dispatcher.crontab import CronInvalid, compile_cron
from hurlbat_dispatcher.domain.runs import Submission
from hurlbat_dispatcher.domain.schedules import LATE_MS, MAX_MISSED, FireOutcome, Missed, Overlap, judge
from hurlbat_dispatcher.domain.triggers import by_schedule
from hurlbat_dispatcher.entries import entry_of
from hurlbat_dispatcher.errors import NotFound, Problem
from hurlbat_dispatcher.store import firing
from hurlbat_dispatcher.store.firing import Fired, FiredSchedule
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.telling import rfc3339
from hurlbat_dispatcher.turn import decide
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Cancel, Entry, Fire, Placed
from hurlbat_dispatcher.turn.submits import Intake, place_more

log = structlog.get_logger("hurlbat.turn")

MOST_SCHEDULES: Final = 100
"""Schedules that one turn fires; the others come in the next, at once."""
MOST_LOOKED_AT: Final = 1_000
"""Due times, of all these schedules, that one turn looks at, about; the database waits for it meanwhile."""
UNKNOWN_MS: Final = 200
"""After which schedules are looked at again whose tasks this server does not know yet."""
MOST_TIMES: Final = 200
"""Due times of one schedule that one turn fires."""
MOST_LATE: Final = LATE_MS // 1000 + 2
"""Due times that may be late, the newest that was missed, and one before that."""


def fire_due(desk: Desk, ledger: Ledger, intake: Intake) -> Generator[Ask, Rows, None]:
    """Fire the schedules that are due."""
    now = ledger.now
    rows = list(map(FiredSchedule._make, (yield firing.DUE.fetch(now, MOST_SCHEDULES))))
    if any(row.task not in desk.registry.tasks for row in rows):
        # it was registered elsewhere, and is not heard of yet: its time is late by that, and not lost
        ledger.outdated = True
        desk.schedules_at = now + UNKNOWN_MS
        rows = [row for row in rows if row.task in desk.registry.tasks]
    if not rows:
        return
    times: dict[str, list[int] | None] = {}
    left = MOST_LOOKED_AT
    for row in rows:
        if left > 0:
            times[row.name] = some = _times(ledger, row)
            left -= 1 + len(some or ())
    asked = sorted({time for some in times.values() for time in some or ()})
    fired = yield firing.FIRED.fetch(DEFAULT_TENANT, [row.name for row in rows], asked)
    known = {(row[0], row[1]) for row in fired}
    for row in rows:
        some = times.get(row.name)
        if some is not None:
            yield from _fire(desk, ledger, intake, row, [time for time in some if (row.name, time) not in known])
    if len(rows) == MOST_SCHEDULES or len(times) < len(rows):
        ledger.wake_at(now)


def fire_now(desk: Desk, ledger: Ledger, intake: Intake, operation: Fire) -> Generator[Ask, Rows, None]:
    """Start a run of a schedule by hand; this changes nothing of its times."""
    rows = yield firing.BY_NAME.fetch(DEFAULT_TENANT, [operation.schedule])
    if not rows:
        ledger.reply(operation, NotFound("schedule_unknown", f"there is no schedule {operation.schedule}"))
        return
    row = FiredSchedule._make(rows[0])
    due_at = yield from _free(ledger, row)
    entry = _entry(desk, row, due_at, manual=True)
    if isinstance(entry, Problem):
        ledger.reply(operation, entry)
        return
    [placed] = yield from place_more(desk, ledger, [entry], intake)
    if isinstance(placed, Placed):
        ledger.fires.append(_fired(ledger, row, due_at, FireOutcome.STARTED, run=placed.run_id, manual=True))
        ledger.advances.append((row.next_at, None, placed.run_id, None, row.tenant, row.name))
        ledger.submits.append((operation, [placed]))
    else:
        ledger.reply(operation, placed)


def _free(ledger: Ledger, row: FiredSchedule) -> Generator[Ask, Rows, int]:
    """Return the time of a fire by hand: now, or the next ms that no other one has."""
    rows = yield firing.BY_HAND.fetch(row.tenant, row.name, ledger.now)
    taken = [fired.due_at for fired in ledger.fires if fired.schedule == row.name and fired.manual]
    last = max((time for time in (rows[0][0], *taken) if time is not None), default=None)
    return ledger.now if last is None else last + 1


def _times(ledger: Ledger, row: FiredSchedule) -> list[int] | None:
    """Return the due times that have come, oldest first; None for one that can fire no more, which is set to rest."""
    assert row.next_at is not None  # it is due
    if row.expression is None:
        return [row.next_at]
    most = MOST_LATE + (MAX_MISSED if row.missed == Missed.ALL else 0)
    try:
        return compile_cron(row.expression, row.timezone).between(row.next_at - 1, ledger.now, most)
    except CronInvalid as error:  # it was good when it was made: the time zones have changed
        log.error("a schedule can fire no more", schedule=row.name, problem=str(error))
        ledger.advances.append((None, None, None, str(error), row.tenant, row.name))
        return None


def _fire(
    desk: Desk, ledger: Ledger, intake: Intake, row: FiredSchedule, times: Sequence[int]
) -> Generator[Ask, Rows, None]:
    now = ledger.now
    due = judge(times, now, Missed(row.missed))
    if due.missed is not None:
        reason = "nobody was there for it, and for earlier ones perhaps" if row.missed != Missed.SKIP else "missed"
        ledger.fires.append(_fired(ledger, row, due.missed, FireOutcome.MISSED, reason=reason))
    wanted, rest = due.fired[:MOST_TIMES], due.fired[MOST_TIMES:]
    overlap = Overlap(row.overlap)
    if overlap is not Overlap.ALLOW and wanted:
        wanted = yield from _without_overlap(desk, ledger, row, wanted, overlap)
    problem, last_run = None, None
    for time in wanted:
        entry = _entry(desk, row, time, manual=False)
        [placed] = [entry] if isinstance(entry, Problem) else (yield from place_more(desk, ledger, [entry], intake))
        if isinstance(placed, Problem):
            problem = placed.detail
            ledger.fires.append(_fired(ledger, row, time, FireOutcome.FAILED, reason=problem))
        else:
            problem, last_run = None, placed.run_id
            ledger.fires.append(_fired(ledger, row, time, FireOutcome.STARTED, run=last_run))
    next_at = rest[0] if rest else _next(row, now)
    last_at = due.fired[:MOST_TIMES][-1] if due.fired else None
    ledger.advances.append((next_at, last_at, last_run, problem, row.tenant, row.name))
    ledger.wake_at(next_at)


def _without_overlap(
    desk: Desk, ledger: Ledger, row: FiredSchedule, wanted: Sequence[int], overlap: Overlap
) -> Generator[Ask, Rows, tuple[int, ...]]:
    """Return the one due time that is fired, if any: with `skip` none beside a run that is alive.

    With `cancel` the newest takes the place of all runs that are.
    """
    rows = yield firing.ALIVE.fetch(row.tenant, row.name, row.tenant)
    alive = [found[0] for found in rows]
    yield from ledger.load(row.tenant, [run_id for run_id in alive if run_id not in ledger.rows])
    alive = [run_id for run_id in alive if not decide.is_over(ledger, run_id)]
    begun = [fired.run for fired in ledger.fires if fired.schedule == row.name and fired.run is not None]
    if overlap is Overlap.SKIP:
        alive += begun
        kept = () if alive else tuple(wanted[:1])
        reason = f"run {alive[0]} was alive" if alive else "the one before was alive"
    else:
        kept = tuple(wanted[-1:])
        reason = "the next one took its place"
        for run_id in (*alive, *begun):
            said = f"schedule {row.name} fired again"
            if run_id in ledger.touched or run_id in begun:
                ledger.deferred.append(Cancel(run_id, said))
            else:
                decide.cancel(desk, ledger, ledger.rows[run_id], said)
    for time in wanted:
        if time not in kept:
            ledger.fires.append(_fired(ledger, row, time, FireOutcome.OVERLAP, reason=reason))
    return kept


def _entry(desk: Desk, row: FiredSchedule, time: int, *, manual: bool) -> Entry | Problem:
    submission = Submission(
        row.task,
        row.input,
        row.metadata,
        priority=row.priority,
        trigger=by_schedule(row.name, rfc3339(time), manual=manual),
    )
    task = desk.registry.tasks.get(row.task)
    if task is not None and not task.is_served and not manual:
        return NotFound("task_unserved", f"no registered worker serves the task {row.task}")
    try:
        return entry_of(desk.ids.new(), row.tenant, submission, desk.registry, None)
    except Problem as problem:
        return problem


def _next(row: FiredSchedule, now: int) -> int | None:
    return None if row.expression is None else compile_cron(row.expression, row.timezone).after(now)


def _fired(
    ledger: Ledger,
    row: FiredSchedule,
    due_at: int,
    outcome: FireOutcome,
    *,
    run: str | None = None,
    reason: str | None = None,
    manual: bool = False,
) -> Fired:
    return Fired(row.tenant, row.name, due_at, int(manual), ledger.now, outcome.value, run, reason)
