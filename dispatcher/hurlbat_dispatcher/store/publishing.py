"""The statements by which a turn stores events, and who listened."""

from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import event, event_start
from hurlbat_dispatcher.store.statement import AnyOf, Statement, bind


class NewEvent(NamedTuple):
    """An event as it is stored. Payload and metadata are raw JSON, `created_at` is in ms."""

    tenant: int
    id: str
    key: str
    scope: str | None
    payload: str
    metadata: str
    priority: int | None
    digest: str
    replay_of: str | None
    created_at: int


class NewStart(NamedTuple):
    """One who listened to an event, and what came of it."""

    tenant: int
    event: str
    n: int
    task: str
    filter: str | None
    outcome: str
    run: str | None
    reason: str | None


KNOWN = Statement(
    sa.select(event.c.id, event.c.digest).where(
        event.c.tenant == bind("tenant", sa.Integer()), AnyOf(event.c.id, "ids", "varchar")
    ),
    ("tenant", "ids"),
)
KEEP_EVENT = Statement(
    sa.insert(event).values({name: bind(name, event.c[name].type) for name in NewEvent._fields}), NewEvent._fields
)
KEEP_START = Statement(
    sa.insert(event_start).values({name: bind(name, event_start.c[name].type) for name in NewStart._fields}),
    NewStart._fields,
)
