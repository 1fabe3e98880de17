"""The statements by which a turn fires schedules."""

from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import FINAL
from hurlbat_dispatcher.domain.schedules import Missed
from hurlbat_dispatcher.store.schema import SCHEDULED, STARTED, inline, run, schedule, schedule_fire
from hurlbat_dispatcher.store.statement import AnyOf, Statement, bind

LOOKED_BACK = 100
"""Runs of a schedule among which those that are alive are looked for: the newest."""


class FiredSchedule(NamedTuple):
    """A schedule as a turn sees it. Times are ms; input and metadata are raw JSON."""

    tenant: int
    name: str
    task: str
    expression: str | None
    timezone: str
    run_at: int | None
    input: str
    metadata: str
    priority: int | None
    missed: str
    overlap: str
    next_at: int | None


class Fired(NamedTuple):
    """What came of a due time, as it is stored."""

    tenant: int
    schedule: str
    due_at: int
    manual: int
    fired_at: int
    outcome: str
    run: str | None
    reason: str | None


_SEEN = sa.select(*(schedule.c[name] for name in FiredSchedule._fields))
_TENANT = schedule.c.tenant == bind("tenant", sa.Integer())

DUE = Statement(
    _SEEN.where(SCHEDULED, schedule.c.next_at <= bind("now", sa.BigInteger()))
    .order_by(schedule.c.missed == inline(Missed.ALL.value), schedule.c.next_at.desc(), schedule.c.name)
    .limit(bind("most", sa.Integer()))
    .with_for_update(),
    ("now", "most"),
)
"""Some that are due; those that have much to make up for come last, so that nobody is late for their sake."""
BY_NAME = Statement(
    _SEEN.where(_TENANT, AnyOf(schedule.c.name, "names", "varchar")).order_by(schedule.c.name).with_for_update(),
    ("tenant", "names"),
)
FIRED = Statement(
    sa.select(schedule_fire.c.schedule, schedule_fire.c.due_at).where(
        schedule_fire.c.tenant == bind("tenant", sa.Integer()),
        schedule_fire.c.manual == inline(0),
        AnyOf(schedule_fire.c.schedule, "names", "varchar"),
        AnyOf(schedule_fire.c.due_at, "times", "bigint"),
    ),
    ("tenant", "names", "times"),
)
"""Which of these due times of these schedules were fired already."""
BY_HAND = Statement(
    sa.select(sa.func.max(schedule_fire.c.due_at)).where(
        schedule_fire.c.tenant == bind("tenant", sa.Integer()),
        schedule_fire.c.schedule == bind("name", schedule_fire.c.schedule.type),
        schedule_fire.c.due_at >= bind("now", sa.BigInteger()),
        schedule_fire.c.manual == inline(1),
    ),
    ("tenant", "name", "now"),
)
"""When a schedule was fired last by hand, if that is not before now."""
_newest = (
    sa.select(schedule_fire.c.run)
    .where(
        schedule_fire.c.tenant == bind("tenant", sa.Integer()),
        schedule_fire.c.schedule == bind("name", schedule_fire.c.schedule.type),
        STARTED,
    )
    .order_by(schedule_fire.c.due_at.desc())
    .limit(inline(LOOKED_BACK))
    .subquery()
)
ALIVE = Statement(
    sa.select(run.c.id)
    .join(_newest, _newest.c.run == run.c.id)
    .where(run.c.tenant == bind("of", sa.Integer()), run.c.state.not_in([inline(state) for state in sorted(FINAL)]))
    .order_by(run.c.id),
    ("tenant", "name", "of"),
)
"""The runs of a schedule that have not ended, among its newest."""
KEEP_FIRE = Statement(
    sa.insert(schedule_fire).values({name: bind(name, schedule_fire.c[name].type) for name in Fired._fields}),
    Fired._fields,
)
ADVANCE = Statement(
    sa.update(schedule)
    .where(schedule.c.tenant == bind("b_tenant", sa.Integer()), schedule.c.name == bind("b_name", schedule.c.name.type))
    .values(
        next_at=bind("next_at", sa.BigInteger()),
        last_at=sa.func.coalesce(bind("last_at", sa.BigInteger()), schedule.c.last_at),
        last_run=sa.func.coalesce(bind("last_run", schedule.c.last_run.type), schedule.c.last_run),
        problem=bind("problem", sa.Text()),
    ),
    ("next_at", "last_at", "last_run", "problem", "b_tenant", "b_name"),
)
"""Say when a schedule fires next, and what came of its last time."""
