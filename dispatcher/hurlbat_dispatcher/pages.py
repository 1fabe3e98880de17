"""Lists, a page at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list, and the cursor of the next ones."""

    items: list[T]
    next_cursor: str | None


def page_by_name(found: Mapping[str, T], cursor: str | None, limit: int) -> Page[T]:
    """Return the items whose names come after the cursor, at most `limit`."""
    names = sorted(name for name in found if cursor is None or name > cursor)
    shown = names[:limit]
    return Page([found[name] for name in shown], shown[-1] if len(names) > limit else None)
