"""Operations on many runs: which runs they mean, and how far they are.

Runs are looked at in the order of their ids, a slice at a time, each found by an index and then held against the rest
of the filter: so that no look takes long, however many runs there are and however few are meant.
"""

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.bulk import OperationState, RunFilter
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.store.runs import BEFORE_ALL, database_now
from hurlbat_dispatcher.store.schema import QUEUED, RUNNING, UNHAPPY, dispatcher, inline, operation, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Row, Rows, Statement, Unindexed, bind
from hurlbat_dispatcher.store.views import LAST_ID, id_at

FIRST_ID: Final = BEFORE_ALL[1]
FOR_EVER: Final = 1 << 62
"""A time (ms) after all others."""
SLICES: Final = 20
"""Slices that are looked at in one read, as long as none has a run that is meant."""
ROOM_MS: Final = 86_400_000
"""How far the time in an id may be from when the run was created: ids are made before, by another clock."""


class Bounds(NamedTuple):
    """What an operation means besides its filter: only runs that were there when it was accepted.

    Runs that were created, and those that are final also ended, at `at` (ms) at the latest; of those that were created
    in that very millisecond the ones with a smaller id than `id`.
    """

    at: int
    id: str


ALL: Final = Bounds(FOR_EVER, LAST_ID)


class OperationRow(NamedTuple):
    """An operation as it is stored. Times are ms; `cursor` is the id up to which runs were looked at."""

    id: str
    kind: str
    filter: str
    reason: str | None
    state: str
    matched: int
    done: int
    skipped: int
    cursor: str | None
    server: str | None
    created_at: int
    finished_at: int | None

    @property
    def bounds(self) -> Bounds:
        """Return which runs were there when it was accepted."""
        return Bounds(self.created_at, self.id)


class Slice(NamedTuple):
    """Runs that are meant, by id. `until` is the id up to which was looked; None where there is no more."""

    ids: list[str]
    until: str | None


# -- the runs ----------------------------------------------------------------------------------------------------------

_MS = sa.BigInteger()
_GIVEN = ("tenant", "after", "last", "since", "until", "bound", "bound_id", "most")
_ID = run.c.id.type
_TENANT = bind("tenant", sa.Integer())
_MEANT = sa.and_(
    run.c.created_at >= bind("since", _MS),
    run.c.created_at < bind("until", _MS),
    sa.tuple_(run.c.created_at, run.c.id) < sa.tuple_(bind("bound", _MS), bind("bound_id", _ID)),
)
_ENDED_BEFORE = run.c.finished_at <= bind("bound", _MS)
_SLICES: dict[tuple[RunState, bool], Statement] = {}

BY_ID = Statement(
    sa.select(run.c.id, run.c.task, run.c.state, run.c.created_at, run.c.finished_at)
    .where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", "uuid"))
    .order_by(run.c.id),
    ("tenant", "ids"),
)


def slice_of(state: RunState, by_task: bool) -> Statement:
    """Return the statement that looks at the next runs in a state: their ids, and whether they are meant."""
    found = _SLICES.get((state, by_task))
    if found is None:
        found = _SLICES[state, by_task] = _slice(state, by_task)
    return found


def _slice(state: RunState, by_task: bool) -> Statement:
    tenant: sa.ColumnElement[Any] = run.c.tenant
    id_: sa.ColumnElement[Any] = run.c.id
    if state is RunState.RUNNING:  # there are never more of these than slots
        tenant, id_ = Unindexed(tenant), Unindexed(id_)
    walked = [tenant == _TENANT, id_ > bind("after", _ID), id_ < bind("last", _ID)]
    meant: list[sa.ColumnElement[bool]] = [_MEANT]
    task = [run.c.task == bind("task", run.c.task.type)] if by_task else []
    if state in FINAL:
        meant.append(_ENDED_BEFORE)
    if state is RunState.COMPLETED:
        walked += task
        meant.append(run.c.state == inline(state))
    else:
        walked.append({RunState.QUEUED: QUEUED, RunState.RUNNING: RUNNING}.get(state, _unhappy(state)))
        meant += task
    clause = sa.select(run.c.id, sa.and_(*meant)).where(*walked).order_by(id_).limit(bind("most", sa.Integer()))
    return Statement(clause, (*_GIVEN, *(("task",) if by_task else ())))


def _unhappy(state: RunState) -> sa.ColumnElement[bool]:
    return sa.and_(UNHAPPY, run.c.state == inline(state))


def matching(tenant: int, wanted: RunFilter, bounds: Bounds, after: str, most: int) -> Generator[Ask, Rows, Slice]:
    """Look at the next runs, at most `most` of each state, and return those that are meant."""
    if wanted.ids is not None:
        return (yield from _named(tenant, wanted, wanted.ids, bounds, after))
    since = wanted.created_after or 0
    until = FOR_EVER if wanted.created_before is None else wanted.created_before
    first = max(after, id_at(since - ROOM_MS))
    last = id_at(until + ROOM_MS)
    more = (wanted.task,) if wanted.task is not None else ()
    found: list[str] = []
    looked: str | None = None
    for state in wanted.states:
        rows = yield slice_of(state, bool(more)).fetch(
            tenant, first, last, since, until, bounds.at, bounds.id, most, *more
        )
        found += [row[0] for row in rows if row[1]]
        if len(rows) == most:
            looked = min(looked or LAST_ID, rows[-1][0])
    return Slice(sorted(id_ for id_ in found if looked is None or id_ <= looked), looked)


def _named(
    tenant: int, wanted: RunFilter, ids: Sequence[str], bounds: Bounds, after: str
) -> Generator[Ask, Rows, Slice]:
    """Return those of the runs that a filter names that are meant by the rest of it."""
    rows = yield BY_ID.fetch(tenant, [id_ for id_ in ids if id_ > after])
    return Slice([row[0] for row in rows if _is_meant(row, wanted, bounds)], None)


def _is_meant(row: Row, wanted: RunFilter, bounds: Bounds) -> bool:
    id_, task, state, created_at, finished_at = row
    return (
        state in wanted.states
        and wanted.task in (None, task)
        and created_at >= (wanted.created_after or 0)
        and (wanted.created_before is None or created_at < wanted.created_before)
        and (created_at, id_) < bounds
        and (finished_at is None or finished_at <= bounds.at)
    )


# -- the operations ----------------------------------------------------------------------------------------------------

_COLUMNS = [operation.c[name] for name in OperationRow._fields]
_AT_WORK = operation.c.state == inline(OperationState.RUNNING)
_THIS = (operation.c.tenant == bind("b_tenant", sa.Integer()), operation.c.id == bind("b_id", _ID))
_MINE = (*_THIS, _AT_WORK, operation.c.server == bind("b_server", sa.String()))

ADD = Statement(
    sa.insert(operation).values(
        {name: bind(name, operation.c[name].type) for name in ("tenant", *OperationRow._fields)}
    ),
    ("tenant", *OperationRow._fields),
)
ONE = Statement(sa.select(*_COLUMNS).where(*_THIS), ("b_tenant", "b_id"))
PAGE = Statement(
    sa.select(*_COLUMNS)
    .where(operation.c.tenant == _TENANT, operation.c.id < bind("before", _ID))
    .order_by(operation.c.id.desc())
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
COUNT_AT_WORK = Statement(
    sa.select(sa.func.count()).select_from(operation).where(operation.c.tenant == _TENANT, _AT_WORK), ("tenant",)
)
COUNT = Statement(
    sa.update(operation)
    .where(*_THIS)
    .values(
        done=operation.c.done + bind("more_done", sa.Integer()),
        skipped=operation.c.skipped + bind("more_skipped", sa.Integer()),
    ),
    ("more_done", "more_skipped", "b_tenant", "b_id"),
)
"""Count runs to which it was done, and those that were passed over."""
ADVANCE = Statement(
    sa.update(operation).where(*_MINE).values(cursor=bind("cursor", _ID)), ("cursor", "b_tenant", "b_id", "b_server")
)
_SEEN = operation.c.done + operation.c.skipped
FINISH = Statement(
    sa.update(operation)
    .where(*_MINE)
    .values(
        state=inline(OperationState.DONE),
        matched=sa.case((operation.c.matched < _SEEN, _SEEN), else_=operation.c.matched),
        skipped=sa.case(
            (operation.c.matched < _SEEN, operation.c.skipped), else_=operation.c.matched - operation.c.done
        ),
        server=sa.null(),
        finished_at=bind("now", _MS),
    ),
    ("now", "b_tenant", "b_id", "b_server"),
)
"""End an operation: what it meant in the beginning, and did not find any more, was passed over."""
_ABANDONED = Statement(
    sa.select(*_COLUMNS)
    .where(
        operation.c.tenant == _TENANT,
        _AT_WORK,
        sa.or_(
            operation.c.server.is_(None),
            ~sa.exists().where(dispatcher.c.id == operation.c.server, dispatcher.c.lease_until > DatabaseNow()),
        ),
    )
    .order_by(operation.c.id)
    .with_for_update(skip_locked=True),
    ("tenant",),
)
"""Operations at work whose server is not."""
_TAKE = Statement(
    sa.update(operation).where(*_THIS).values(server=bind("server", sa.String())), ("server", "b_tenant", "b_id")
)
_FORGET = Statement(
    sa.delete(operation).where(
        operation.c.tenant == _TENANT, operation.c.finished_at < bind("before", operation.c.finished_at.type)
    ),
    ("tenant", "before"),
)


def add(tenant: int, row: OperationRow, most: int) -> Generator[Ask, Rows, bool]:
    """Store an operation, unless as many as `most` are at work; return whether it is stored."""
    if row.state == OperationState.RUNNING:
        counted = yield COUNT_AT_WORK.fetch(tenant)
        if counted[0][0] >= most:
            return False
    yield ADD.write([(tenant, *row)])
    return True


def one(tenant: int, id_: str) -> Generator[Ask, Rows, OperationRow | None]:
    """Read an operation."""
    rows = yield ONE.fetch(tenant, id_)
    return OperationRow._make(rows[0]) if rows else None


def page(tenant: int, before: str, most: int) -> Generator[Ask, Rows, list[OperationRow]]:
    """Read the newest operations that are older than `before`."""
    rows = yield PAGE.fetch(tenant, before, most)
    return list(map(OperationRow._make, rows))


def next_slice(
    tenant: int, id_: str, server: str, most: int
) -> Generator[Ask, Rows, tuple[OperationRow, Slice] | None]:
    """Read how far an operation is, and which runs come next; None when it has ended, or another server does it."""
    row = yield from one(tenant, id_)
    if row is None or row.state != OperationState.RUNNING or row.server != server:
        return None
    wanted, found = RunFilter.from_json(row.filter), Slice([], row.cursor or FIRST_ID)
    for _ in range(SLICES):
        if found.ids or found.until is None:
            break
        found = yield from matching(tenant, wanted, row.bounds, found.until, most)
    return row, found


def advance(tenant: int, id_: str, server: str, cursor: str) -> Generator[Ask, Rows, None]:
    """Remember up to which id runs were looked at."""
    yield ADVANCE.write([(cursor, tenant, id_, server)])


def finish(tenant: int, id_: str, server: str) -> Generator[Ask, Rows, None]:
    """End an operation."""
    now = yield from database_now()
    yield FINISH.write([(now, tenant, id_, server)])


def take_over(tenant: int, server: str, keep: int) -> Generator[Ask, Rows, list[str]]:
    """Give the operations whose server is gone to this one; return their ids, the oldest first.

    Those that ended more than `keep` ms ago are forgotten; with 0 none are.
    """
    rows = yield _ABANDONED.fetch(tenant)
    ids = [row[0] for row in rows]
    yield _TAKE.write([(server, tenant, id_) for id_ in ids])
    if keep:
        now = yield from database_now()
        yield _FORGET.write([(tenant, now - keep)])
    return ids
