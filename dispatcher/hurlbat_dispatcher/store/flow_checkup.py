"""What a checkup reads of flow control: lanes and what they draw on, what is in flight there, limits and their use."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import HELD, RUNNING, lane, rate_limit, rate_use, run, task
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement, bind


class SeenLane(NamedTuple):
    """A lane; `draws` is JSON, and `digest` what it is found by."""

    id: int
    task: str
    draws: str
    digest: str


class LaneLoad(NamedTuple):
    """How many attempts of a lane are in a worker's slots, and when the last of them started (ms)."""

    worker: str
    lane: int
    attempts: int
    started_at: int


class SeenTask(NamedTuple):
    """A task; `policy` is JSON, `updated_at` in ms."""

    name: str
    policy: str
    paused: int
    updated_at: int


class SeenLimit(NamedTuple):
    """A static rate limit: at most `most` units in any `duration` (ms)."""

    key: str
    most: int
    duration: int
    updated_at: int


class SeenUse(NamedTuple):
    """Units that started in a sub-window of a rate limit, the last of them at `last` (ms)."""

    key: str
    duration: int
    bucket: int
    last: int
    units: int


@dataclass(frozen=True, slots=True)
class FlowSight:
    """All that one snapshot shows of flow control; of lanes only the newest, and those in which something runs."""

    lanes: Sequence[SeenLane] = ()
    loads: Sequence[LaneLoad] = ()
    tasks: Sequence[SeenTask] = ()
    limits: Sequence[SeenLimit] = ()
    uses: Sequence[SeenUse] = ()


_IN_FLIGHT = [
    Statement(
        sa.select(run.c.worker, run.c.lane, sa.func.count(), sa.func.max(sa.func.coalesce(run.c.started_at, 0)))
        .where(which, run.c.worker.is_not(None))
        .group_by(run.c.worker, run.c.lane)
        .order_by(run.c.worker, run.c.lane)
    )
    for which in (RUNNING, sa.and_(HELD, run.c.state != "running"))
]
_SEEN = [lane.c[name] for name in SeenLane._fields]
_newest = sa.select(lane.c.id).order_by(lane.c.id.desc()).limit(bind("most", sa.Integer()))
_used = sa.select(run.c.lane).where(sa.or_(RUNNING, HELD))
_LANES = Statement(
    sa.select(*_SEEN).where(sa.or_(lane.c.id.in_(_newest), lane.c.id.in_(_used))).order_by(lane.c.id), ("most",)
)
_TASKS = Statement(sa.select(*(task.c[name] for name in SeenTask._fields)).order_by(task.c.name))
_LIMITS = Statement(sa.select(*(rate_limit.c[name] for name in SeenLimit._fields)).order_by(rate_limit.c.key))
_USES = Statement(
    sa.select(*(rate_use.c[name] for name in SeenUse._fields))
    .order_by(rate_use.c.last.desc(), rate_use.c.key, rate_use.c.duration)
    .limit(bind("most", sa.Integer())),
    ("most",),
)


def look_at_flow(most: int) -> Generator[Ask, Rows, FlowSight]:
    """Read what a snapshot shows of flow control, at most so many rows of a kind."""
    loads: list[LaneLoad] = []
    for statement in _IN_FLIGHT:
        rows = yield statement.fetch()
        loads.extend(map(LaneLoad._make, rows))
    lanes = yield _LANES.fetch(most)
    tasks = yield _TASKS.fetch()
    limits = yield _LIMITS.fetch()
    uses = yield _USES.fetch(most)
    return FlowSight(
        list(map(SeenLane._make, lanes)),
        loads,
        list(map(SeenTask._make, tasks)),
        list(map(SeenLimit._make, limits)),
        list(map(SeenUse._make, uses)),
    )
