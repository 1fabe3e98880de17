"""Parents of runs, and who waits for whom: what is read of them when a child is submitted, or waited for."""

from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import NODES, QUEUED, lane, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind

MOST_GENERATIONS: Final = 1_000
"""Ancestors of a run that are looked at."""

_TENANT = bind("tenant", sa.Integer())


class ParentRow(NamedTuple):
    """What a run hands down to those that it submits; `metadata` is raw JSON."""

    id: str
    root: str | None
    worker: str | None
    metadata: str


class KinRow(NamedTuple):
    """A run beside those that it came from. `awaited`: its parent said that it waits for its end; `draws` is JSON."""

    id: str
    parent: str | None
    kind: str
    task: str
    state: str
    worker: str | None
    awaited: int | None
    draws: str | None


PARENTS = Statement(
    sa.select(*(run.c[name] for name in ParentRow._fields)).where(
        run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", "uuid")
    ),
    ("tenant", "ids"),
)
_KIN = [run.c[name] for name in KinRow._fields[:-1]]
_line = (
    sa.select(*_KIN, run.c.lane, sa.literal_column("0").label("generation"))
    .where(run.c.tenant == _TENANT, run.c.id == bind("id", run.c.id.type))
    .cte("line", recursive=True)
)
_line = _line.union_all(
    sa.select(*_KIN, run.c.lane, _line.c.generation + sa.literal_column("1"))
    .select_from(_line.join(run, run.c.id == _line.c.parent))
    .where(run.c.tenant == _TENANT, _line.c.generation < sa.literal_column(str(MOST_GENERATIONS)))
)
LINE = Statement(
    sa.select(*(_line.c[name] for name in KinRow._fields[:-1]), lane.c.draws)
    .select_from(_line.outerjoin(lane, lane.c.id == _line.c.lane))
    .order_by(_line.c.generation),
    ("tenant", "id"),
)
"""A run, its parent, the parent of that, and so on."""
WAITING_NODES = Statement(
    sa.select(run.c.task, lane.c.draws)
    .select_from(run.outerjoin(lane, lane.c.id == run.c.lane))
    .where(run.c.tenant == _TENANT, run.c.parent == bind("workflow", run.c.parent.type), NODES, QUEUED),
    ("tenant", "workflow"),
)


def parents(tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, dict[str, ParentRow]]:
    """Read what these runs hand down; unknown ones are missing."""
    rows = yield PARENTS.fetch(tenant, list(ids))
    return {row[0]: ParentRow._make(row) for row in rows}


def line(tenant: int, run_id: str) -> Generator[Ask, Rows, list[KinRow]]:
    """Read a run and its ancestors, as far as they are still there, the run first."""
    rows = yield LINE.fetch(tenant, run_id)
    return [KinRow._make(row) for row in rows]


def waiting_nodes(tenant: int, workflow: str) -> Generator[Ask, Rows, list[tuple[str, str | None]]]:
    """Read the nodes of a workflow's run that wait for their start: the task of each, and what it draws on in JSON."""
    rows = yield WAITING_NODES.fetch(tenant, workflow)
    return [(row[0], row[1]) for row in rows]
