"""Schedules as they are made, changed and looked at. What fires them is in `store.firing`."""

from collections.abc import Collection, Generator
from typing import Any, Final

import sqlalchemy as sa

from hurlbat_dispatcher.domain.schedules import FireOutcome, Missed, Overlap, Schedule, ScheduleFire, Source
from hurlbat_dispatcher.store.schema import inline, schedule, schedule_fire
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Row, Rows, Statement, bind

FirePlace = tuple[int, int]
"""A due time (ms), and 1 for one by hand."""
LAST_FIRE: Final[FirePlace] = (1 << 62, 1)
"""After every fire."""

_COLUMNS = [schedule.c[name] for name in Schedule._fields]
_TENANT = bind("tenant", sa.Integer())
_OURS = schedule.c.tenant == _TENANT
_NAMED = sa.select(*_COLUMNS).where(_OURS, schedule.c.name == bind("name", schedule.c.name.type))

ONE = Statement(_NAMED, ("tenant", "name"))
LOCKED = Statement(_NAMED.with_for_update(), ("tenant", "name"))
OF_TASKS = Statement(
    sa.select(*_COLUMNS)
    .where(_OURS, schedule.c.source == inline(Source.TASK), AnyOf(schedule.c.task, "tasks", "varchar"))
    .order_by(schedule.c.name)
    .with_for_update(),
    ("tenant", "tasks"),
)
"""The schedules that stand in the policies of these tasks."""


def _page(by_task: bool, by_pause: bool) -> Statement:
    conditions, names = [_OURS, schedule.c.name > bind("after", schedule.c.name.type)], ["tenant", "after"]
    for name, wanted in (("task", by_task), ("paused", by_pause)):
        if wanted:
            conditions.append(schedule.c[name] == bind(name, schedule.c[name].type))
            names.append(name)
    clause = sa.select(*_COLUMNS).where(*conditions).order_by(schedule.c.name)
    return Statement(clause.limit(bind("most", sa.Integer())), (*names, "most"))


PAGES = {(task, pause): _page(task, pause) for task in (False, True) for pause in (False, True)}

INSERT = Statement(
    sa.insert(schedule).values({name: bind(name, schedule.c[name].type) for name in ("tenant", *Schedule._fields)}),
    ("tenant", *Schedule._fields),
)
_CHANGED = tuple(name for name in Schedule._fields if name not in ("name", "source", "created_at"))
_THIS = (
    schedule.c.tenant == bind("b_tenant", sa.Integer()),
    schedule.c.name == bind("b_name", schedule.c.name.type),
)
UPDATE = Statement(
    sa.update(schedule).where(*_THIS).values({name: bind(name, schedule.c[name].type) for name in _CHANGED}),
    (*_CHANGED, "b_tenant", "b_name"),
)
DELETE = Statement(sa.delete(schedule).where(*_THIS), ("b_tenant", "b_name"))

_FIRE = [schedule_fire.c[name] for name in ScheduleFire._fields]
FIRES = Statement(
    sa.select(*_FIRE)
    .where(
        schedule_fire.c.tenant == _TENANT,
        schedule_fire.c.schedule == bind("name", schedule_fire.c.schedule.type),
        schedule_fire.c.fired_at >= bind("since", sa.BigInteger()),
        sa.tuple_(schedule_fire.c.due_at, schedule_fire.c.manual)
        < sa.tuple_(bind("due_at", sa.BigInteger()), bind("manual", sa.Integer())),
    )
    .order_by(schedule_fire.c.due_at.desc(), schedule_fire.c.manual.desc())
    .limit(bind("most", sa.Integer())),
    ("tenant", "name", "since", "due_at", "manual", "most"),
)


def one_schedule(tenant: int, name: str) -> Generator[Ask, Rows, Schedule | None]:
    """Read one schedule."""
    rows = yield ONE.fetch(tenant, name)
    return _schedule(rows[0]) if rows else None


def locked_schedule(tenant: int, name: str) -> Generator[Ask, Rows, Schedule | None]:
    """Read one schedule and lock its row, to change it."""
    rows = yield LOCKED.fetch(tenant, name)
    return _schedule(rows[0]) if rows else None


def schedules_of_tasks(tenant: int, tasks: Collection[str]) -> Generator[Ask, Rows, list[Schedule]]:
    """Read the schedules that stand in the policies of tasks, and lock their rows."""
    rows = yield OF_TASKS.fetch(tenant, sorted(tasks))
    return list(map(_schedule, rows))


def page_of_schedules(
    tenant: int, *, task: str | None, paused: bool | None, after: str, most: int
) -> Generator[Ask, Rows, list[Schedule]]:
    """Read the schedules whose names come after one, by name."""
    statement = PAGES[task is not None, paused is not None]
    given: dict[str, Any] = {"tenant": tenant, "task": task, "after": after, "most": most}
    given["paused"] = None if paused is None else int(paused)
    rows = yield statement.fetch(*(given[name] for name in statement.names))
    return list(map(_schedule, rows))


def add_schedule(tenant: int, new: Schedule) -> Generator[Ask, Rows, None]:
    """Store a new schedule."""
    yield INSERT.write([(tenant, *_values(new).values())])


def save_schedule(tenant: int, changed: Schedule) -> Generator[Ask, Rows, None]:
    """Store a schedule that is there already."""
    values = _values(changed)
    yield UPDATE.write([(*(values[name] for name in _CHANGED), tenant, changed.name)])


def delete_schedule(tenant: int, name: str) -> Generator[Ask, Rows, None]:
    """Forget a schedule. What came of its due times stays for its time: none of them is ever fired again."""
    yield DELETE.write([(tenant, name)])


def page_of_fires(
    tenant: int, name: str, *, since: int, before: FirePlace, most: int
) -> Generator[Ask, Rows, list[ScheduleFire]]:
    """Read what came of a schedule's due times since it was made (ms), the newest first."""
    rows = yield FIRES.fetch(tenant, name, since, *before, most)
    return [ScheduleFire(row[0], bool(row[1]), row[2], FireOutcome(row[3]), *row[4:]) for row in rows]


def _values(one: Schedule) -> dict[str, Any]:
    return one._asdict() | {"paused": int(one.paused)}


def _schedule(row: Row) -> Schedule:
    found = Schedule._make(row)
    return found._replace(
        source=Source(found.source),
        missed=Missed(found.missed),
        overlap=Overlap(found.overlap),
        paused=bool(found.paused),
    )
