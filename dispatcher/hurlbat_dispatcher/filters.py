"""Filters of events: those of policies as they are shown, and those that are made, changed and removed by hand.

What is changed is stored, read anew by every server, and in force for the events that come after.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypedDict, TypeVar, Unpack

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Ids
from hurlbat_dispatcher.domain.events import MAX_TEXT, EventFilter, is_plain
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound
from hurlbat_dispatcher.expressions import EVENT_VARIABLES, FILTER, ExpressionError, compile_for
from hurlbat_dispatcher.listening import Listening
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store import events as store
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.events import FilterRow
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script

T = TypeVar("T")

MAX_FILTERS: Final = 64
"""Filters of one task that are made by hand."""
MAX_PAYLOAD: Final = 16_384
"""Characters of a filter's payload."""
POLICY: Final = "policy."
"""What the ids of filters begin with that stand in a policy."""


class FilterChange(TypedDict, total=False):
    """What is said of a filter. None takes the expression or the scope away; the payload is raw JSON."""

    expression: str | None
    scope: str | None
    payload: str


@dataclass(frozen=True, slots=True)
class ShownFilter:
    """A filter of a task as it is shown."""

    task: str
    filter: EventFilter

    @property
    def by_hand(self) -> bool:
        """Tell whether it was made by hand, and may be changed."""
        return not self.filter.id.startswith(POLICY)


class Filters:
    """The filters of all tasks."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        listening: Listening,
        ids: Ids,
        *,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._listening = listening
        self._ids = ids
        self._announce = announce

    async def page(self, task: str, *, cursor: str | None = None, limit: int = 50) -> Page[ShownFilter]:
        """Return a task's filters: those of its policy, then those made by hand. Raises `NotFound`, `Invalid`."""
        found = await self._of(task)
        places = [n for n, one in enumerate(found) if one.filter.id == cursor]
        if cursor is not None and not places:
            raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
        begin = places[0] + 1 if places else 0
        items = found[begin : begin + limit]
        return Page(items, items[-1].filter.id if len(found) > begin + limit else None)

    async def get(self, task: str, filter_id: str) -> ShownFilter:
        """Return a filter. Raises `NotFound`."""
        for one in await self._of(task):
            if one.filter.id == filter_id:
                return one
        raise _unknown(task, filter_id)

    async def create(self, task: str, **said: Unpack[FilterChange]) -> ShownFilter:
        """Make a filter. Raises `NotFound`, `Invalid`, and `Conflict` for one too many or one that is there already."""
        if not self._policy(task).on_events:
            raise Conflict(
                "task_without_events",
                f"the task {task} listens to no events, so there is nothing to choose among; give it on_events first",
            )
        made = _changed(EventFilter(self._ids.new(), None, None), said)

        def script() -> Script[EventFilter]:
            rows = yield from store.locked_filters(self._tenant, task)
            if len(rows) >= MAX_FILTERS:
                raise Conflict(
                    "too_many_filters",
                    f"the task {task} has {MAX_FILTERS} filters that were made by hand, and may have no more;"
                    " remove one first",
                    limit=MAX_FILTERS,
                )
            self._check_new(task, made, rows)
            now = yield from database_now()
            yield from store.add_filter(FilterRow(self._tenant, task, *made, now))
            return made

        return ShownFilter(task, await self._stored(script()))

    async def update(self, task: str, filter_id: str, **said: Unpack[FilterChange]) -> ShownFilter:
        """Change a filter that was made by hand. Raises `NotFound`, `Invalid`, `Conflict`."""
        _changed((await self._by_hand(task, filter_id)).filter, said)  # what takes long is done before the transaction

        def script() -> Script[EventFilter]:
            rows = yield from store.locked_filters(self._tenant, task)
            old = _row(rows, task, filter_id)
            edited = _changed(_filter(old), said)
            self._check_new(task, edited, [row for row in rows if row is not old])
            yield from store.delete_filter(old)
            yield from store.add_filter(FilterRow(self._tenant, task, *edited, old.created_at))
            return edited

        return ShownFilter(task, await self._stored(script()))

    async def delete(self, task: str, filter_id: str) -> None:
        """Forget a filter that was made by hand. Raises `NotFound`, `Conflict`."""
        await self._by_hand(task, filter_id)

        def script() -> Script[None]:
            rows = yield from store.locked_filters(self._tenant, task)
            yield from store.delete_filter(_row(rows, task, filter_id))

        await self._stored(script())

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _of(self, task: str) -> list[ShownFilter]:
        """Return a task's filters, those made by hand as they are stored: another server may have changed them."""
        self._policy(task)
        rows = await available(self._database.read(store.filters_of(self._tenant, task)))
        return [ShownFilter(task, one) for one in (*self._listening.own_filters(task), *map(_filter, rows))]

    def _policy(self, task: str) -> TaskPolicy:
        found = self._registry.policies.get(task)
        if found is None:
            raise NotFound("task_unknown", f"there is no task {task}")
        return found

    async def _by_hand(self, task: str, filter_id: str) -> ShownFilter:
        found = await self.get(task, filter_id)
        if not found.by_hand:
            raise Conflict(
                "filter_of_task",
                f"the filter {filter_id} stands in the policy of the task {task}; change it there",
            )
        return found

    def _check_new(self, task: str, one: EventFilter, others: Sequence[FilterRow]) -> None:
        """Raise `Conflict` for a filter that says the same as another: each event would start two runs."""
        for other in (*self._listening.own_filters(task), *map(_filter, others)):
            if _content(other) == _content(one):
                sentence = f"the filter {other.id} of the task {task} says the same"
                raise Conflict("filter_exists", sentence, filter=other.id)

    async def _stored(self, script: Script[T]) -> T:
        done = await available(self._database.write(script))
        await available(self._announce())
        return done


def _changed(one: EventFilter, said: FilterChange) -> EventFilter:
    """Return a filter as it is said to be. Raises `Invalid`."""
    one = one._replace(**said)
    if one.expression is None and one.scope is None:
        raise Invalid("member_missing", "a filter needs an expression, a scope, or both", field="expression")
    if one.scope is not None and not is_plain(one.scope):
        rule = f"scope must be 1 to {MAX_TEXT} characters, no control characters among them"
        raise Invalid("member_invalid", rule, field="scope", limit=MAX_TEXT)
    if len(one.payload) > MAX_PAYLOAD:
        rule = f"payload may have at most {MAX_PAYLOAD} characters"
        raise Invalid("member_too_large", rule, field="payload", limit=MAX_PAYLOAD)
    if one.expression is not None:
        try:
            compile_for(one.expression, FILTER, EVENT_VARIABLES)
        except ExpressionError as error:
            place = "" if error.position is None else f", at character {error.position}"
            raise Invalid(error.code, f"expression: {error.sentence}{place}", field="expression") from error
    return one


def _content(one: EventFilter) -> tuple[str | None, str | None, str]:
    return one.expression, one.scope, json.dumps(json.loads(one.payload), sort_keys=True)


def _filter(row: FilterRow) -> EventFilter:
    return EventFilter(row.id, row.expression, row.scope, row.payload)


def _row(rows: Sequence[FilterRow], task: str, filter_id: str) -> FilterRow:
    for row in rows:
        if row.id == filter_id:
            return row
    raise _unknown(task, filter_id)


def _unknown(task: str, filter_id: str) -> NotFound:
    return NotFound("filter_unknown", f"the task {task} has no filter {filter_id[:64]}")
