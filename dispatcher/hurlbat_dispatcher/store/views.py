"""What is read for people and programs: one run with its timeline, and pages of runs."""

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import MAX_TIMELINE, Run, RunKind, TimelineEntry
from hurlbat_dispatcher.domain.story import tell
from hurlbat_dispatcher.store.graph_schema import OF_GRAPHS
from hurlbat_dispatcher.store.schema import DELAYED, QUEUED, RUNNING, UNHAPPY, WAITING, inline, run, timeline
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Row, Rows, Statement, Unindexed, bind

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
_COLUMNS = [run.c[name] for name in _SHOWN]
_TENANT = run.c.tenant == bind("tenant", sa.Integer())

_MOST_ROWS: Final = MAX_TIMELINE + 100
"""Of one run's timeline: what explains its attempts is kept beyond the limit for what they say."""

ONE = Statement(
    sa.select(*_COLUMNS).where(_TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
ONE_SENT = Statement(
    sa.select(*_COLUMNS, run.c.delivery).where(_TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
"""With the delivery of its last attempt."""
MANY = Statement(sa.select(*_COLUMNS).where(_TENANT, AnyOf(run.c.id, "ids", "uuid")), ("tenant", "ids"))
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


class Wanted(NamedTuple):
    """Which runs a page is to have; `delayed` are those that wait for their time. Times are ms, `until` excluded.

    `parent` is whose children and nodes they are, `root` at whose top they are.
    """

    task: str | None = None
    state: str | None = None
    delayed: bool = False
    since: int | None = None
    until: int | None = None
    parent: str | None = None
    root: str | None = None
    kind: str | None = None


# a state that has a partial index must say its condition, or the index is not used
_WITH_INDEX: Mapping[str, sa.ColumnElement[bool]] = {
    RunState.QUEUED: QUEUED,
    RunState.RUNNING: RUNNING,
    **{
        state: sa.and_(UNHAPPY, run.c.state == bind("state", run.c.state.type))
        for state in (RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED, RunState.SUSPENDED)
    },
}
_LATER = sa.and_(DELAYED, run.c.due_at > DatabaseNow())
_NEVER: Final = 1 << 62
_PAGES: dict[Wanted, Statement] = {}
_SAID: Final = "*"
"""Stands for a value, where only matters that there is one."""


def _page_of(wanted: Wanted) -> Statement:
    given = wanted._replace(
        task=wanted.task and _SAID,
        parent=wanted.parent and _SAID,
        root=wanted.root and _SAID,
        kind=None if wanted.kind is None else RunKind.TASK if wanted.kind == RunKind.TASK else _SAID,
        since=None if wanted.since is None and wanted.until is None else 0,
        until=None,
    )
    found = _PAGES.get(given)
    if found is None:
        found = _PAGES[given] = _page(given)
    return found


def _page(wanted: Wanted) -> Statement:
    tenant: sa.ColumnElement[Any] = run.c.tenant
    id_: sa.ColumnElement[Any] = run.c.id
    task: sa.ColumnElement[Any] = run.c.task
    related = wanted.parent is not None or wanted.root is not None
    # few have not ended: not the index of all runs, nor of all runs of a task, is to be walked for them
    few: set[str | None] = {RunState.QUEUED, RunState.RUNNING}
    if wanted.state in few or wanted.delayed or related:
        task = Unindexed(task)
    if wanted.state == RunState.RUNNING and not related:
        tenant, id_ = Unindexed(tenant), Unindexed(id_)
    conditions = [tenant == bind("tenant", run.c.tenant.type), id_ < bind("before", run.c.id.type)]
    names = ["tenant", "before"]
    if wanted.task is not None:
        conditions.append(task == bind("task", run.c.task.type))
        names.append("task")
    if wanted.parent is not None:
        conditions.append(run.c.parent == bind("parent", run.c.parent.type))
        names.append("parent")
    if wanted.root is not None:
        root = run.c.root if wanted.parent is None else Unindexed(run.c.root)
        conditions.append(root == bind("root", run.c.root.type))
        names.append("root")
    if wanted.kind is not None:
        alone = wanted.task is None and wanted.state is None and not wanted.delayed and not related
        kind = run.c.kind if alone else Unindexed(run.c.kind)
        conditions.append(kind == bind("kind", run.c.kind.type))
        conditions += [OF_GRAPHS] if alone and wanted.kind == _SAID else []
        names.append("kind")
    if wanted.delayed:
        conditions.append(_LATER)
    elif related and wanted.state is not None:
        conditions.append(Unindexed(run.c.state) == bind("state", run.c.state.type))
        names.append("state")
    elif wanted.state is not None:
        conditions.append(_WITH_INDEX.get(wanted.state, run.c.state == bind("state", run.c.state.type)))
        if wanted.state not in few:
            names.append("state")
    if wanted.since is not None:
        conditions += [
            id_ >= bind("after", run.c.id.type),
            run.c.created_at >= bind("since", sa.BigInteger()),
            run.c.created_at < bind("until", sa.BigInteger()),
        ]
        names += ["after", "since", "until"]
    clause = sa.select(*_COLUMNS).where(*conditions).order_by(id_.desc()).limit(bind("most", sa.Integer()))
    return Statement(clause, (*names, "most"))


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
ID_AHEAD_MS: Final = 10_000
ID_BEHIND_MS: Final = 600_000
"""How far the time in an id may be ahead of when its run was created, and behind: it is made before, by our clock."""


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


def page_of_runs(tenant: int, wanted: Wanted, *, before: str, most: int) -> Generator[Ask, Rows, list[Run]]:
    """Read the newest runs that are older than `before`, without timelines."""
    statement = _page_of(wanted)
    since = 0 if wanted.since is None else wanted.since
    until = _NEVER if wanted.until is None else wanted.until
    given: dict[str, Any] = {
        "tenant": tenant,
        "before": min(before, id_at(until + ID_AHEAD_MS)) if until < _NEVER else before,
        "after": id_at(since - ID_BEHIND_MS),
        "task": wanted.task,
        "state": wanted.state,
        "parent": wanted.parent,
        "root": wanted.root,
        "kind": wanted.kind,
        "since": since,
        "until": until,
        "most": most,
    }
    rows = yield statement.fetch(*(given[name] for name in statement.names))
    return [to_run(row) for row in rows]


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
