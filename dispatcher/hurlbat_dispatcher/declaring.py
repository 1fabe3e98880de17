"""What a registration declares: its tasks, and the schedules that stand in their policies."""

import json
from collections.abc import Collection, Sequence

from hurlbat.policy import TaskPolicy
from hurlbat.triggers import Cron
from hurlbat_dispatcher.crontab import compile_cron
from hurlbat_dispatcher.domain.schedules import Missed, Overlap, Schedule, Source
from hurlbat_dispatcher.store import schedules as store
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.workers import declare_tasks


def declare(tenant: int, policies: Sequence[TaskPolicy], now: int) -> Script[None]:
    """Adopt the newest registration of tasks and of their schedules, which were checked; `now` is in ms.

    A schedule is known by its task and its place. One with the same expression and time zone goes on as before, paused
    or not; one that is not there any more goes.
    """
    graphs = {policy.name: policy.graph.model_dump_json() for policy in policies if policy.graph is not None}
    yield from declare_tasks(tenant, {policy.name: policy.model_dump_json() for policy in policies}, graphs, now)
    known = yield from store.schedules_of_tasks(tenant, [policy.name for policy in policies])
    old = {one.name: one for one in known}
    paused = {(one.task, one.expression, one.timezone) for one in known if one.paused}
    for policy in sorted(policies, key=lambda one: one.name):
        for place, cron in enumerate(policy.crons):
            name = f"{policy.name}.{place}"
            before = old.pop(name, None)
            if before is None:
                yield from store.add_schedule(tenant, _resting(_made(name, policy.name, cron, now), paused))
            else:
                changed = _resting(_changed(before, cron, now), paused)
                if changed != before:
                    yield from store.save_schedule(tenant, changed._replace(updated_at=now))
    for name in sorted(old):
        yield from store.delete_schedule(tenant, name)


def _made(name: str, task: str, cron: Cron, now: int) -> Schedule:
    return Schedule(
        name=name,
        task=task,
        source=Source.TASK,
        expression=cron.expression,
        timezone=cron.timezone,
        run_at=None,
        input=_text(cron.input),
        metadata=_text(cron.metadata),
        priority=cron.priority,
        missed=Missed(cron.missed),
        overlap=Overlap(cron.overlap),
        paused=False,
        next_at=compile_cron(cron.expression, cron.timezone).after(now),
        last_at=None,
        last_run=None,
        problem=None,
        created_at=now,
        updated_at=now,
    )


def _changed(old: Schedule, cron: Cron, now: int) -> Schedule:
    new = _made(old.name, old.task, cron, now)
    same = (old.expression, old.timezone) == (new.expression, new.timezone)
    next_at = old.next_at if same and old.next_at is not None else new.next_at
    return new._replace(
        next_at=next_at,
        last_at=old.last_at,
        last_run=old.last_run,
        problem=old.problem if same else None,
        created_at=old.created_at,
        updated_at=old.updated_at,
    )


def _resting(one: Schedule, paused: Collection[tuple[str, str | None, str]]) -> Schedule:
    """Return a schedule that is paused if its times were, at whatever place they stood."""
    rests = (one.task, one.expression, one.timezone) in paused
    return one._replace(paused=rests, next_at=None if rests else one.next_at)


def _text(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
