"""Events: what one is, which keys a pattern stands for, and what came of an event for those who listen."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

MAX_TEXT: Final = 256
"""Characters of a key, a scope or an id."""
ANY: Final = "*"
"""Stands for any characters of a key, also for none. Nothing else is special in a pattern."""
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Tell whether a text may be a key, a scope or an id: not too long, no control characters, no half surrogates."""
    return 1 <= len(text) <= MAX_TEXT and _FORBIDDEN.search(text) is None


class StartOutcome(StrEnum):
    """What came of an event for one who listens."""

    STARTED = "started"
    FILTERED = "filtered"
    """A filter said no."""
    FAILED = "failed"
    """A filter could not be evaluated, or the run was refused."""


class Start(NamedTuple):
    """One who listened to an event: its task, the expression of its filter, what came of it and why, and the run."""

    task: str
    filter: str | None
    outcome: StartOutcome
    run: str | None = None
    reason: str | None = None


class Event(NamedTuple):
    """An event as it is shown. `created_at` is in ms; payload and metadata are raw JSON."""

    id: str
    key: str
    scope: str | None
    payload: str
    metadata: str
    priority: int | None
    created_at: int
    replay_of: str | None = None
    starts: tuple[Start, ...] = ()

    def weight(self) -> int:
        """Return how large it is, about, in bytes."""
        return len(self.payload) + len(self.metadata)


class EventFilter(NamedTuple):
    """Lets an event of its `scope` start a run if its `expression` is true; without one, it lets all of the scope.

    Its `payload` (raw JSON) is given to the expression and to the run.
    """

    id: str
    expression: str | None
    scope: str | None
    payload: str = "{}"

    def sees(self, scope: str | None) -> bool:
        """Tell whether it is asked about events of a scope: one with a scope sees only events of that very scope."""
        return self.scope is None or self.scope == scope


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern of keys, taken apart where its `*` stand; `parts` are at least two."""

    parts: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Pattern":
        """Read a pattern that has a `*`."""
        return cls(tuple(text.split(ANY)))

    @property
    def prefix(self) -> str:
        """Return what every key begins with that it stands for."""
        return self.parts[0]

    def matches(self, key: str) -> bool:
        """Tell whether it stands for a key: its parts are there in this order. Takes time that is linear in the key."""
        first, *middle, last = self.parts
        end = len(key) - len(last)
        at = len(first)
        if at > end or not key.startswith(first) or not key.endswith(last):
            return False
        for part in middle:  # the leftmost place leaves most for those that follow
            at = key.find(part, at, end)
            if at < 0:
                return False
            at += len(part)
        return True


class Listeners:
    """Who listens to which keys. Finding them takes about as long whether few listen or many."""

    def __init__(self, listening: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Take names, each with the keys and patterns that it listens to."""
        self._literal: dict[str, list[str]] = {}
        self._patterns: dict[str, list[tuple[Pattern, str]]] = {}
        for name, texts in listening:
            for text in texts:
                if ANY in text:
                    pattern = Pattern.of(text)
                    self._patterns.setdefault(pattern.prefix, []).append((pattern, name))
                else:
                    self._literal.setdefault(text, []).append(name)
        self._lengths = sorted({len(prefix) for prefix in self._patterns})

    def of(self, key: str) -> list[str]:
        """Return the names that listen to a key, each once, in order."""
        found = set(self._literal.get(key, ()))
        for length in self._lengths:
            if length > len(key):
                break
            for pattern, name in self._patterns.get(key[:length], ()):
                if name not in found and pattern.matches(key):
                    found.add(name)
        return sorted(found)
