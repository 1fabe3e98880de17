"""Pages of runs by what is asked of them, the newest first, a look at a time (`store.looks`).

Where an index tells all that is asked, every run is one of the page, and one statement is enough. Else the index leads
that leaves the most of the others out. A look ends after so many of its entries, and says down to which id it went.
"""

from collections.abc import Generator, Mapping
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, RunKind
from hurlbat_dispatcher.store.graph_schema import OF_GRAPHS
from hurlbat_dispatcher.store.looks import Look
from hurlbat_dispatcher.store.schema import DELAYED, QUEUED, RUNNING, UNHAPPY, inline, run
from hurlbat_dispatcher.store.statement import Ask, DatabaseNow, Rows, Statement, Unindexed, bind
from hurlbat_dispatcher.store.views import COLUMNS, id_at, to_run

ID_AHEAD_MS: Final = 10_000
ID_BEHIND_MS: Final = 600_000
"""How far the time in an id may be ahead of when its run was created, and behind: it is made before, by our clock."""
MANY: Final = 10_000
"""Running runs that are sorted for a page; where there are more, the ids of all runs are gone through."""


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


class Page(NamedTuple):
    """How the runs of a page are found; `edge` is how the end of a look is, None where one look tells all."""

    runs: Statement
    edge: Statement | None


class _Said(NamedTuple):
    """A condition, and the names of the values that it takes."""

    condition: sa.ColumnElement[bool]
    names: tuple[str, ...] = ()


_NEVER: Final = 1 << 62
_PAGES: dict[tuple[Wanted, bool], Page] = {}
_SAID: Final = "*"
"""Stands for a value, where only matters that there is one."""
_ID = run.c.id.type
_MS = sa.BigInteger()
_BEFORE = [
    _Said(run.c.tenant == bind("tenant", run.c.tenant.type), ("tenant",)),
    _Said(run.c.id < bind("before", _ID), ("before",)),
]
MANY_RUN = Statement(
    sa.select(sa.func.count()).select_from(
        sa.select(inline(1)).select_from(run).where(RUNNING).limit(bind("most", sa.Integer())).subquery()
    ),
    ("most",),
)


def look_at_runs(
    tenant: int, wanted: Wanted, *, before: str, most: int, rows: int
) -> Generator[Ask, Rows, Look[Run, str]]:
    """Look for the newest runs that are older than the id `before`, at most `most`, without timelines.

    Of the index that leads to them it goes through as many entries as `rows`.
    """
    many = wanted.state == RunState.RUNNING and (yield MANY_RUN.fetch(MANY + 1))[0][0] > MANY
    page = page_of(wanted, many=many)
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
        "rows": rows - 1,
    }
    read = yield page.runs.fetch(*(given[name] for name in page.runs.names))
    found = [to_run(row) for row in read]
    if len(found) == most:
        return Look(found, found[-1].id)
    edge: Rows = ()
    if page.edge is not None:
        edge = yield page.edge.fetch(*(given[name] for name in page.edge.names))
    return Look(found, edge[0][0] if edge else None)


def page_of(wanted: Wanted, *, many: bool = False) -> Page:
    """Return the statements of a page; `many` says that there are more running runs than can be sorted."""
    given = wanted._replace(
        task=wanted.task and _SAID,
        parent=wanted.parent and _SAID,
        root=wanted.root and _SAID,
        kind=None if wanted.kind is None else RunKind.TASK if wanted.kind == RunKind.TASK else _SAID,
        since=None if wanted.since is None and wanted.until is None else 0,
        until=None,
    )
    found = _PAGES.get((given, many))
    if found is None:
        found = _PAGES[given, many] = _page(given, many)
    return found


def _page(wanted: Wanted, many: bool) -> Page:
    if wanted.state == RunState.RUNNING and wanted.parent is None and wanted.root is None and not many:
        return Page(_running(wanted), None)
    led, names = _led(wanted, many)
    held = [said for name, said in _held(wanted).items() if name not in names]
    walked = [*_BEFORE, *led]
    if not held:
        return Page(_newest(walked), None)
    from_ = bind("after", _ID)
    edge = (
        sa.select(run.c.id)
        .where(*(said.condition for said in walked), run.c.id >= from_)
        .order_by(run.c.id.desc())
        .limit(inline(1))
        .offset(bind("rows", sa.Integer()))
        .correlate(None)
    )
    edge_names = tuple(dict.fromkeys([*(name for said in walked for name in said.names), "after", "rows"]))
    look = _Said(run.c.id >= sa.func.coalesce(edge.scalar_subquery(), from_), ("after", "rows"))
    return Page(_newest([*walked, look, *held]), Statement(edge, edge_names))


def _newest(said: list[_Said]) -> Statement:
    clause = sa.select(*COLUMNS).where(*(one.condition for one in said)).order_by(run.c.id.desc())
    names = dict.fromkeys(name for one in said for name in one.names)
    return Statement(clause.limit(bind("most", sa.Integer())), (*names, "most"))


def _running(wanted: Wanted) -> Statement:
    """Return how to take all that run, and sort them: there are seldom more of these than slots."""
    id_ = Unindexed(run.c.id)
    said = [
        _Said(Unindexed(run.c.tenant) == bind("tenant", run.c.tenant.type), ("tenant",)),
        _Said(id_ < bind("before", _ID), ("before",)),
        _Said(RUNNING),
        *(one for name, one in _held(wanted).items() if name != "state"),
    ]
    clause = sa.select(*COLUMNS).where(*(one.condition for one in said)).order_by(id_.desc())
    names = dict.fromkeys(name for one in said for name in one.names)
    return Statement(clause.limit(bind("most", sa.Integer())), (*names, "most"))


def _led(wanted: Wanted, many: bool) -> tuple[list[_Said], frozenset[str]]:
    """Return by which conditions an index leads to the runs, and what of `_held` is told by them."""
    # a state that has a partial index must say its condition, or the index is not used
    if wanted.parent is not None:
        return [_equal(run.c.parent, "parent")], frozenset({"parent"})
    if wanted.root is not None:
        return [_equal(run.c.root, "root")], frozenset({"root"})
    if wanted.delayed:
        return [_Said(DELAYED)], frozenset({"state"})
    if wanted.state == RunState.QUEUED:
        return [_Said(QUEUED)], frozenset({"state"})
    if wanted.state not in (None, RunState.COMPLETED, RunState.RUNNING):
        return [_Said(UNHAPPY), _equal(run.c.state, "state")], frozenset({"state"})
    if many:
        return [], frozenset()
    if wanted.task is not None:
        return [_equal(run.c.task, "task")], frozenset({"task"})
    if wanted.kind == _SAID:
        return [_Said(OF_GRAPHS), _equal(run.c.kind, "kind")], frozenset({"kind"})
    return [], frozenset()


def _held(wanted: Wanted) -> Mapping[str, _Said]:
    """Return all that is asked of a run, each such that no index is chosen for its sake."""
    held: dict[str, _Said] = {}
    for name in ("task", "state", "parent", "root", "kind"):
        if getattr(wanted, name) is not None:
            held[name] = _equal(Unindexed(run.c[name]), name)
    if wanted.delayed:
        held["state"] = _Said(DELAYED)
        held["delayed"] = _Said(run.c.due_at > DatabaseNow())
    if wanted.since is not None:
        made = sa.and_(run.c.created_at >= bind("since", _MS), run.c.created_at < bind("until", _MS))
        held["made"] = _Said(made, ("since", "until"))
    return held


def _equal(column: sa.ColumnElement[Any], name: str) -> _Said:
    return _Said(column == bind(name, run.c[name].type), (name,))
