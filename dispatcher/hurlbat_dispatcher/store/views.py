"""What is read of runs by their ids for people and programs, with timelines and without."""

import json
from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import MAX_TIMELINE, Run, RunKind, TimelineEntry
from hurlbat_dispatcher.domain.story import tell
from hurlbat_dispatcher.store.schema import QUEUED, WAITING, inline, run, timeline
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Row, Rows, Statement, bind

_SHOWN = [
    "id",
    "task",
    "state",
    "attempt",
    "tries",
    "max_attempts",
    "input",
    "metadata",
    "priority",
    "created_at",
    "due_at",
    "output",
    "error",
    "started_at",
    "finished_at",
    "expires_at",
    "worker",
    "reason",
    "idempotency_key",
    "parent",
    "trigger",
    "kind",
    "root",
    "node",
    "was_node",
    "task_version",
    "child_key",
    "cancelled_by",
]
COLUMNS = [run.c[name] for name in _SHOWN]
_TENANT = run.c.tenant == bind("tenant", sa.Integer())

_MOST_ROWS: Final = MAX_TIMELINE + 100
"""Of one run's timeline: what explains its attempts is kept beyond the limit for what they say."""

ONE = Statement(
    sa.select(*COLUMNS).where(_TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
ONE_SENT = Statement(
    sa.select(*COLUMNS, run.c.delivery).where(_TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
"""With the delivery of its last attempt."""
MANY = Statement(sa.select(*COLUMNS).where(_TENANT, AnyOf(run.c.id, "ids", "uuid")), ("tenant", "ids"))
TIMELINE = Statement(
    sa.select(timeline.c.at, timeline.c.kind, timeline.c.attempt, timeline.c.detail)
    .where(timeline.c.tenant == bind("tenant", sa.Integer()), timeline.c.run == bind("run", timeline.c.run.type))
    .order_by(timeline.c.n)
    .limit(inline(_MOST_ROWS)),
    ("tenant", "run"),
)


TIMELINES = Statement(
    sa.select(timeline.c.run, timeline.c.at, timeline.c.kind, timeline.c.attempt, timeline.c.detail)
    .where(timeline.c.tenant == bind("tenant", sa.Integer()), AnyOf(timeline.c.run, "ids", "uuid"))
    .order_by(timeline.c.run, timeline.c.n),
    ("tenant", "ids"),
)

_last = (
    sa.select(timeline.c.n)
    .where(timeline.c.tenant == run.c.tenant, timeline.c.run == run.c.id)
    .order_by(timeline.c.n.desc())
    .limit(inline(1))
    .scalar_subquery()
)
MARKS = Statement(
    sa.select(run.c.id, run.c.state, run.c.attempt, run.c.due_at, _last).where(_TENANT, AnyOf(run.c.id, "ids", "uuid")),
    ("tenant", "ids"),
)
"""What is never the same again when there is something new to tell of a run."""


class Place(NamedTuple):
    """Where a run waits."""

    lane: int
    rank: int
    ready: int


PLACE = Statement(
    sa.select(run.c.lane, run.c.rank, run.c.ready).where(_TENANT, run.c.id == bind("id", run.c.id.type), QUEUED),
    ("tenant", "id"),
)
_before = (
    sa.select(run.c.id)
    .where(
        WAITING,
        run.c.lane == bind("lane", sa.Integer()),
        sa.tuple_(run.c.rank, run.c.id) < sa.tuple_(bind("rank", sa.BigInteger()), bind("id", run.c.id.type)),
    )
    .limit(bind("most", sa.Integer()))
    .subquery()
)
AHEAD = Statement(sa.select(sa.func.count()).select_from(_before), ("lane", "rank", "id", "most"))


def place_of(tenant: int, run_id: str, most: int) -> Generator[Ask, Rows, tuple[Place, int] | None]:
    """Return where a queued run waits, and how many of its lane come before it, counted up to `most`."""
    rows = yield PLACE.fetch(tenant, run_id)
    if not rows:
        return None
    place = Place._make(rows[0])
    counted = (yield AHEAD.fetch(place.lane, place.rank, run_id, most)) if place.ready else ((0,),)
    return place, counted[0][0]


LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def id_at(ms: int) -> str:
    """Return the smallest id of that time."""
    ms = min(max(ms, 0), (1 << 48) - 1)
    return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-0000-0000-000000000000"


def one_run(tenant: int, run_id: str) -> Generator[Ask, Rows, Run | None]:
    """Read one run with its timeline."""
    rows = yield ONE.fetch(tenant, run_id)
    if not rows:
        return None
    entries = yield TIMELINE.fetch(tenant, run_id)
    return _with_story(rows[0], [_entry(row) for row in entries])


def untold_run(tenant: int, run_id: str) -> Generator[Ask, Rows, tuple[Run, list[TimelineEntry], str | None] | None]:
    """Read a run with the rows of its timeline as they were written, and by what its last attempt was sent."""
    rows = yield ONE_SENT.fetch(tenant, run_id)
    if not rows:
        return None
    *shown, delivery = rows[0]
    entries = yield TIMELINE.fetch(tenant, run_id)
    return to_run(shown), [_entry(row) for row in entries], delivery


def many_runs(tenant: int, ids: list[str]) -> Generator[Ask, Rows, dict[str, Run]]:
    """Read runs by id, without timelines; unknown ids are missing."""
    rows = yield MANY.fetch(tenant, ids)
    return {found.id: found for found in map(to_run, rows)}


def told_runs(tenant: int, ids: list[str]) -> Generator[Ask, Rows, dict[str, Run]]:
    """Read runs by id with their timelines; unknown ids are missing."""
    found = yield MANY.fetch(tenant, ids)
    entries: dict[str, list[TimelineEntry]] = {}
    for run_id, *row in (yield TIMELINES.fetch(tenant, ids)):
        told = entries.setdefault(run_id, [])
        if len(told) < _MOST_ROWS:
            told.append(_entry(row))
    return {row[0]: _with_story(row, entries.get(row[0], ())) for row in found}


def marks_of(tenant: int, ids: list[str]) -> Generator[Ask, Rows, dict[str, Row]]:
    """Read for each run what changes when there is something new to tell of it; unknown ids are missing."""
    rows = yield MARKS.fetch(tenant, ids)
    return {row[0]: tuple(row) for row in rows}


def _entry(row: Row) -> TimelineEntry:
    at, kind, attempt, detail = row
    return TimelineEntry(at, kind, attempt, json.loads(detail))


def _with_story(row: Row, entries: Sequence[TimelineEntry]) -> Run:
    return to_run(row, tell(to_run(row), entries))


def to_run(row: Row, entries: tuple[TimelineEntry, ...] = ()) -> Run:
    """Make a run of a row of the columns that are shown."""
    values = dict(zip(_SHOWN, row, strict=True))
    shown = values | {
        "state": RunState(values["state"]),
        "kind": RunKind(values["kind"]),
        "worker": values["worker"] or None,
    }
    return Run(**shown, timeline=entries)
