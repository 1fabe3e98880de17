"""`/events`: publish, look, publish again."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from hurlbat.jsontext import JsonTextError, items, members
from hurlbat_app.api.answers import Json, page, rfc3339
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    bad_json,
    object_of,
    optional,
    page_parameters,
    parameters,
    read_members,
    refuse_unknown,
    required,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import MAX_METADATA_BYTES, Engine, Event, EventSpec, Invalid, Problem, Start

MAX_BULK: Final = 1000
MAX_CURSOR: Final = 2048
"""Characters of a cursor: it has the id of an event in it."""
MEMBERS: Final = frozenset({"key", "payload", "id", "scope", "metadata", "priority"})
_BULK: Final = frozenset({"events"})
_NOTHING: Final[frozenset[str]] = frozenset()


class Events:
    """The endpoints of `/events`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def publish(self, request: Request) -> Response:
        """Take an event in: 201 after its commit, 200 for one that was there."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), MEMBERS)
        accepted = await self._engine.events.publish(read_event(found))
        return _answer(accepted.event, 201 if accepted.created else 200)

    async def publish_many(self, request: Request) -> Response:
        """Take up to a thousand events in, in one commit, with an outcome for each."""
        parameters(request)
        read = _read_bulk(read_members(request, await read_body(request, self._limit), _BULK))
        good = [item for item in read if isinstance(item, EventSpec)]
        outcomes = iter(await self._engine.events.publish_many(good) if good else ())
        results: list[Any] = []
        for place, item in enumerate(read):
            one = next(outcomes) if isinstance(item, EventSpec) else item
            results.append(_placed(one, place).as_json() if isinstance(one, Problem) else show_event(one.event))
        return Json({"results": results})

    async def list(self, request: Request) -> Response:
        """List events, the newest first."""
        query = parameters(request, "key", "scope", "cursor", "limit")
        cursor, limit = page_parameters(query, longest=MAX_CURSOR)
        found = await self._engine.events.page(
            key=query.get("key"), scope=query.get("scope"), cursor=cursor, limit=limit
        )
        return Json(page([show_event(one, starts=False) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show an event with those who listened."""
        parameters(request)
        return Json(show_event(await self._engine.events.get(request.path_params["event_id"])))

    async def replay(self, request: Request) -> Response:
        """Publish an event's content again, as a new event."""
        parameters(request)
        read_members(request, await read_body(request, self._limit), _NOTHING)
        return _answer(await self._engine.events.replay(request.path_params["event_id"]), 201)


def read_event(found: Members) -> EventSpec:
    """Return what is said of an event; its payload keeps the text that it came as. Raises `Invalid`."""
    required(found, "key")
    texts: dict[str, Any] = {}
    for name in ("key", "id", "scope"):
        texts[name] = optional(found, name)
        if not isinstance(texts[name], str | None):
            raise wrong(name, "must be a string")
    if texts["id"] == "bulk":
        raise wrong("id", "must not be bulk: that is a path of its own")
    payload = found.get("payload")
    return EventSpec(
        **texts,
        payload="{}" if payload is None else payload.text,
        metadata=object_of(found, "metadata", MAX_METADATA_BYTES) or "{}",
        priority=whole_of(found, "priority", -1000, 1000),
    )


def show_event(event: Event, *, starts: bool = True) -> Mapping[str, Any]:
    """Return an event as it is shown; in lists it comes without those who listened."""
    shown = {
        "id": event.id,
        "key": event.key,
        "scope": event.scope,
        "payload": Fragment(event.payload),
        "metadata": Fragment(event.metadata),
        "priority": event.priority,
        "created_at": rfc3339(event.created_at),
        "replay_of": event.replay_of,
    }
    return shown | {"starts": [_show_start(start) for start in event.starts]} if starts else shown


def _show_start(start: Start) -> dict[str, Any]:
    return {
        "task": start.task,
        "filter": start.filter,
        "outcome": start.outcome,
        "run": start.run,
        "reason": start.reason,
    }


def _answer(event: Event, status: int) -> Response:
    return Json(show_event(event), status, {"location": f"/events/{quote(event.id, safe='')}"})


def _read_bulk(found: Members) -> list[EventSpec | Problem]:
    """Return what is said of an event, or what is wrong with it, for each item of `events`."""
    listed = required(found, "events")
    if not isinstance(listed, list):
        raise wrong("events", "must be a list")
    if len(listed) > MAX_BULK:
        raise Invalid("too_many", f"events may have at most {MAX_BULK} items", field="events", limit=MAX_BULK)
    return [_read_item(text) for text in items(found["events"].text)]


def _read_item(text: str) -> EventSpec | Problem:
    try:
        found = members(text)
        refuse_unknown(found, MEMBERS)
        return read_event(found)
    except JsonTextError as error:
        return bad_json(error)
    except Invalid as error:
        return error


def _placed(problem: Problem, place: int) -> Problem:
    """Return the problem of an item, with its place."""
    inner = problem.extra.get("field")
    problem.extra["field"] = f"events[{place}].{inner}" if inner else f"events[{place}]"
    return problem
