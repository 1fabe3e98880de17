"""Planted bugs in what a turn reads, decides and writes."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lifecycle import RunEvent, RunState
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, NotSent
from hurlbat_dispatcher.store import leases, runs
from hurlbat_dispatcher.store.schema import RUNNING, dispatcher, inline, run
from hurlbat_dispatcher.store.statement import Statement, bind
from hurlbat_dispatcher.turn import crank, decide, due
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import AttemptEnd
from tests.sim import telling
from tests.sim.bugs import bug, swap

Script = Generator[Any, Any, Any]


@bug("an owner that was replaced goes on to start runs", hint=1)
def no_fence(stack: ExitStack) -> None:
    def unfenced(desk: Desk) -> Script:
        return desk.tell_time((yield from runs.database_now()))

    for room in (crank, due):
        swap(stack, room, "fenced", lambda _: unfenced)


@bug("whoever asks first takes the lanes, though the lease of their owner is good")
def takeover_from_the_living(stack: ExitStack) -> None:
    swap(stack, leases._State, "vacant", lambda _: lambda state, lease, *, alone, stopping: not stopping)


@bug("a start is not counted until its answer comes")
def counted_after_the_send(stack: ExitStack) -> None:
    start = runs._update(
        ("started_at", "worker", "sender"),
        state=inline(RunState.RUNNING),
        ready=inline(1),
        attempt=run.c.attempt + inline(1),
        lease_until=sa.null(),
        deadline_at=sa.null(),
    )
    swap(stack, runs, "START", lambda _: start)


@bug("a slot is given back without a look at which attempt holds it", hint=48)
def released_without_its_attempt(stack: ExitStack) -> None:
    def make(release: Any) -> Any:
        return lambda picture, run_id, now, attempt=None, **more: release(picture, run_id, now, **more)

    def late(plan_of: Any) -> Any:  # where word of the end comes after the next start
        def planned(*given: Any, **more: Any) -> Any:
            plan = plan_of(*given, **more)
            return replace(plan, faults=replace(plan.faults, message_late=0.5))

        return planned

    swap(stack, Picture, "release", make)
    swap(stack, telling, "plan_of", late)


@bug("the slot of a cancelled attempt is sold before the worker has stopped", hint=6)
def sold_twice(stack: ExitStack) -> None:
    def make(finish: Any) -> Any:
        return lambda *given, holds_until=None, **more: finish(*given, holds_until=None, **more)

    swap(stack, decide, "finish", make)


@bug("what a worker took and lost is tried again at once")
def retry_without_due_time(stack: ExitStack) -> None:
    swap(stack, decide, "clamp", lambda _: lambda seconds: 0.0)


@bug("a result is applied whatever attempt it is of", hint=3)
def result_of_an_old_attempt(stack: ExitStack) -> None:
    def make(end_attempt: Any) -> Any:
        def end(desk: Desk, ledger: Ledger, said: AttemptEnd, **more: Any) -> Any:
            row = ledger.rows.get(said.run_id)
            return end_attempt(desk, ledger, said if row is None else said._replace(attempt=row.attempt), **more)

        return end

    swap(stack, decide, "end_attempt", make)


@bug("a second result of an attempt is applied, too")
def result_applied_twice(stack: ExitStack) -> None:
    def make(end_attempt: Any) -> Any:
        def end(desk: Desk, ledger: Ledger, said: AttemptEnd, **more: Any) -> Any:
            row = ledger.rows.get(said.run_id)
            if row is not None and row.state in ("completed", "failed") and row.attempt == said.attempt:
                ledger.rows[row.id] = row._replace(state=RunState.RUNNING, report=None)
            return end_attempt(desk, ledger, said, **more)

        return end

    swap(stack, decide, "end_attempt", make)


@bug("every server rescues, not the owner of the lanes alone", hint=17)
def rescue_without_fence(stack: ExitStack) -> None:
    def make(tick: Any) -> Any:
        def rescue(desk: Desk, ledger: Ledger, *, sweep: bool) -> Script:
            if not desk.owns:
                for row in (yield from due._take(ledger, runs.LEASE_OVER, ledger.now, due.MOST)):
                    decide.lose(desk, ledger, row)
            yield from tick(desk, ledger, sweep=sweep)

        return rescue

    swap(stack, due, "tick", make)


@bug("attempts of other servers are rescued while these are alive")
def rescue_from_the_living(stack: ExitStack) -> None:
    mine = run.c.sender == bind("me", sa.String())
    clause = sa.select(*runs._LIGHT).where(RUNNING, run.c.lease_until.is_(None), ~mine)
    clause = clause.limit(bind("most", sa.Integer()))
    swap(stack, runs, "ORPHANED", lambda _: Statement(clause, ("me", "most")))


@bug("attempts of a server that died are never rescued", hint=3)
def orphans_forgotten(stack: ExitStack) -> None:
    clause = sa.select(*runs._LIGHT).where(
        RUNNING,
        run.c.sender != bind("me", sa.String()),
        sa.exists().where(dispatcher.c.id == run.c.sender),
        run.c.attempt < inline(0),
    )
    clause = clause.limit(bind("most", sa.Integer()))
    swap(stack, runs, "ORPHANED", lambda _: Statement(clause, ("me", "most")))


@bug("a replay lets a run be tried without end")
def replay_unbounded(stack: ExitStack) -> None:
    def make(replay: Any) -> Any:
        def again(desk: Desk, ledger: Ledger, row: Any) -> Any:
            problem = replay(desk, ledger, row)
            if problem is None:
                most, *others = ledger.replays[-1]
                ledger.replays[-1] = (most + 1_000, *others)
            return problem

        return again

    swap(stack, decide, "replay", make)


@bug("the cancellation of a waiting run is acknowledged and not done", hint=5)
def cancel_forgets_what_waits(stack: ExitStack) -> None:
    def make(cancel: Any) -> Any:
        def forget(desk: Desk, ledger: Ledger, row: Any, reason: str) -> Any:
            return None if row.state == RunState.QUEUED else cancel(desk, ledger, row, reason)

        return forget

    swap(stack, decide, "cancel", make)


@bug("a cancelled attempt that nobody confirms holds its slot for ever", hint=6)
def hold_never_released(stack: ExitStack) -> None:
    swap(stack, decide, "CANCEL_HOLD_MS", lambda _: 1 << 40)


@bug("a failed attempt is put back without being charged")
def not_charged(stack: ExitStack) -> None:
    def make(judge: Any) -> Any:
        def lenient(*given: Any, **more: Any) -> Any:
            verdict = judge(*given, **more)
            return replace(verdict, charged=False) if verdict.event is RunEvent.PUT_BACK else verdict

        return lenient

    swap(stack, decide, "judge", make)


@bug("a heartbeat is answered and renews nothing")
def heartbeat_without_renewal(stack: ExitStack) -> None:
    swap(
        stack,
        crank,
        "_renew",
        lambda renew: lambda desk, ledger, row, deadline: _renew_once(renew, desk, ledger, row, deadline),
    )


def _renew_once(renew: Any, desk: Desk, ledger: Ledger, row: Any, deadline: int | None) -> None:
    if row.lease_until is None:
        renew(desk, ledger, row, deadline)


@bug("a run is started though its time to start is over", hint=5)
def expiry_forgotten(stack: ExitStack) -> None:
    clause = sa.select(*runs._LIGHT).where(
        run.c.expires_at <= bind("now", sa.BigInteger()) - inline(1 << 40), run.c.attempt < inline(0)
    )
    swap(stack, runs, "EXPIRED", lambda _: Statement(clause.limit(bind("most", sa.Integer())), ("now", "most")))


@bug("an end is written whatever attempt the row is in by now")
def ends_without_fence(stack: ExitStack) -> None:
    def make(load: Any) -> Any:
        def stale(ledger: Ledger, tenant: int, ids: Sequence[str]) -> Script:
            yield from load(ledger, tenant, ids)
            for run_id in ids:
                row = ledger.rows.get(run_id)
                if row is not None and row.state == RunState.QUEUED and row.attempt:
                    ledger.rows[run_id] = row._replace(state=RunState.RUNNING)

        return stale

    swap(stack, Ledger, "load", make)


@bug("an attempt whose answer was lost counts as one that was never sent", hint=6)
def lost_answer_not_charged(stack: ExitStack) -> None:
    def make(judge: Any) -> Any:
        def trusting(answer: Any, **more: Any) -> Any:
            if isinstance(answer, Failed) and answer.code is ErrorCode.CONNECTION_RESET:
                answer = NotSent(answer.code, answer.message)
            return judge(answer, **more)

        return trusting

    swap(stack, decide, "judge", make)


@bug("the timeline is not told that a run was put back")
def untold(stack: ExitStack) -> None:
    def make(note: Any) -> Any:
        def silent(ledger: Ledger, row: Any, kind: str, *more: Any, **named: Any) -> None:
            if kind not in ("retry", "not_sent", "pushed_back"):
                note(ledger, row, kind, *more, **named)

        return silent

    swap(stack, Ledger, "note", make)
