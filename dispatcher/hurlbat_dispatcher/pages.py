"""Lists, a page at a time.

What may be very many is looked at in a bounded number of short looks for each page, and others read in between. So
where few of them are as they should be, a page ends before it is full: it has what was found so far, maybe nothing, and
a cursor that goes on from there. It ends early as well where its items are large.
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
"""For one page, of those that did not find as many items as were asked for."""
AT_ONCE: Final = 51
"""Items that are read at once; as many as the usual page has, and the one that tells whether there are more."""
MORE_AT_ONCE: Final = 400
"""The same of a long page, where those that were read so far are small; it has four times as many with each read."""
MOST_BYTES: Final = 16 * 1_048_576
"""Of a page's items, about; one that is larger comes alone."""

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
    look: Callable[[P, int, int], Awaitable[Look[T, P]]],
    start: P,
    limit: int,
    place_of: Callable[[T], P],
    weight_of: Callable[[T], int],
) -> tuple[list[T], P | None]:
    """Return at most `limit` items that come after a place, and after which place there may be more.

    `look` gets a place, how many items at most, and through how many rows it may go; `weight_of` tells how large an
    item is, about, in bytes.
    """
    items: list[T] = []
    weight = looks = 0
    at_once = AT_ONCE
    rows = max(FIRST_LOOK, 2 * limit)
    while True:
        most = min(limit + 1 - len(items), at_once)
        found, until = await look(start, most, rows)
        for item in found:
            weight += weight_of(item)
            if len(items) == limit or (items and weight > MOST_BYTES):
                return items, place_of(items[-1])
            items.append(item)
        if until is None:
            return items, None
        start = until
        if weight < MOST_BYTES // 16:
            at_once = max(at_once, min(4 * at_once, MORE_AT_ONCE))
        if len(found) < most:
            looks += 1
            rows = max(rows, NEXT_LOOK)
            if looks == MOST_LOOKS or len(items) == limit:
                return items, start
