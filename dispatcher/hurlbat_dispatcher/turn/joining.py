"""Runs join their concurrency groups when they are due for the first time, and rules may cancel some for others.

Each joins by itself, in order, so that it does not matter how many came in one turn.
"""

from collections.abc import Callable, Generator, Sequence

from hurlbat_dispatcher.domain.budgets import Group, Member
from hurlbat_dispatcher.domain.concurrency import Displaced, collapses, judge
from hurlbat_dispatcher.domain.lanes import Lane, Started
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.store.lanes import UseRow
from hurlbat_dispatcher.store.limits import PauseRow
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import decide
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.knowing import know_lanes
from hurlbat_dispatcher.turn.ledger import Ledger, Newcomer, Waiters
from hurlbat_dispatcher.turn.operations import Displace


def join(
    desk: Desk, ledger: Ledger, waiters: Waiters, admit: Callable[[], list[Started]], before: Sequence[Started]
) -> Generator[Ask, Rows, list[Started]]:
    """Let the turn's newcomers join, and return what started between: where a line has one place, it must be free."""
    started: list[Started] = []
    looked: set[Group] = set()
    newcomers, ledger.newcomers = ledger.newcomers, []
    for newcomer in newcomers:
        if newcomer.run_id in ledger.touched:
            continue
        lane = desk.picture.lanes[newcomer.lane]
        groups = lane.ranks
        desk.picture.ended(newcomer.run_id)  # in a former life, if another server replayed it
        if any(collapses(group) and group.members for group in groups):
            started += admit()
        member = Member(newcomer.run_id, newcomer.waiting.priority, ledger.now)
        victims = judge(groups, member)
        if victims and (yield from _look_again(ledger, groups, desk, waiters, looked)):
            victims = judge(groups, member)
        yield from _load(ledger, waiters, [victim.run_id for victim in victims])
        begun = {one.run_id for one in (*before, *started)}
        for victim in victims:
            _displace(desk, ledger, waiters, victim, begun)
        if not any(victim.by is None for victim in victims):
            _enter(desk, ledger, lane, newcomer)
    return started


def pause_keys(desk: Desk, ledger: Ledger) -> Generator[Ask, Rows, None]:
    """Let the rate limits wait that workers have named, where the run drew on them."""
    yield from know_lanes(desk, (lane_id for _, lane_id, _, _ in ledger.overrun))
    for tenant, lane_id, key, until in ledger.overrun:
        for draw in desk.picture.lanes[lane_id].draws.rates:
            known = desk.registry.pauses.get(draw.name, 0)
            if draw.key == key and known is not None and known < until:
                desk.registry.pauses[draw.name] = until
                desk.picture.pause(draw.name, until)
                ledger.pauses.append(PauseRow(tenant, draw.name, until))


def note_uses(desk: Desk, ledger: Ledger) -> None:
    """Have stored what was started of rate limits."""
    for rate in desk.picture.changed_rates:
        for mark in rate.marks:
            if mark.bucket in rate.dirty:
                ledger.uses.append(UseRow(DEFAULT_TENANT, rate.name, rate.span, mark.bucket, mark.last, mark.units))
        rate.dirty.clear()
    desk.picture.changed_rates.clear()


def _enter(desk: Desk, ledger: Ledger, lane: Lane, newcomer: Newcomer) -> None:
    priority = newcomer.waiting.priority
    desk.picture.join(lane, newcomer.run_id, priority, ledger.now, started=False, running=False)
    desk.picture.add(lane, newcomer.waiting, ledger.now)


def _look_again(
    ledger: Ledger, groups: tuple[Group, ...], desk: Desk, waiters: Waiters, looked: set[Group]
) -> Generator[Ask, Rows, bool]:
    """Read the runs that live in the groups, as others may have ended some, or put them back; tell whether one was.

    Once in a turn: what was read is locked.
    """
    fresh = [group for group in groups if group not in looked]
    if not desk.peers or not fresh:
        return False
    looked.update(fresh)
    living = {run_id for group in fresh for run_id in group.members}
    yield from _load(ledger, waiters, living)
    found = [ledger.rows[run_id] for run_id in sorted(living) if run_id in ledger.rows]
    over = [row.id for row in found if row.state in FINAL or (not row.ready and row.joined_at is None)]
    for run_id in over:
        desk.picture.ended(run_id)
    back = [row for row in found if row.state == RunState.QUEUED and _was_put_back(ledger, desk, row)]
    for row in back:
        desk.picture.backed_off(row.id, started=row.started_at is not None)
    return bool(over or back)


def _was_put_back(ledger: Ledger, desk: Desk, row: RunRow) -> bool:
    """Tell whether a run that waits by its row is taken to be running, and not because it has just begun."""
    member, flight = desk.picture.members.get(row.id), desk.picture.running.get(row.id)
    known = member is not None and member.running and row.id not in ledger.touched
    return known and row.attempt > 0 and (flight is None or flight.attempt == row.attempt)


def _load(ledger: Ledger, waiters: Waiters, ids: "set[str] | list[str]") -> Generator[Ask, Rows, None]:
    unknown = sorted(run_id for run_id in ids if run_id not in ledger.rows and run_id not in waiters)
    yield from ledger.load(DEFAULT_TENANT, unknown)


def _displace(desk: Desk, ledger: Ledger, waiters: Waiters, victim: Displaced, begun: set[str]) -> None:
    group, run_id = victim.group, victim.run_id
    detail = {"rule": _said(group.rule), "key": group.value, "strategy": group.strategy, "by": victim.by}
    row = ledger.rows.get(run_id)
    if row is None and run_id in waiters:
        known = waiters[run_id]._asdict()
        row = RunRow._make(known.get(name) for name in RunRow._fields)
        ledger.refused[run_id] = decide.DISPLACED
    if row is not None and victim.by is None:
        row = row._replace(ready=0)  # a newcomer stands in no lane yet, from which it could be taken
    if run_id in ledger.touched or run_id in begun or row is None:
        ledger.refused.pop(run_id, None)
        ledger.deferred.append(Displace(run_id, detail))  # it has changed already in this turn
        return
    decide.displace(desk, ledger, row, detail)


def _said(rule: str) -> str:
    """Return a rule's own name, or its key."""
    return rule.split(":", 2 if rule.startswith("task:") else 1)[-1]
