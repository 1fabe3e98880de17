"""What gathers submits: the run of each key that takes more, and what becomes of that run when it does."""

from collections.abc import Generator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import gathering, inline, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind


class GatheringRow(NamedTuple):
    """A gathering as it is stored: see `domain.gathering.Gathered`."""

    tenant: int
    task: str
    key: str
    run: str
    submits: int
    bytes: int
    first_at: int
    until: int


_OPEN = [gathering.c[name] for name in GatheringRow._fields]

OPEN = Statement(
    sa.select(*_OPEN)
    .where(
        gathering.c.tenant == bind("tenant", sa.Integer()),
        AnyOf(gathering.c.task, "tasks", "varchar"),
        AnyOf(gathering.c.key, "keys", "varchar"),
    )
    .order_by(gathering.c.task, gathering.c.key)
    .with_for_update(),
    ("tenant", "tasks", "keys"),
)
"""Those of these tasks and keys, locked in one order for all servers, and before the runs that they name."""

BEGIN = Statement(
    sa.insert(gathering).values({name: bind(name, gathering.c[name].type) for name in GatheringRow._fields}),
    GatheringRow._fields,
)
"""The first of a key; of two servers one is told that the other was there before it."""
_VALUES = GatheringRow._fields[3:]
GO_ON = Statement(
    sa.update(gathering)
    .where(*(gathering.c[name] == bind(f"b_{name}", gathering.c[name].type) for name in GatheringRow._fields[:3]))
    .values({name: bind(name, gathering.c[name].type) for name in _VALUES}),
    (*_VALUES, "b_tenant", "b_task", "b_key"),
)

_THIS = sa.and_(run.c.tenant == bind("b_tenant", sa.Integer()), run.c.id == bind("b_id", run.c.id.type))
_KEY = {"idempotency_key": sa.func.coalesce(run.c.idempotency_key, bind("key", run.c.idempotency_key.type))}
_TIMES = ("priority", "rank", "due_at", "expires_at")
_NEWEST = ("lane", *_TIMES, "parent", "root", "child_key", "awaited", "trigger", "input", "metadata")

REPLACE = Statement(
    sa.update(run).where(_THIS).values({name: bind(name, run.c[name].type) for name in _NEWEST} | _KEY),
    (*_NEWEST, "key", "b_tenant", "b_id"),
)
"""Let the newest submit take the place of those before it."""
_text = run.c.input
APPEND = Statement(
    sa.update(run)
    .where(_THIS)
    .values(
        {name: bind(name, run.c[name].type) for name in _TIMES}
        | {
            "input": sa.func.substr(_text, inline(1), sa.func.length(_text) - inline(1)).op("||")(
                bind("more", sa.Text())
            )
        }
        | _KEY
    ),
    (*_TIMES, "more", "key", "b_tenant", "b_id"),
)
"""Let a list have more items: `more` takes the place of its closing bracket."""
TAKE_KEY = Statement(sa.update(run).where(_THIS).values(_KEY), ("key", "b_tenant", "b_id"))

Name = tuple[int, str, str]
"""(tenant, task, key)."""
_NAME = ("tenant", "task", "key")
OVER = Statement(
    sa.select(*(gathering.c[name] for name in _NAME))
    .where(gathering.c.until < bind("before", sa.BigInteger()))
    .order_by(gathering.c.until)
    .limit(bind("most", sa.Integer())),
    ("before", "most"),
)
FORGET = Statement(
    sa.delete(gathering).where(
        *(gathering.c[name] == bind(name, gathering.c[name].type) for name in _NAME),
        gathering.c.until < bind("before", sa.BigInteger()),
    ),
    (*_NAME, "before"),
)


def over(*, before: int, most: int) -> Generator[Ask, Rows, list[Name]]:
    """Read some gatherings that were over before then (ms), the oldest first."""
    rows = yield OVER.fetch(before, most)
    return [(row[0], row[1], row[2]) for row in rows]


def forget(names: Sequence[Name], *, before: int) -> Generator[Ask, Rows, None]:
    """Forget gatherings that were over before then (ms), and have not begun anew."""
    yield FORGET.write([(*name, before) for name in sorted(names)])
