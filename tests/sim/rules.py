"""What a commit may do to a run: rules over the row before, the row after, the moment, and what happened outside.

Written from the promises alone and not from the engine's code: a rule that asked the engine would agree with its bugs.
"""

import json
from collections.abc import Iterator
from typing import Final

from tests.sim.history import History, Rule
from tests.sim.plan import Plan, TaskPlan
from tests.sim.rows import Change, Moment, Row

Complaint = tuple[Rule, str]

HOLD_MS: Final = 5_000
"""How long a cancelled attempt keeps its slot, at most."""
JUDGED: Final = frozenset({"suspended", "skipped", "failed", "cancelled"})
"""States of a node that comes to be, or that waited, which its conditions and its parents say; see there."""
JUDGED_BY: Final = frozenset({"parent", "node", "condition", "task"})
"""Who cancels without being asked; whether they may is seen elsewhere."""
SAME: Final = 2
"""Milliseconds by which two times of one transaction may differ."""


def complaints(change: Change, moment: Moment, plan: Plan, history: History) -> Iterator[Complaint]:
    """Return what is wrong with this change of a run."""
    before, after = change.before, change.after
    if after is None:
        yield Rule.KEPT, f"{before.id if before else '?'} was removed"
        return
    yield from _fits(after)
    if not history.set_back:  # what is counted in the old time may seem long in the new
        yield from _lease(before, after, moment, plan)
    if after.kind == "workflow":
        yield from _workflow(before, after, moment, plan, history)
    elif after.node is not None and (before is None or before.state == "suspended") and after.state in JUDGED:
        return
    elif before is None:
        yield from _born(after, moment)
    elif (before.state, after.state) == ("suspended", "queued"):
        yield from _resumed(before, after, moment)
    elif after.attempt != before.attempt:
        yield from _started(before, after, moment)
    elif before.final:
        yield from _after_the_end(before, after, plan, history)
    elif after.final:
        yield from _ended(before, after, moment, plan, history)
    elif before.state == "running" and after.state == "queued":
        yield from _put_back(before, after, moment, plan.task(after.task), history)
    elif before.state != after.state:
        yield Rule.TABLE, f"{after.id} went from {before.state} to {after.state}"
    else:
        yield from _went_on(before, after, moment, plan, history)


def _workflow(before: Row | None, after: Row, moment: Moment, plan: Plan, history: History) -> Iterator[Complaint]:
    """Complain of the run of a workflow, which has no attempts; what it says of its nodes is seen elsewhere."""
    if (after.attempt, after.tries) != (0, 0):
        yield Rule.COUNTED, f"the workflow {after.id} has {after.tries} tries in {after.attempt} attempts"
    if before is None:
        if after.started_at is not None:
            yield from _start(after, after.due_at, moment)
        elif after.node is None or after.state not in JUDGED:
            yield from _born(after, moment)
    elif before.final:
        yield from _after_the_end(before, after, plan, history)
    elif before.state == "suspended":
        if after.state == "queued":
            yield from _resumed(before, after, moment)
    elif before.state == "queued" and after.started_at is not None and after.started_at != before.started_at:
        yield from _start(after, before.due_at, moment)  # and it may have ended at once
    elif after.final and (before.state == "queued" or after.state == "cancelled"):
        yield from _ended(before, after, moment, plan, history)
    elif before.state != after.state and (before.state != "running" or not after.final):
        yield Rule.TABLE, f"the workflow {after.id} went from {before.state} to {after.state}"
    elif not after.final:
        yield from _went_on(before, after, moment, plan, history)


def _resumed(before: Row, after: Row, moment: Moment) -> Iterator[Complaint]:
    if not moment.by_owner:
        yield Rule.OWNER, f"{after.id} goes on by {moment.process}, which does not own the lanes"
    if (after.attempt, after.tries, after.max_attempts) != (before.attempt, before.tries, before.max_attempts):
        yield Rule.COUNTED, f"{after.id} lost its counts as it went on"


def _fits(row: Row) -> Iterator[Complaint]:
    if not 0 <= row.tries <= row.attempt or row.tries > row.max_attempts:
        yield Rule.COUNTED, f"{row.id} has {row.tries} tries of {row.max_attempts} in {row.attempt} attempts"
    sent = row.kind == "workflow" or row.sender is not None
    if row.state == "running" and (row.worker is None or not sent or row.started_at is None):
        yield Rule.SNAPSHOT, f"{row.id} is running without a worker, a sender or a start"
    if (row.output is not None) != (row.state == "completed"):
        yield Rule.SNAPSHOT, f"{row.id} is {row.state} and its output is {row.output}"
    if (row.finished_at is not None) != row.final:
        yield Rule.SNAPSHOT, f"{row.id} is {row.state} and finished at {row.finished_at}"
    if row.state == "queued" and (row.worker, row.lease_until, row.holds_until) != (None,) * 3:
        yield Rule.SNAPSHOT, f"{row.id} is queued and holds what only running ones hold"
    if row.final and row.lease_until is not None:
        yield Rule.LEFT, f"{row.id} is {row.state} and has a lease"


def _born(after: Row, moment: Moment) -> Iterator[Complaint]:
    if after.state == "running":
        yield from _start(after, after.due_at, moment)
        if (after.attempt, after.tries) != (1, 1) and after.kind != "workflow":
            yield Rule.COUNTED, f"{after.id} begins with attempt {after.attempt} and {after.tries} tries"
    elif after.state == "cancelled" and after.reason == "concurrency":
        if not moment.by_owner:
            yield Rule.OWNER, f"{after.id} was refused by {moment.process}, which does not own the lanes"
    elif after.state != "queued" or (after.attempt, after.tries) != (0, 0):
        yield Rule.TABLE, f"{after.id} begins as {after.state} with attempt {after.attempt} and {after.tries} tries"
    elif after.ready and not moment.by_owner:
        yield Rule.OWNER, f"{after.id} was put into its lane by {moment.process}, which does not own the lanes"


def _started(before: Row, after: Row, moment: Moment) -> Iterator[Complaint]:
    if (before.state, after.state) != ("queued", "running"):
        yield Rule.TABLE, f"{after.id} has a new attempt and went from {before.state} to {after.state}"
    if (after.attempt, after.tries) != (before.attempt + 1, before.tries + 1):
        counts = f"attempt {before.attempt} to {after.attempt}, tries {before.tries} to {after.tries}"
        yield Rule.COUNTED, f"{after.id} went from {counts}"
    if after.max_attempts != before.max_attempts:
        yield Rule.COUNTED, f"{after.id} has another max_attempts by its start"
    yield from _start(after, before.due_at, moment)


def _start(after: Row, due_at: int, moment: Moment) -> Iterator[Complaint]:
    if not moment.by_owner:
        yield Rule.OWNER, f"{moment.process} started {after.id}, and {moment.owner} owns the lanes"
    set_back = moment.least < moment.now
    if moment.now < due_at or after.started_at is None or (after.started_at < due_at and not set_back):
        yield Rule.DUE, f"{after.id} started {due_at - moment.now} ms before it was due"
    if after.expires_at is not None and after.expires_at < moment.least - SAME and after.tries <= 1:
        yield Rule.EXPIRED, f"{after.id} started {moment.least - after.expires_at} ms after it had expired"


def _ended(before: Row, after: Row, moment: Moment, plan: Plan, history: History) -> Iterator[Complaint]:
    if after.attempt != before.attempt or after.tries != before.tries or after.max_attempts != before.max_attempts:
        yield Rule.COUNTED, f"the counts of {after.id} changed at its end"
    match before.state, after.state:
        case "running", "completed":
            said = history.outputs.get((after.id, after.attempt))
            garbled = said is not None and plan.garbles and plan.worker(after.worker).plain
            if said != after.output and not garbled:
                yield Rule.ANSWER, f"{after.id}#{after.attempt} completed with {after.output}; its worker said {said}"
        case "running", "failed":
            yield from _rescued(before, after, moment)
            key = after.id, after.attempt
            for_good = after.failure.get("code") == "http_error" or key in history.failures
            if before.tries < before.max_attempts and not for_good:
                yield Rule.COUNTED, f"{after.id} failed in try {after.tries} of {after.max_attempts}: {after.error}"
        case _, "cancelled":
            expired = before.ttl_at is not None and before.ttl_at <= moment.now + SAME and before.state == "queued"
            if expired and not moment.by_owner and after.id not in history.cancels:
                yield Rule.OWNER, f"{moment.process} let {after.id} expire and does not own the lanes"
            asked = after.id in history.cancels or after.reason == "concurrency" or fired_again(after)
            asked = asked or after.cancelled_by in JUDGED_BY
            if not expired and not asked:
                yield Rule.ASKED, f"{after.id} was cancelled and nobody asked for it: {after.reason}"
            stopped = after.kind == "workflow" or after.cancelled_by == "task"
            if before.state == "running" and after.holds_until is None and not stopped:
                yield Rule.SLOTS, f"the running {after.id} was cancelled and its slot given away at once"
            if after.holds_until is not None and after.holds_until > moment.now + HOLD_MS + SAME:
                yield Rule.LEFT, f"the cancelled {after.id} holds its slot for too long"
        case "queued", "failed":
            if before.expires_at is None or before.expires_at > moment.now:
                yield Rule.EXPIRED, f"{after.id} failed as too late before its time"
            if not moment.by_owner:
                yield Rule.OWNER, f"{moment.process} let {after.id} expire and does not own the lanes"
        case _:
            yield Rule.TABLE, f"{after.id} went from {before.state} to {after.state}"


def fired_again(after: Row) -> bool:
    """Tell whether a run was cancelled as its schedule fired once more."""
    return after.reason == f"schedule {json.loads(after.trigger or '{}').get('schedule')} fired again"


def _put_back(before: Row, after: Row, moment: Moment, task: TaskPlan, history: History) -> Iterator[Complaint]:
    if after.attempt != before.attempt or after.max_attempts != before.max_attempts:
        yield Rule.COUNTED, f"{after.id} was put back with another attempt"
    if after.tries == before.tries:
        yield from _rescued(before, after, moment)
        if after.tries >= after.max_attempts:
            yield Rule.COUNTED, f"{after.id} is tried again after {after.tries} of {after.max_attempts} tries"
        least = _least_wait(task, after.tries, history.failures.get((after.id, after.attempt)))
        if _says_itself(after):
            least = 0.0
        if after.due_at < moment.least + least * 1000 - SAME:
            wait = (after.due_at - moment.least) / 1000
            yield Rule.DUE, f"{after.id} is due again in {wait:g} s, and its policy says {least:g} at least"
    elif after.tries != before.tries - 1:
        yield Rule.COUNTED, f"{after.id} went from {before.tries} to {after.tries} tries when it was put back"
    elif after.error is not None:
        yield Rule.COUNTED, f"{after.id} failed ({after.error}) and was not charged"
    elif after.due_at < moment.least - SAME:
        yield Rule.DUE, f"{after.id} was put back and is due before now"


def _says_itself(after: Row) -> bool:
    """Whether the answer may have said by itself when to come again."""
    return after.failure.get("code") == "http_error"


def _least_wait(task: TaskPlan, tries: int, wish: float | None) -> float:
    """Return the shortest wait (seconds) that the policy, or what the worker asked for, allows."""
    wait = task.policy["backoff"]
    match wait["strategy"]:
        case "fixed":
            seconds = wait["initial"]
        case "list":
            seconds = wait["delays"][min(tries, len(wait["delays"])) - 1]
        case _:
            seconds = min(wait["max"], wait["initial"] * wait["factor"] ** (tries - 1))
    least = seconds / 2 if wait["jitter"] else seconds
    return float(least if wish is None else min(least, wish))


def _rescued(before: Row, after: Row, moment: Moment) -> Iterator[Complaint]:
    """Hold the rescue of an attempt against its lease, and the sender's."""
    failure = after.failure
    if failure.get("code") != "lease_expired" and "(lease_expired)" not in str(failure.get("message")):
        return
    if before.lease_until is not None:
        over = before.lease_until <= moment.now
    else:
        over = not moment.alive(before.sender) or moment.servers.get(before.sender or "") == moment.process
    if not over:
        yield Rule.RESCUE, f"{after.id}#{after.attempt} was rescued by {moment.process} while its lease was good"
    own = before.lease_until is None and moment.servers.get(before.sender or "") == moment.process
    if not moment.by_owner and not own:
        yield Rule.OWNER, f"{moment.process} rescued {after.id} and does not own the lanes"


def _after_the_end(before: Row, after: Row, plan: Plan, history: History) -> Iterator[Complaint]:
    if after.state == "queued":
        history.replayed[after.id] += 1
        if history.replayed[after.id] > history.replays[after.id]:
            yield Rule.ASKED, f"{after.id} was replayed and nobody asked for it"
        if (after.attempt, after.tries) != (before.attempt, before.tries):
            yield Rule.COUNTED, f"{after.id} lost its counts by a replay"
        if after.max_attempts != before.tries + plan.task(after.task).max_attempts:
            yield Rule.COUNTED, f"{after.id} has max_attempts {after.max_attempts} after {before.tries} tries"
    elif after._replace(holds_until=before.holds_until, node=before.node, was_node=before.was_node) != before:
        yield Rule.FINAL, f"{after.id} was {before.state} and changed: {_difference(before, after)}"


def _went_on(before: Row, after: Row, moment: Moment, plan: Plan, history: History) -> Iterator[Complaint]:
    if after.due_at != before.due_at:
        yield from _moved(before, after, moment, plan, history)
    if (after.tries, after.max_attempts) != (before.tries, before.max_attempts):
        yield Rule.COUNTED, f"{after.id} changed while it was {after.state}: {_difference(before, after)}"
    if after.ready > before.ready and not moment.by_owner:
        yield Rule.OWNER, f"{after.id} was put into its lane by {moment.process}, which does not own the lanes"


def _moved(before: Row, after: Row, moment: Moment, plan: Plan, history: History) -> Iterator[Complaint]:
    if (before.state, before.attempt, before.ready) != ("queued", 0, 0) or before.due_at <= moment.least - SAME:
        yield Rule.MOVED, f"{after.id} was {before.state}, due at {before.due_at}, and is due at {after.due_at}"
    elif after.task not in plan.ways.gathered:
        asked = history.moves.get(after.id, ())
        if not any(after.due_at == time or time <= after.due_at <= moment.now + SAME for time in asked):
            yield Rule.MOVED, f"{after.id} was moved to {after.due_at}, and nobody asked for it: {asked}"


def _lease(before: Row | None, after: Row, moment: Moment, plan: Plan) -> Iterator[Complaint]:
    was = None if before is None else before.lease_until
    if after.lease_until is not None and after.lease_until != was:
        if after.state != "running":
            yield Rule.LEASE, f"{after.id} is {after.state} and got a lease"
        elif after.lease_until > moment.now + plan.lease * 1000 + SAME:
            yield Rule.LEASE, f"{after.id} got a lease of {(after.lease_until - moment.now) / 1000:g} s"


def _difference(before: Row, after: Row) -> str:
    old, new = before._asdict(), after._asdict()
    return json.dumps({name: [old[name], new[name]] for name in old if old[name] != new[name]})
