"""What the tests look for in journals and stamps, in the plainest words."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple


class Span(NamedTuple):
    """One attempt in the worker: from when to when, in ms, and of which run."""

    start: float
    end: float
    run_id: str


def most_at_once(spans: Iterable[Span]) -> int:
    """Return how many spans overlapped at the worst moment; one that ends as another starts does not overlap it."""
    edges = sorted(edge for span in spans for edge in ((span.start, 1), (span.end, -1)))
    worst = now = 0
    for _, step in edges:
        now += step
        worst = max(worst, now)
    return worst


def stamp(text: str) -> int:
    """Return a time of the API in ms since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def fullest_window(starts: Sequence[int], length: int, units: int = 1) -> int:
    """Return the units in the fullest of all half-open windows of so many ms, slid by single milliseconds."""
    at = Counter(starts)
    inside = fullest = 0
    for last in range(min(starts), max(starts) + 1):  # the window is [last - length + 1, last + 1)
        inside += at[last] - at[last - length]
        fullest = max(fullest, inside)
    return fullest * units
