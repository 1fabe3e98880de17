"""What time brings: runs become due, waits and leases end, and the picture is read from the rows."""

from collections.abc import Generator, Iterable, Sequence
from typing import Final

import structlog

from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.runs import CANCEL_HOLD_MS
from hurlbat_dispatcher.store import lanes, runs
from hurlbat_dispatcher.store.heads import MOST_ROWS, Beyond, HeadRow, heads
from hurlbat_dispatcher.store.lanes import LaneRow, UseRow
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement
from hurlbat_dispatcher.turn import decide
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.fence import fenced
from hurlbat_dispatcher.turn.knowing import know_lanes
from hurlbat_dispatcher.turn.ledger import Ledger, Newcomer

log = structlog.get_logger("hurlbat.turn")

LOOK_AGAIN_MS = 200
"""Before the next look at servers whose leases are just over."""
MOST = 1_000
"""Rows of a kind that one turn takes; the rest come in the next, at once."""
READ_AT_FIRST: Final = 80_000
"""Waiting runs that are read when the picture is made anew, about, in all lanes together."""
FEWEST: Final = 8
"""How many of a lane are read then at least."""


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
    due = yield from _take(ledger, runs.DUE, now, MOST)
    yield from know_lanes(desk, (row.lane for row in due))
    for row in due:
        desk.release(row.id)  # what another server put back, and was not heard to
        lane = desk.picture.lanes[row.lane]
        if lane.ranks and row.joined_at is None:
            ledger.newcomers.append(Newcomer(row.id, row.lane, decide.waiting(row)))
        else:
            desk.picture.backed_off(row.id, started=row.started_at is not None)
            desk.picture.add(lane, decide.waiting(row), now)
        ledger.readies.append((now, row.tenant, row.id))
        ledger.rows[row.id] = row._replace(ready=1, joined_at=now if row.joined_at is None else row.joined_at)
    if sweep:
        desk.picture.tidy(now, {newcomer.lane for newcomer in ledger.newcomers})
        for slots in desk.picture.slots.values():
            slots.waited(now)
            desk.picture.opened(slots)
        yield lanes.FORGET_OLD_USE.write([(now,)])
        yield from _forget_ended(desk)


def _forget_ended(desk: Desk) -> Generator[Ask, Rows, None]:
    """Forget ranked runs that other servers ended without being heard."""
    living = list(desk.picture.members) if desk.peers else []
    for at in range(0, len(living), MOST):
        rows = yield runs.OVER.fetch(DEFAULT_TENANT, living[at : at + MOST])
        for row in rows:
            desk.picture.ended(row[0])


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
        *moments, scheduled, others_live = rows[0]
        desk.orphans_at = None if others_live is None else ledger.now + max(LOOK_AGAIN_MS, others_live)
        for moment in (*moments, desk.orphans_at):
            ledger.wake_at(moment)
        ledger.wake_at(None if scheduled is None else max(scheduled, desk.schedules_at))


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
    desk.picture = picture = Picture(known.most_held)
    desk.forget_lanes()
    desk.refresh(now)
    for name, slots in known.slots.items():
        fresh = picture.slots.get(name)
        if fresh is not None:
            fresh.window, fresh.not_before = slots.window, slots.not_before
            fresh.probing, fresh.failures = slots.probing, slots.failures
            if fresh.not_before > now:
                picture.shut(fresh)
    picture.read_at = now
    for use in map(UseRow._make, (yield lanes.USES.fetch(now))):
        picture.cold.setdefault((use.key, use.duration), []).append((use.bucket, use.last, use.units))
    for row in map(LaneRow._make, (yield lanes.IN_USE.fetch())):
        desk.open_lane(row)
    yield from _recount(desk)
    for name, slots in known.slots.items():
        if name in picture.slots:
            picture.slots[name].probes = {run_id for run_id in slots.probes if run_id in picture.running}
    if desk.owns:
        yield from read_waiting(desk)
    picture.outdated = False


def read_waiting(desk: Desk) -> Generator[Ask, Rows, None]:
    """Read the heads of every lane into the picture, and who is ranked and backs off."""
    picture = desk.picture
    few = max(FEWEST, READ_AT_FIRST // (len(picture.lanes) or 1))
    yield from read_heads(desk, list(picture.lanes.values()), few)
    yield from _read_members(desk, [lane for lane in picture.lanes.values() if lane.ranks and lane.more])
    back = yield runs.BACKING_OFF.fetch()
    yield from know_lanes(desk, (row[1] for row in back))
    for run_id, lane_id, priority, joined_at, started_at in back:
        started = started_at is not None
        picture.join(picture.lanes[lane_id], run_id, priority, joined_at, started=started, running=False)


def read_heads(desk: Desk, wanted: Sequence[Lane], most: int = 1 << 30) -> Generator[Ask, Rows, None]:
    """Read the next runs of these lanes into the picture: as many as it holds, but at most so many of each."""
    picture = desk.picture
    alike: dict[int, list[Lane]] = {}
    for lane in wanted:
        alike.setdefault(min(picture.reach(lane), most), []).append(lane)
    for count, some in alike.items():
        asked = [(lane, Beyond(lane.id) if lane.horizon is None else _beyond(lane, lane.horizon)) for lane in some]
        for lane, rows in (yield from _read_on(asked, count)):
            picture.refill(lane, [Waiting(row[1], row[2], row[3]) for row in rows], more=len(rows) == count)
            if lane.ranks:
                _join(desk, lane, rows)


def _read_members(desk: Desk, wanted: Sequence[Lane]) -> Generator[Ask, Rows, None]:
    """Know those, too, that live in the groups of lanes and wait beyond their horizons; no more than the rules keep."""
    asked = [(lane, _beyond(lane, lane.horizon)) for lane in wanted if lane.horizon is not None]
    count = FEWEST
    while asked:
        count = min(4 * count, MOST)
        read = yield from _read_on(asked, count)
        for lane, rows in read:
            _join(desk, lane, rows)
        asked = [(lane, Beyond(lane.id, rows[-1].rank, rows[-1].id)) for lane, rows in read if len(rows) == count]


def _read_on(
    asked: Sequence[tuple[Lane, Beyond]], count: int
) -> Generator[Ask, Rows, list[tuple[Lane, list[HeadRow]]]]:
    """Read so many runs of each lane beyond a place there; those of many lanes at once."""
    read: list[tuple[Lane, list[HeadRow]]] = []
    step = max(1, MOST_ROWS // count)
    for at in range(0, len(asked), step):
        some = asked[at : at + step]
        found: list[list[HeadRow]] = [[] for _ in some]
        for row in (yield heads([place for _, place in some], count)):
            found[row[0]].append(HeadRow._make(row))
        read += [(lane, rows) for (lane, _), rows in zip(some, found, strict=True)]
    return read


def _beyond(lane: Lane, last: Waiting) -> Beyond:
    return Beyond(lane.id, last.rank, last.run_id)


def _join(desk: Desk, lane: Lane, rows: Iterable[HeadRow]) -> None:
    for row in rows:
        desk.picture.join(lane, row.id, row.priority, row.joined_at, started=row.started_at is not None, running=False)


def _recount(desk: Desk, ledger: Ledger | None = None) -> Generator[Ask, Rows, None]:
    """Set what is in flight to what the rows say; this finds what other servers ended without being heard.

    What the turn itself has changed is not in the rows yet: there the picture knows better.
    """
    picture = desk.picture
    running = yield runs.IN_FLIGHT.fetch()
    held = yield runs.IN_HOLD.fetch()
    there = {row[0]: row[1:] for row in (*running, *held)}
    for run_id in [run_id for run_id in picture.running if run_id not in there]:
        desk.release(run_id)
    yield from know_lanes(desk, (row[3] for row in there.values()))
    decided = ledger.touched.union(values[-1] for values in ledger.releases) if ledger else ()
    for run_id, (worker, attempt, sender, lane_id, started_at, priority, joined_at, holds_until) in there.items():
        if run_id in decided:
            continue
        slots = picture.slots.get(worker) or picture.worker(worker, 1)  # one that was removed, and still runs something
        lane = picture.lanes[lane_id]
        picture.occupy(run_id, slots, lane, attempt, sender or "", started_at or 0)
        if holds_until is None and run_id not in picture.members:
            picture.join(lane, run_id, priority, joined_at or started_at or 0, started=True, running=True)
