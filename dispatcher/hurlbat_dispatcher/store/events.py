"""Events as they are read, and the filters that were made by hand. What stores an event is in `store.publishing`."""

from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.events import Event, Start, StartOutcome
from hurlbat_dispatcher.store.looks import Look
from hurlbat_dispatcher.store.schema import event, event_filter, event_start, inline, task
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Row, Rows, Statement, Unindexed, bind

EventPlace = tuple[int, str]
"""When an event was created (ms), and its id."""
LAST: Final[EventPlace] = (1 << 62, "")
"""After every event."""
FIRST: Final[EventPlace] = (-1, "")
"""Before every event."""


class FilterRow(NamedTuple):
    """A filter that was made by hand, as it is stored. Its payload is raw JSON."""

    tenant: int
    task: str
    id: str
    expression: str | None
    scope: str | None
    payload: str
    created_at: int


_SHOWN = ("id", "key", "scope", "payload", "metadata", "priority", "created_at", "replay_of")
_COLUMNS = [event.c[name] for name in _SHOWN]
_TENANT = bind("tenant", sa.Integer())

EVENTS = Statement(
    sa.select(*_COLUMNS).where(event.c.tenant == _TENANT, AnyOf(event.c.id, "ids", "varchar")), ("tenant", "ids")
)
STARTS = Statement(
    sa.select(event_start.c.event, *(event_start.c[name] for name in Start._fields))
    .where(event_start.c.tenant == _TENANT, AnyOf(event_start.c.event, "ids", "varchar"))
    .order_by(event_start.c.event, event_start.c.n),
    ("tenant", "ids"),
)


_PLACE = sa.tuple_(event.c.created_at, event.c.id)
_BEFORE = sa.tuple_(bind("created_at", event.c.created_at.type), bind("id", event.c.id.type))
_FROM = sa.tuple_(bind("from_at", event.c.created_at.type), bind("from_id", event.c.id.type))
_WALKED = (event.c.tenant == _TENANT, _PLACE < _BEFORE)
_GIVEN = ("tenant", "created_at", "id")
_NEWEST = (event.c.created_at.desc(), event.c.id.desc())
_MOST = bind("most", sa.Integer())


def _is(name: str) -> sa.ColumnElement[bool]:
    return event.c[name] == bind(name, event.c[name].type)


def _page(*names: str) -> Statement:
    clause = sa.select(*_COLUMNS).where(*_WALKED, *map(_is, names)).order_by(*_NEWEST).limit(_MOST)
    return Statement(clause, (*_GIVEN, *names, "most"))


def _held(led_by: str, other: str) -> Statement:
    clause = sa.select(*_COLUMNS).where(
        *_WALKED, _PLACE >= _FROM, _is(led_by), Unindexed(event.c[other]) == bind(other, event.c[other].type)
    )
    return Statement(clause.order_by(*_NEWEST).limit(_MOST), (*_GIVEN, "from_at", "from_id", led_by, other, "most"))


def _edge(name: str) -> Statement:
    clause = sa.select(event.c.created_at, event.c.id).where(*_WALKED, _is(name)).order_by(*_NEWEST)
    return Statement(clause.limit(inline(1)).offset(bind("rows", sa.Integer())), (*_GIVEN, name, "rows"))


PAGES = {(False, False): _page(), (True, False): _page("key"), (False, True): _page("scope")}
"""By whether they are of a key, and of a scope."""
EDGES = {name: _edge(name) for name in ("key", "scope")}
"""Where a look ends that one of them leads."""
HELD = {"key": _held("key", "scope"), "scope": _held("scope", "key")}
"""Events of a key and a scope, by which of them leads."""

_FILTERS = sa.select(*(event_filter.c[name] for name in FilterRow._fields))
_OLDEST = (event_filter.c.created_at, event_filter.c.id)
EVENT_FILTERS = Statement(_FILTERS.order_by(event_filter.c.tenant, event_filter.c.task, *_OLDEST))
_OF_TASK = (event_filter.c.tenant == _TENANT, event_filter.c.task == bind("task", event_filter.c.task.type))
FILTERS_OF = Statement(_FILTERS.where(*_OF_TASK).order_by(*_OLDEST), ("tenant", "task"))
LOCKED_TASK = Statement(
    sa.select(task.c.name)
    .where(task.c.tenant == _TENANT, task.c.name == bind("task", task.c.name.type))
    .with_for_update(),
    ("tenant", "task"),
)
ADD_FILTER = Statement(
    sa.insert(event_filter).values({name: bind(name, event_filter.c[name].type) for name in FilterRow._fields}),
    FilterRow._fields,
)
_THIS_FILTER = (*_OF_TASK, event_filter.c.id == bind("id", event_filter.c.id.type))
DELETE_FILTER = Statement(sa.delete(event_filter).where(*_THIS_FILTER), ("tenant", "task", "id"))


# -- events ------------------------------------------------------------------------------------------------------------


def many_events(tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, dict[str, Event]]:
    """Read events by id with those who listened; unknown ids are missing."""
    rows = yield EVENTS.fetch(tenant, list(ids))
    started = yield STARTS.fetch(tenant, list(ids))
    starts: dict[str, list[Start]] = {}
    for event_id, *said in started:
        start = Start._make(said)
        starts.setdefault(event_id, []).append(start._replace(outcome=StartOutcome(start.outcome)))
    return {row[0]: _event(row, starts.get(row[0], ())) for row in rows}


def look_at_events(
    tenant: int, *, key: str | None, scope: str | None, before: EventPlace, most: int, rows: int
) -> Generator[Ask, Rows, Look[Event, EventPlace]]:
    """Look for the newest events that come before a place, at most `most`, without those who listened.

    Of a key and a scope the rarer one leads, through as many entries of its index as `rows`.
    """
    given: dict[str, Any] = {"tenant": tenant, "key": key, "scope": scope, "most": most, "rows": rows - 1}
    given["created_at"], given["id"] = before

    def ask(statement: Statement) -> Ask:
        return statement.fetch(*(given[name] for name in statement.names))

    until: EventPlace | None = None
    if key is None or scope is None:
        read = yield ask(PAGES[key is not None, scope is not None])
    else:
        ends: dict[str, EventPlace] = {}
        for name, statement in EDGES.items():
            found = yield ask(statement)
            ends[name] = (found[0][0], found[0][1]) if found else FIRST
        led_by = min(ends, key=lambda name: ends[name])
        given["from_at"], given["from_id"] = ends[led_by]
        until = None if ends[led_by] == FIRST else ends[led_by]
        read = yield ask(HELD[led_by])
    events = [_event(row) for row in read]
    return Look(events, place_of(events[-1]) if len(events) == most else until)


def place_of(event: Event) -> EventPlace:
    """Return the place of an event."""
    return event.created_at, event.id


def _event(row: Row, starts: Sequence[Start] = ()) -> Event:
    return Event(*row)._replace(starts=tuple(starts))


# -- filters -----------------------------------------------------------------------------------------------------------


def all_filters() -> Generator[Ask, Rows, list[FilterRow]]:
    """Read every filter that was made by hand, those of a task in the order in which they were made."""
    rows = yield EVENT_FILTERS.fetch()
    return list(map(FilterRow._make, rows))


def filters_of(tenant: int, task_name: str) -> Generator[Ask, Rows, list[FilterRow]]:
    """Read the filters of a task that were made by hand, the oldest first."""
    rows = yield FILTERS_OF.fetch(tenant, task_name)
    return list(map(FilterRow._make, rows))


def locked_filters(tenant: int, task_name: str) -> Generator[Ask, Rows, list[FilterRow]]:
    """Read the filters of a task that were made by hand, and let nobody else change them meanwhile."""
    yield LOCKED_TASK.fetch(tenant, task_name)
    return (yield from filters_of(tenant, task_name))


def add_filter(row: FilterRow) -> Generator[Ask, Rows, None]:
    """Store a new filter."""
    yield ADD_FILTER.write([row])


def delete_filter(row: FilterRow) -> Generator[Ask, Rows, None]:
    """Forget a filter."""
    yield DELETE_FILTER.write([(row.tenant, row.task, row.id)])
