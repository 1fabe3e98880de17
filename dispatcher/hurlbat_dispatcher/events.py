"""Events as they are published, looked at and published again. An event is stored in one commit with what it starts."""

import asyncio
import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Ids
from hurlbat_dispatcher.domain.events import MAX_TEXT, Event, is_plain
from hurlbat_dispatcher.errors import Invalid, NotFound, Problem, Unavailable
from hurlbat_dispatcher.filters import Filters
from hurlbat_dispatcher.listening import Listening
from hurlbat_dispatcher.pages import Page, page_by_looks
from hurlbat_dispatcher.store import events as store
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.looks import Look
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.operations import Operation, Publication, Publish, Published

MAX_BULK: Final = 1_000
MAX_ROWS: Final = 2_000
"""Events and those who listen in one commit, about; it has at least one event, whole."""


@dataclass(frozen=True, slots=True)
class EventSpec:
    """What is said of an event. Payload and metadata are raw JSON, metadata an object.

    Key, scope and id have 1 to 256 characters, no control characters among them. Without an id it gets one.
    """

    key: str
    payload: str = "{}"
    id: str | None = None
    scope: str | None = None
    metadata: str = "{}"
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    """An event that is stored: new, or the one that had the id before."""

    event: Event
    created: bool


class Events:
    """All events, and the `filters` by which tasks choose among them."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        desk: Desk,
        listening: Listening,
        ids: Ids,
        filters: Filters,
        *,
        put: Callable[[Operation], None],
    ) -> None:
        self.filters = filters
        self._tenant = tenant
        self._database = database
        self._desk = desk
        self._listening = listening
        self._ids = ids
        self._put = put

    async def publish(self, spec: EventSpec) -> AcceptedEvent:
        """Store an event and start the runs of those who listen; returns after the commit.

        Raises `Invalid`, `Overloaded`, `Unavailable`, and `Conflict` for an id that another event has.
        """
        return await self._published(self._checked(spec))

    async def publish_many(self, specs: Sequence[EventSpec]) -> list[AcceptedEvent | Problem]:
        """Store up to 1,000 events, each with its runs, with an outcome for each, in order.

        Raises `Invalid`, and `Overloaded` or `Unavailable` where none of them is stored.
        """
        if len(specs) > MAX_BULK:
            raise Invalid("too_many", f"at most {MAX_BULK} events at a time", limit=MAX_BULK)
        outcomes: list[AcceptedEvent | Problem] = []
        portion: list[Publication | Problem] = []
        rows = 0
        for spec in specs:
            try:
                event = self._checked(spec)
                rows += 1 + len(event.starts)
                portion.append(event)
            except Problem as problem:
                portion.append(problem)
            if rows >= MAX_ROWS:
                outcomes += await self._portion(portion, begun=bool(outcomes))
                portion, rows = [], 0
        return outcomes + await self._portion(portion, begun=bool(outcomes))

    async def get(self, event_id: str) -> Event:
        """Return an event with those who listened. Raises `NotFound`."""
        ids = [event_id] if is_plain(event_id) else []
        found = (await available(self._database.read(store.many_events(self._tenant, ids)))).get(event_id)
        if found is None:
            raise NotFound("event_unknown", f"there is no event {event_id[:64]}")
        return found

    async def page(
        self, *, key: str | None = None, scope: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Event]:
        """Return events without those who listened, the newest first. Raises `Invalid`."""
        for name, text in (("key", key), ("scope", scope)):
            _check_text(name, text)
        start: store.EventPlace = store.LAST if cursor is None else _read_cursor(cursor)

        async def look(before: store.EventPlace, most: int, rows: int) -> Look[Event, store.EventPlace]:
            script = store.look_at_events(self._tenant, key=key, scope=scope, before=before, most=most, rows=rows)
            return await available(self._database.read(script))

        items, until = await page_by_looks(look, start, limit, store.place_of, Event.weight)
        return Page(items, until and _cursor_of(until))

    async def replay(self, event_id: str) -> Event:
        """Publish an event's content as a new event, to those who listen now. Raises as `get` and `publish` do."""
        old = await self.get(event_id)
        spec = EventSpec(old.key, old.payload, None, old.scope, old.metadata, old.priority)
        return (await self._published(self._checked(spec, replay_of=old.id))).event

    # -- inside ------------------------------------------------------------------------------------------------------

    def _checked(self, spec: EventSpec, *, replay_of: str | None = None) -> Publication:
        """Return what a turn takes in, with what the event is to start. Raises `Invalid`."""
        for name, text in (("key", spec.key), ("id", spec.id), ("scope", spec.scope)):
            _check_text(name, text)
        event_id = self._ids.new() if spec.id is None else spec.id
        event = Publication(
            event_id,
            self._tenant,
            spec.key,
            spec.scope,
            spec.payload,
            spec.metadata,
            spec.priority,
            _digest(spec),
            replay_of,
            (),
        )
        return event._replace(starts=self._listening.starts(event))

    async def _portion(self, portion: Sequence[Publication | Problem], *, begun: bool) -> list[AcceptedEvent | Problem]:
        """Store some of many events in one commit. When others are stored already, a failure is an outcome."""
        good = [one for one in portion if isinstance(one, Publication)]
        try:
            stored = await self._accepted(good) if good else []
        except Unavailable as failed:
            if not begun:
                raise
            stored = [Unavailable(failed.code, failed.detail, **failed.extra) for _ in good]
        outcomes = iter(stored)
        return [one if isinstance(one, Problem) else next(outcomes) for one in portion]

    async def _published(self, event: Publication) -> AcceptedEvent:
        [outcome] = await self._accepted([event])
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def _accepted(self, events: Sequence[Publication]) -> list[AcceptedEvent | Problem]:
        """Publish events, and show what became of each."""
        placed: list[Published | Problem] = await self._ask(Publish(events))
        ids = [one.id for one in placed if isinstance(one, Published)]
        try:
            shown = await available(self._database.read(store.many_events(self._tenant, ids)))
        except Unavailable as problem:
            said = f"the change is stored, but the event cannot be shown: {problem.detail}"
            raise Unavailable("outcome_unknown", said, retry_after=1) from problem

        def outcome(one: Published | Problem) -> AcceptedEvent | Problem:
            if isinstance(one, Problem):
                return one
            event = shown.get(one.id)
            if event is None:  # it was old, and has just gone
                return NotFound("event_unknown", f"there is no event {one.id[:64]}")
            return AcceptedEvent(event, one.created)

        return list(map(outcome, placed))

    async def _ask(self, operation: Operation) -> Any:
        if self._desk.draining:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        operation.reply = asyncio.get_running_loop().create_future()
        self._put(operation)
        return await operation.reply


def _check_text(name: str, text: str | None) -> None:
    if text is not None and not is_plain(text):
        rule = f"{name} must be 1 to {MAX_TEXT} characters, no control characters among them"
        raise Invalid("member_invalid", rule, field=name, limit=MAX_TEXT)


def _digest(spec: EventSpec) -> str:
    content = [spec.key, spec.scope, spec.payload, spec.metadata, spec.priority]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _cursor_of(place: store.EventPlace) -> str:
    return urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode()


def _read_cursor(cursor: str) -> store.EventPlace:
    try:
        created_at, _, event_id = urlsafe_b64decode(cursor).decode().partition(":")
        place = int(created_at), event_id
    except ValueError as error:
        raise _bad_cursor() from error
    if not (0 <= place[0] < 1 << 62 and is_plain(event_id)):
        raise _bad_cursor()
    return place


def _bad_cursor() -> Invalid:
    return Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
