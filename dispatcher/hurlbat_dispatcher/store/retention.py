"""Finished runs, events, what came of schedules, and graphs that no run has, go after a time.

A node goes with its workflow's run, and not before: a replay of that needs what its nodes gave.
"""

from collections.abc import Generator, Sequence

import sqlalchemy as sa

from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.store.graph_schema import MET_BY, OF_A_CHILD, shape, wait
from hurlbat_dispatcher.store.lanes import FORGET_LANES
from hurlbat_dispatcher.store.schema import event, event_start, idempotency, inline, run, schedule_fire, timeline
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind

DAY_MS = 86_400_000
LANE_MS = 2 * DAY_MS
"""How long a lane must not have been used to be forgotten: two days."""
_IDS = ("tenant", "ids")
_TENANT = bind("tenant", sa.Integer())
_KEY_HOLDS = sa.exists().where(
    idempotency.c.tenant == run.c.tenant,
    idempotency.c.task == run.c.task,
    idempotency.c.key == run.c.idempotency_key,
    idempotency.c.run == run.c.id,
    idempotency.c.until > bind("now", sa.BigInteger()),
)
"""A key promises its run for as long as it lasts."""
_workflow = run.alias()
_OF_A_WORKFLOW = sa.or_(run.c.node.is_not(None), run.c.was_node.is_not(None))
_STAYS_WITH_IT = sa.and_(
    _OF_A_WORKFLOW, sa.exists().where(_workflow.c.tenant == run.c.tenant, _workflow.c.id == run.c.parent)
)
_MAY_GO = (
    run.c.tenant == _TENANT,
    run.c.finished_at < bind("before", sa.BigInteger()),
    run.c.holds_until.is_(None),
    ~_KEY_HOLDS,
    ~_STAYS_WITH_IT,
)
_WITHIN = (run.c.id > bind("after", run.c.id.type), run.c.id <= bind("until", run.c.id.type))
EDGE = Statement(
    sa.select(run.c.id)
    .where(run.c.tenant == _TENANT, *_WITHIN)
    .order_by(run.c.id)
    .limit(inline(1))
    .offset(bind("most", sa.Integer())),
    ("tenant", "after", "until", "most"),
)
"""The last of some runs, whatever has become of them; `most` is one less than how many."""
OLD = Statement(
    sa.select(run.c.id).where(*_MAY_GO, *_WITHIN).order_by(run.c.id), ("tenant", "before", "now", "after", "until")
)
_STILL_OLD = Statement(
    sa.select(run.c.id, run.c.kind).where(*_MAY_GO, AnyOf(run.c.id, "ids", "uuid")).with_for_update(skip_locked=True),
    ("tenant", "before", "now", "ids"),
)
NODES_OF = Statement(
    sa.select(run.c.id, run.c.kind)
    .where(run.c.tenant == _TENANT, AnyOf(run.c.parent, "parents", "uuid"), _OF_A_WORKFLOW)
    .where(run.c.finished_at.is_not(None), run.c.holds_until.is_(None))
    .limit(bind("most", sa.Integer()))
    .with_for_update(skip_locked=True),
    ("tenant", "parents", "most"),
)
"""The nodes of workflows, those among them that a replay has replaced."""
DROP_CHILD_KEYS = Statement(
    sa.delete(idempotency).where(idempotency.c.tenant == _TENANT, AnyOf(idempotency.c.run, "ids", "uuid"), OF_A_CHILD),
    _IDS,
)
"""The key of a child goes with its run."""
_DELETE = [
    Statement(sa.delete(timeline).where(timeline.c.tenant == _TENANT, AnyOf(timeline.c.run, "ids", "uuid")), _IDS),
    DROP_CHILD_KEYS,
    Statement(sa.delete(wait).where(wait.c.tenant == _TENANT, AnyOf(wait.c.run, "ids", "uuid")), _IDS),
    Statement(sa.delete(run).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", "uuid")), _IDS),
]
Key = tuple[int, str, str]
"""A tenant, a task, and an idempotency key."""
_KEY = ("tenant", "task", "key")
OVER_KEYS = Statement(
    sa.select(*(idempotency.c[name] for name in _KEY))
    .where(idempotency.c.until < bind("now", sa.BigInteger()))
    .order_by(idempotency.c.until)
    .limit(bind("most", sa.Integer())),
    ("now", "most"),
)
_DELETE_KEY = Statement(
    sa.delete(idempotency).where(
        *(idempotency.c[name] == bind(name, idempotency.c[name].type) for name in _KEY),
        idempotency.c.until < bind("now", sa.BigInteger()),
    ),
    (*_KEY, "now"),
)
"""A key that was taken again meanwhile stays."""
OLD_EVENTS = Statement(
    sa.select(event.c.id)
    .where(event.c.tenant == _TENANT, event.c.created_at < bind("before", event.c.created_at.type))
    .where(~sa.exists().where(MET_BY, wait.c.tenant == event.c.tenant, wait.c.event == event.c.id))
    .order_by(event.c.created_at, event.c.id)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
"""Not those that a node, which waits for others as well, will be told of."""
_DELETE_EVENTS = [
    Statement(
        sa.delete(event_start).where(event_start.c.tenant == _TENANT, AnyOf(event_start.c.event, "ids", "varchar")),
        _IDS,
    ),
    Statement(sa.delete(event).where(event.c.tenant == _TENANT, AnyOf(event.c.id, "ids", "varchar")), _IDS),
]

FireKey = tuple[str, int, int]
"""A schedule, a due time (ms), and 1 for one by hand."""
_FIRE_KEY = ("schedule", "due_at", "manual")
OLD_FIRES = Statement(
    sa.select(*(schedule_fire.c[name] for name in _FIRE_KEY))
    .where(
        schedule_fire.c.tenant == _TENANT,
        schedule_fire.c.fired_at < bind("before", schedule_fire.c.fired_at.type),
        ~sa.exists().where(
            run.c.tenant == schedule_fire.c.tenant, run.c.id == schedule_fire.c.run, run.c.finished_at.is_(None)
        ),
    )
    .order_by(schedule_fire.c.fired_at)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
_DELETE_FIRE = Statement(
    sa.delete(schedule_fire).where(
        schedule_fire.c.tenant == _TENANT,
        *(schedule_fire.c[name] == bind(name, schedule_fire.c[name].type) for name in _FIRE_KEY),
    ),
    ("tenant", *_FIRE_KEY),
)

_newer = shape.alias()
_next_at = (
    sa.select(sa.func.min(_newer.c.created_at))
    .where(_newer.c.tenant == shape.c.tenant, _newer.c.task == shape.c.task, _newer.c.version > shape.c.version)
    .scalar_subquery()
)
_first_run = (
    sa.select(run.c.id)
    .where(run.c.tenant == shape.c.tenant, run.c.task == shape.c.task)
    .order_by(run.c.id)
    .limit(inline(1))
    .scalar_subquery()
)
ShapeKey = tuple[str, int]
"""A workflow and a version."""
OLD_SHAPES = Statement(
    sa.select(shape.c.task, shape.c.version, _next_at, _first_run)
    .where(shape.c.tenant == _TENANT, _next_at < bind("before", sa.BigInteger()))
    .where(
        sa.tuple_(shape.c.task, shape.c.version)
        > sa.tuple_(bind("task", shape.c.task.type), bind("version", shape.c.version.type))
    )
    .order_by(shape.c.task, shape.c.version)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "task", "version", "most"),
)
"""Graphs that have a newer one, with the time when that came, and the oldest run of the workflow that is left."""
_DELETE_SHAPE = Statement(
    sa.delete(shape).where(
        *(shape.c[name] == bind(name, shape.c[name].type) for name in ("tenant", "task", "version"))
    ),
    ("tenant", "task", "version"),
)


def old_runs(
    tenant: int, *, before: int, now: int, after: str, most: int
) -> Generator[Ask, Rows, tuple[list[str], str | None]]:
    """Read which of the next runs behind the id `after` finished before then (ms), and where the next look begins.

    It looks at `most` runs, the oldest first. None when no older ones are left.
    """
    until = first_id(before)
    rows = yield EDGE.fetch(tenant, after, until, most - 1)
    edge = rows[0][0] if rows else None
    rows = yield OLD.fetch(tenant, before, now, after, edge or until)
    return [row[0] for row in rows], edge


def remove_runs(tenant: int, ids: Sequence[str], *, before: int, now: int, nodes: int) -> Generator[Ask, Rows, int]:
    """Remove those of the runs that finished before then (ms) and may still go; return how many.

    The nodes of workflows go with them; of very many, more than `nodes`, some go later.
    """
    rows = yield _STILL_OLD.fetch(tenant, before, now, list(ids))
    yield from _remove(tenant, [row[0] for row in rows])
    flows, left = [row[0] for row in rows if row[1] == RunKind.WORKFLOW], nodes
    while flows and left > 0:
        below = yield NODES_OF.fetch(tenant, flows, left)
        yield from _remove(tenant, [row[0] for row in below])
        left -= len(below)
        flows = [row[0] for row in below if row[1] == RunKind.WORKFLOW]
    return len(rows)


def forget_lanes(now: int) -> Generator[Ask, Rows, None]:
    """Forget lanes that have not been used for long."""
    yield FORGET_LANES.write([(now - LANE_MS,)])


def _remove(tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, None]:
    if ids:
        for statement in _DELETE:
            yield statement.write([(tenant, list(ids))])


def old_shapes(
    tenant: int, *, now: int, after: ShapeKey, most: int
) -> Generator[Ask, Rows, tuple[list[ShapeKey], ShapeKey | None]]:
    """Read which graphs no run has any more, of some versions after one; and after which others may come.

    A version that has a newer one, for a day at least, is no run's that was made later; so the oldest run tells.
    """
    rows = yield OLD_SHAPES.fetch(tenant, now - DAY_MS, *after, most)
    old = [(task, version) for task, version, at, first in rows if first is None or made_at(str(first)) > at + DAY_MS]
    return old, (rows[-1][0], rows[-1][1]) if len(rows) == most else None


def remove_shapes(tenant: int, keys: Sequence[ShapeKey]) -> Generator[Ask, Rows, None]:
    """Forget graphs of workflows."""
    yield _DELETE_SHAPE.write([(tenant, *key) for key in keys])


def first_id(at: int) -> str:
    """Return the smallest id that a run can have which was made then (ms) or later."""
    return f"{at >> 16:08x}-{at & 0xFFFF:04x}-7000-8000-000000000000"


def made_at(run_id: str) -> int:
    """Return when a run was made, by its id (ms)."""
    return int(run_id[:8] + run_id[9:13], 16)


def over_keys(now: int, most: int) -> Generator[Ask, Rows, list[Key]]:
    """Read which idempotency keys have had their time, some, the oldest first."""
    rows = yield OVER_KEYS.fetch(now, most)
    return [(row[0], row[1], row[2]) for row in rows]


def remove_keys(keys: Sequence[Key], now: int) -> Generator[Ask, Rows, None]:
    """Forget idempotency keys that have had their time."""
    yield _DELETE_KEY.write([(*key, now) for key in keys])


def old_events(tenant: int, *, before: int, most: int) -> Generator[Ask, Rows, list[str]]:
    """Read the ids of some events that came before then (ms), the oldest first."""
    rows = yield OLD_EVENTS.fetch(tenant, before, most)
    return [row[0] for row in rows]


def old_fires(tenant: int, *, before: int, most: int) -> Generator[Ask, Rows, list[FireKey]]:
    """Read which fires of schedules were before then (ms), the oldest first, some; not those whose runs are alive."""
    rows = yield OLD_FIRES.fetch(tenant, before, most)
    return [(row[0], row[1], row[2]) for row in rows]


def remove_fires(tenant: int, keys: Sequence[FireKey]) -> Generator[Ask, Rows, None]:
    """Forget what came of due times of schedules."""
    yield _DELETE_FIRE.write([(tenant, *key) for key in keys])


def remove_events(tenant: int, ids: list[str]) -> Generator[Ask, Rows, None]:
    """Remove events with all that is known of who listened; their ids are free again."""
    for statement in _DELETE_EVENTS:
        yield statement.write([(tenant, ids)])
