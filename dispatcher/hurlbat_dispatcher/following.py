"""Following all runs of this server: hearing the moment it is committed to which of them something has happened.

Who follows slowly is told of so many runs at once, and of the others only how many have ended, and how.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Self

MOST_RUNS: Final = 1_000
"""Runs of which one who follows is told at once."""


@dataclass(frozen=True, slots=True)
class News:
    """What has happened since it was last asked."""

    runs: Mapping[str, str | None]
    """Runs to which something has happened, in order: the state in which each has ended, or None."""
    left_out: Mapping[str, int]
    """How many others have ended, by state."""


class Following(AbstractContextManager["Following"]):
    """One who follows all runs of this server. To be left."""

    def __init__(self, leave: "Callable[[Following], None]") -> None:
        self._leave = leave
        self._bell = asyncio.Event()
        self._runs: dict[str, str | None] = {}
        self._left_out: Counter[str] = Counter()

    def heard(self, changed: Iterable[str], ended: Iterable[tuple[str, str]]) -> None:
        """Remember runs that a commit has changed, and those that it has ended, each with its state."""
        for run_id in changed:
            if run_id in self._runs or len(self._runs) < MOST_RUNS:
                self._runs.setdefault(run_id, None)
        for run_id, state in ended:
            if run_id in self._runs or len(self._runs) < MOST_RUNS:
                self._runs[run_id] = state
            else:
                self._left_out[state] += 1
        if self._runs or self._left_out:
            self._bell.set()

    async def news(self) -> News:
        """Return what has happened, as soon as there is something."""
        await self._bell.wait()
        self._bell.clear()
        news = News(self._runs, self._left_out)
        self._runs, self._left_out = {}, Counter()
        return news

    def __exit__(self, *_: object) -> None:
        self._leave(self)

    def __enter__(self) -> Self:
        return self
