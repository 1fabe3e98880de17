"""Events, which start a run of every task that listens: how they are pushed, and what came of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Required, TypedDict, Unpack, overload

from hurlbat.errors import ApiError, ConfigError
from hurlbat.jsontext import Member, members
from hurlbat.lineage import Callers
from hurlbat.payloads import encode
from hurlbat.sending import (
    Call,
    Page,
    Reply,
    Request,
    api_error,
    ask,
    in_bulk,
    list_page,
    new_key,
    not_hurlbat,
    object_in,
    path_of,
    send,
    values_of,
)

NOTHING: Final[Any] = object()
"""A payload that is not given; the server takes an empty object for it."""


class EventOptions(TypedDict, total=False):
    """What may be said with an event."""

    id: str
    """A second event with this id is answered with the first one, and starts nothing."""
    scope: str
    """Filters with a scope see only events of it."""
    metadata: Mapping[str, Any]
    """Attached to the runs that it starts."""
    priority: int
    """Of these runs, instead of their tasks'."""


class NewEvent(EventOptions, total=False):
    """An event for `push_many`."""

    key: Required[str]
    payload: Any


@dataclass(frozen=True, slots=True)
class Start:
    """What an event did at one task that listens, or at one filter of it.

    `outcome` is `started` (`run` is its id), `filtered` (the filter said no), or `failed`; `reason` says why.
    """

    task: str
    outcome: str
    filter: str | None = None
    run: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """An event as the server stored it, with what it started; in lists `starts` are left out."""

    id: str
    key: str
    scope: str | None = None
    payload: Any = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    priority: int | None = None
    created_at: str | None = None
    replay_of: str | None = None
    starts: tuple[Start, ...] = ()

    @property
    def runs(self) -> tuple[str, ...]:
        """The ids of the runs that it started."""
        return tuple(start.run for start in self.starts if start.run is not None and start.outcome == "started")


class Events:
    """Pushes events, as `hurlbat.events`. In sync code use the forms that end in `_sync`."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers

    async def push(self, key: str, payload: Any = NOTHING, **options: Unpack[EventOptions]) -> Event:
        """Store an event and start the runs of all tasks that listen, in one transaction; return what it started.

        An event whose answer is lost is pushed again under the same id, and happens once. Raises `ApiError`,
        `ConnectionFailed`, `PayloadError`.
        """
        return await self._callers.client.drive(push(key, payload, options))

    def push_sync(self, key: str, payload: Any = NOTHING, **options: Unpack[EventOptions]) -> Event:
        """Do as `push`, in sync code."""
        return self._callers.sync_client.drive(push(key, payload, options))

    @overload
    async def push_many(
        self, events: Sequence[NewEvent], *, return_exceptions: Literal[False] = False
    ) -> list[Event]: ...
    @overload
    async def push_many(
        self, events: Sequence[NewEvent], *, return_exceptions: Literal[True]
    ) -> list[Event | ApiError]: ...
    async def push_many(self, events: Sequence[NewEvent], *, return_exceptions: bool = False) -> Any:
        """Push many events in few requests; return what each one started, in order.

        What is refused does not hold up the others. The first refusal is raised when all were pushed; with
        `return_exceptions`, refusals stand in the list.
        """
        return _all(await self._callers.client.drive(push_many(events)), return_exceptions)

    @overload
    def push_many_sync(
        self, events: Sequence[NewEvent], *, return_exceptions: Literal[False] = False
    ) -> list[Event]: ...
    @overload
    def push_many_sync(
        self, events: Sequence[NewEvent], *, return_exceptions: Literal[True]
    ) -> list[Event | ApiError]: ...
    def push_many_sync(self, events: Sequence[NewEvent], *, return_exceptions: bool = False) -> Any:
        """Do as `push_many`, in sync code."""
        return _all(self._callers.sync_client.drive(push_many(events)), return_exceptions)


# -- calls -------------------------------------------------------------------------------------------------------------


def push(key: str, payload: Any, options: EventOptions) -> Call[Event]:
    """Push an event."""
    return _event((yield from send(Request("POST", "/events", _body(key, payload, options)))))


def push_many(events: Sequence[Any]) -> Call[list[Event | ApiError]]:
    """Push events in bulk; return each one or its refusal, in order."""
    bodies = []
    for place, event in enumerate(events):
        if not isinstance(event, Mapping) or not isinstance(event.get("key"), str):
            raise ConfigError(f'events[{place}] has no key, a text; say {{"key": "order.paid", "payload": …}}')
        options = {name: value for name, value in event.items() if name not in ("key", "payload")}
        bodies.append(_body(event["key"], event.get("payload", NOTHING), options))
    return [_outcome(text) for text in (yield from in_bulk("/events/bulk", "events", bodies))]


def get(event_id: str) -> Call[Event]:
    """Return an event, with what it started."""
    return _event((yield from send(Request("GET", path_of("events", event_id)))))


def list_all(key: str | None, scope: str | None, cursor: str | None, limit: int | None) -> Call[Page[Event]]:
    """Return a page of events, newest first, without what they started."""
    asked = {"key": key, "scope": scope, "cursor": cursor, "limit": limit}
    return (yield from list_page("/events", asked, event_from))


def replay(event_id: str) -> Call[Event]:
    """Let an event happen again, as a new one; where its answer is lost, it is not repeated."""
    return _event((yield from send(Request("POST", path_of("events", event_id, "replay"), repeatable=False))))


def list_filters(task: str) -> Call[list[dict[str, Any]]]:
    """Return all filters of a task."""
    found = yield from ask("GET", "tasks", task, "filters")
    filters: list[dict[str, Any]] = found["items"]
    return filters


def add_filter(task: str, expression: str | None, scope: str | None, payload: Any) -> Call[dict[str, Any]]:
    """Add a filter to a task; where its answer is lost, it is not repeated."""
    said = {"expression": expression, "scope": scope, "payload": payload}
    body = encode({name: value for name, value in said.items() if value is not None}, what="filter")
    reply = yield from send(Request("POST", path_of("tasks", task, "filters"), body, repeatable=False))
    return values_of(object_in(reply, "a filter"))


_FIELDS = frozenset(Event.__dataclass_fields__) - {"starts", "metadata"}
_START = frozenset(Start.__dataclass_fields__)


def event_from(found: Mapping[str, Member]) -> Event:
    """Return the event that a JSON object tells of; what this version does not know is left out."""
    known = {name: member.value for name, member in found.items() if name in _FIELDS}
    metadata, starts = found.get("metadata"), found.get("starts")
    return Event(
        **known,
        metadata=metadata.value if metadata and metadata.value else {},
        starts=tuple(_start(one) for one in starts.value) if starts and starts.value else (),
    )


def _start(found: Mapping[str, Any]) -> Start:
    return Start(**{name: value for name, value in found.items() if name in _START})


def _body(key: str, payload: Any, options: Mapping[str, Any]) -> str:
    unknown = options.keys() - EventOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(EventOptions.__annotations__)}")
    said = {"id": new_key()} | {name: value for name, value in options.items() if value is not None}
    payload_text = "" if payload is NOTHING else f',"payload":{encode(payload, what="payload")}'
    more = encode(said, what="event's options")
    return f'{{"key":{json.dumps(key)}{payload_text},{more[1:]}'


def _event(reply: Reply) -> Event:
    try:
        return event_from(object_in(reply, "an event"))
    except TypeError as error:
        raise not_hurlbat(reply.status, f"the answer is not an event ({error})") from error


def _outcome(text: str) -> Event | ApiError:
    found = members(text)
    if "id" in found and "key" in found:
        return event_from(found)
    return api_error(values_of(found), 422)


def _all(outcomes: list[Event | ApiError], return_exceptions: bool) -> list[Event | ApiError]:
    for outcome in outcomes:
        if isinstance(outcome, ApiError) and not return_exceptions:
            raise outcome
    return outcomes
