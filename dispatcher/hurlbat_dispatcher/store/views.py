"""What is read for people and programs: one run with its timeline, and pages of runs."""

import json
from collections.abc import Generator, Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import MAX_TIMELINE, Run, TimelineEntry
from hurlbat_dispatcher.store.schema import QUEUED, RUNNING, UNHAPPY, WAITING, inline, run, timeline
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Row, Rows, Statement, Unindexed, bind

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
]
_COLUMNS = [run.c[name] for name in _SHOWN]
_TENANT = run.c.tenant == bind("tenant", sa.Integer())

ONE = Statement(
    sa.select(*_COLUMNS).where(_TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
MANY = Statement(sa.select(*_COLUMNS).where(_TENANT, AnyOf(run.c.id, "ids", "uuid")), ("tenant", "ids"))
TIMELINE = Statement(
    sa.select(timeline.c.at, timeline.c.kind, timeline.c.attempt, timeline.c.detail)
    .where(timeline.c.tenant == bind("tenant", sa.Integer()), timeline.c.run == bind("run", timeline.c.run.type))
    .order_by(timeline.c.n)
    .limit(inline(MAX_TIMELINE + 100)),
    ("tenant", "run"),
)


# a state that has a partial index must say its condition, or the index is not used
_WITH_INDEX: Mapping[str, sa.ColumnElement[bool]] = {
    RunState.QUEUED: QUEUED,
    RunState.RUNNING: RUNNING,
    **{
        state: sa.and_(UNHAPPY, run.c.state == bind("state", run.c.state.type))
        for state in (RunState.FAILED, RunState.CANCELLED, RunState.SKIPPED, RunState.SUSPENDED)
    },
}
_PAGES: dict[tuple[bool, str | None], Statement] = {}


def _page_of(by_task: bool, state: str | None) -> Statement:
    found = _PAGES.get((by_task, state))
    if found is None:
        found = _PAGES[by_task, state] = _page(by_task, state)
    return found


def _page(by_task: bool, state: str | None) -> Statement:
    tenant: sa.ColumnElement[Any] = run.c.tenant
    id_: sa.ColumnElement[Any] = run.c.id
    task: sa.ColumnElement[Any] = run.c.task
    # few have not ended: not the index of all runs, nor of all runs of a task, is to be walked for them
    few: set[str | None] = {RunState.QUEUED, RunState.RUNNING}
    if state in few:
        task = Unindexed(task)
    if state == RunState.RUNNING:
        tenant, id_ = Unindexed(tenant), Unindexed(id_)
    conditions = [tenant == bind("tenant", run.c.tenant.type), id_ < bind("before", run.c.id.type)]
    names = ["tenant", "before"]
    if by_task:
        conditions.append(task == bind("task", run.c.task.type))
        names.append("task")
    if state is not None:
        conditions.append(_WITH_INDEX.get(state, run.c.state == bind("state", run.c.state.type)))
        if state not in few:
            names.append("state")
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


def one_run(tenant: int, run_id: str) -> Generator[Ask, Rows, Run | None]:
    """Read one run with its timeline."""
    rows = yield ONE.fetch(tenant, run_id)
    if not rows:
        return None
    found = to_run(rows[0])
    entries = yield TIMELINE.fetch(tenant, run_id)
    return to_run(rows[0], tell(found, [TimelineEntry(row[0], row[1], row[2], json.loads(row[3])) for row in entries]))


def many_runs(tenant: int, ids: list[str]) -> Generator[Ask, Rows, dict[str, Run]]:
    """Read runs by id, without timelines; unknown ids are missing."""
    rows = yield MANY.fetch(tenant, ids)
    return {found.id: found for found in map(to_run, rows)}


def page_of_runs(
    tenant: int, *, task: str | None, state: str | None, before: str, most: int
) -> Generator[Ask, Rows, list[Run]]:
    """Read the newest runs that are older than `before`, without timelines."""
    statement = _page_of(task is not None, state)
    given: dict[str, Any] = {"tenant": tenant, "before": before, "task": task, "state": state, "most": most}
    rows = yield statement.fetch(*(given[name] for name in statement.names))
    return [to_run(row) for row in rows]


def to_run(row: Row, entries: tuple[TimelineEntry, ...] = ()) -> Run:
    """Make a run of a row of the columns that are shown."""
    values = dict(zip(_SHOWN, row, strict=True))
    return Run(**(values | {"state": RunState(values["state"])}), timeline=entries)


_ORDER = {"created": 0, "scheduled": 1, "started": 2}
_HIDDEN = ("started_at", "worker")


def tell(run_: Run, rows: list[TimelineEntry]) -> tuple[TimelineEntry, ...]:
    """Tell the whole story of a run: its columns, and the rows of surprises between them."""
    told = [TimelineEntry(run_.created_at, "created", 0)]
    if run_.due_at > run_.created_at and run_.attempt == 0:
        told.append(TimelineEntry(run_.created_at, "scheduled", 0, {"due_at": run_.due_at}))
    begun: set[int] = set()
    for row in rows:
        started_at = row.detail.get("started_at")
        if started_at is not None and row.attempt not in begun:
            begun.add(row.attempt)
            told.append(TimelineEntry(started_at, "started", row.attempt, {"worker": row.detail.get("worker")}))
        shown = {name: value for name, value in row.detail.items() if name not in _HIDDEN and value is not None}
        if row.kind == "replayed" and "finished_at" in shown:
            ended_at = shown.pop("finished_at")
            told.append(TimelineEntry(ended_at, shown.pop("was"), row.attempt, shown))
            shown = {}
        told.append(TimelineEntry(row.at, row.kind, row.attempt, shown))
    if run_.started_at is not None and run_.attempt not in begun:
        told.append(TimelineEntry(run_.started_at, "started", run_.attempt, {"worker": run_.worker}))
    told.sort(key=lambda entry: (entry.at, entry.attempt, _ORDER.get(entry.kind, 3)))
    if run_.finished_at is not None:
        detail = {} if run_.reason is None else {"reason": run_.reason}
        end = TimelineEntry(run_.finished_at, str(run_.state), run_.attempt, detail)
        told.insert(len(told) - sum(_after(entry, end) for entry in told), end)
    return tuple(told)


def _after(entry: TimelineEntry, end: TimelineEntry) -> bool:
    """Tell whether an answer came when the run had ended; one of its last attempt within that moment did."""
    return entry.kind == "late" and (entry.at, entry.attempt) >= (end.at, end.attempt)
