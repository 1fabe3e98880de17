"""What time brings: runs become due, waits and leases end, and the picture is read from the rows."""

from collections.abc import Generator

import structlog

from hurlbat_dispatcher.domain.flow import Lane, Picture, Waiting
from hurlbat_dispatcher.domain.runs import CANCEL_HOLD_MS
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement
from hurlbat_dispatcher.turn import decide
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.fence import fenced
from hurlbat_dispatcher.turn.ledger import Ledger

log = structlog.get_logger("hurlbat.turn")

LOOK_AGAIN_MS = 200
"""Before the next look at servers whose leases are just over."""
MOST = 1_000
"""Rows of a kind that one turn takes; the rest come in the next, at once."""


def tick(desk: Desk, ledger: Ledger, *, sweep: bool) -> Generator[Ask, Rows, None]:
    """Do what is due now, once in a turn; only the owner of the lanes does this. A `sweep` also recounts."""
    if not desk.owns:
        return
    now = ledger.now
    for row in (yield from _take(ledger, runs.EXPIRED, now, MOST)):
        decide.expire(desk, ledger, row)
    for row in (yield from _take(ledger, runs.LEASE_OVER, now, MOST)):
        decide.lose(desk, ledger, row)
    if (sweep or (desk.orphans_at is not None and now >= desk.orphans_at)) and not desk.doubts_leases:
        for row in (yield from _take(ledger, runs.ORPHANED, desk.me, MOST)):
            decide.lose(desk, ledger, row)
    if sweep:
        yield from _recount(desk, ledger)
    holds = yield runs.HOLD_OVER.fetch(now, MOST)
    for tenant, run_id in holds:
        ledger.releases.append((tenant, run_id))
        desk.release(run_id)
    for row in (yield from _take(ledger, runs.DUE, now, MOST)):
        desk.release(row.id)  # what another server put back, and was not heard to
        lane = desk.lane(row.lane, row.task)
        desk.picture.add(lane, decide.waiting(row), now)
        ledger.readies.append((row.tenant, row.id))
        ledger.rows[row.id] = row._replace(ready=1)


def leap(desk: Desk) -> Generator[Ask, Rows, None]:
    """Move along what is counted from a moment, when the database's clock was set ahead: no lease is over by that.

    The owner of the lanes does it for all.
    """
    by, desk.leap = desk.leap, 0
    if not desk.owns:
        return
    log.warning("the database's clock was set ahead; leases are moved along with it", seconds=by / 1000)
    yield runs.MOVE_LEASES.write([(by, desk.last_now + desk.lease, by)])
    yield runs.MOVE_HOLDS.write([(by, desk.last_now + CANCEL_HOLD_MS)])


def next_moment(desk: Desk, ledger: Ledger) -> Generator[Ask, Rows, None]:
    """Learn when something is due next, after everything of this turn was written."""
    if desk.owns:
        rows = yield runs.NEXT_MOMENT.fetch(desk.me)
        *moments, others_live = rows[0]
        desk.orphans_at = None if others_live is None else ledger.now + max(LOOK_AGAIN_MS, others_live)
        for moment in (*moments, desk.orphans_at):
            ledger.wake_at(moment)


def _take(ledger: Ledger, statement: Statement, *values: object) -> Generator[Ask, Rows, list[RunRow]]:
    rows = yield statement.fetch(*values)
    taken = [row for row in map(RunRow._make, rows) if row.id not in ledger.touched | ledger.renewed]
    for row in taken:
        ledger.rows.setdefault(row.id, row)
    return taken


def rebuild(desk: Desk) -> Generator[Ask, Rows, None]:
    """Make the picture anew from the rows: what is in flight, and the heads of every lane.

    Raises `NotOwner`. The lanes are held as in a turn: a commit that was given up and takes place all the same is seen.
    """
    now = (yield from fenced(desk)) if desk.owns else desk.tell_time((yield from runs.database_now()))
    known = desk.picture
    desk.picture = Picture(known.horizon)
    desk.refresh(now)
    for name, slots in known.slots.items():
        fresh = desk.picture.slots.get(name)
        if fresh is not None:
            fresh.window, fresh.not_before = slots.window, slots.not_before
            fresh.probing, fresh.failures = slots.probing, slots.failures
            if fresh.not_before > now:
                desk.picture.shut(fresh)
    yield from _recount(desk)
    for name, slots in known.slots.items():
        if name in desk.picture.slots:
            desk.picture.slots[name].probes = {run_id for run_id in slots.probes if run_id in desk.picture.running}
    for lane in list(desk.picture.lanes.values()):
        yield from read_heads(desk, lane, *runs.BEFORE_ALL)


def read_heads(desk: Desk, lane: Lane, rank: int, run_id: str) -> Generator[Ask, Rows, None]:
    """Read the next runs of a lane into the picture."""
    most = desk.picture.horizon
    rows = yield runs.HEADS.fetch(lane.id, rank, run_id, most)
    desk.picture.refill(lane, [Waiting(row[0], row[1], row[2]) for row in rows], more=len(rows) == most)


def _recount(desk: Desk, ledger: Ledger | None = None) -> Generator[Ask, Rows, None]:
    """Set what is in flight to what the rows say; this finds what other servers ended without being heard.

    What the turn itself has changed is not in the rows yet: there the picture knows better.
    """
    running = yield runs.IN_FLIGHT.fetch()
    held = yield runs.IN_HOLD.fetch()
    there = {row[0]: row[1:] for row in (*running, *held)}
    for run_id in [run_id for run_id in desk.picture.running if run_id not in there]:
        desk.release(run_id)
    decided = ledger.touched.union(values[-1] for values in ledger.releases) if ledger else ()
    for run_id, (worker, attempt, sender) in there.items():
        slots = desk.picture.slots.get(worker)
        if slots is not None and run_id not in decided:
            desk.picture.occupy(run_id, slots, attempt, sender)
