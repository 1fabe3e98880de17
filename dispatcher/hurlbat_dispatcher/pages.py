"""Lists, a page at a time.

What may be very many is looked at in a bounded number of short looks for each page, and others read in between. So
where few of them are as they should be, a page ends before it is full: it has what was found so far, maybe nothing, and
a cursor that goes on from there.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from hurlbat_dispatcher.store.looks import Look, P

FIRST_LOOK: Final = 1_000
"""Rows that the first look of a page goes through; it is the only one where many are as they should be."""
NEXT_LOOK: Final = 10_000
"""The same for each of the others."""
MOST_LOOKS: Final = 10
"""For one page."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor of the next ones; fewer than were asked for may come with a cursor."""

    items: list[T]
    next_cursor: str | None


def page_by_name(found: Mapping[str, T], cursor: str | None, limit: int) -> Page[T]:
    """Return the items whose names come after the cursor, at most `limit`."""
    names = sorted(name for name in found if cursor is None or name > cursor)
    shown = names[:limit]
    return Page([found[name] for name in shown], shown[-1] if len(names) > limit else None)


async def page_by_looks(
    look: Callable[[P, int, int], Awaitable[Look[T, P]]], start: P, limit: int, place_of: Callable[[T], P]
) -> tuple[list[T], P | None]:
    """Return at most `limit` items that come after a place, and after which place there may be more.

    `look` gets a place, how many items at most, and through how many rows it may go.
    """
    items: list[T] = []
    rows = max(FIRST_LOOK, 2 * limit)
    for _ in range(MOST_LOOKS):
        found, until = await look(start, limit + 1 - len(items), rows)
        items += found
        if len(items) > limit:
            return items[:limit], place_of(items[limit - 1])
        if until is None or len(items) == limit:
            return items, until
        start, rows = until, max(rows, NEXT_LOOK)
    return items, start
