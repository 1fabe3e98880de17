"""What a check is, and how it ends."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hurlbat_app.conform.bench import Bench

PROTOCOL: Final = frozenset({"protocol"})
PLAIN: Final = frozenset({"plain"})
BOTH: Final = PROTOCOL | PLAIN

Look = Callable[[Bench], Awaitable[str]]
"""Look at the worker; return in a few words what was seen. Raises `Failed`, `Skipped`, `Hopeless` or `Trouble`."""


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold of a worker.

    `after` names checks without which nothing can be said: if one of them failed, this one is skipped.
    """

    group: str
    name: str
    says: str
    """What must hold, as a sentence."""
    why: str
    """Why that matters."""
    fix: str
    """What to do where it does not hold."""
    look: Look
    modes: frozenset[str] = PROTOCOL
    after: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """What it is called: `group.name`."""
        return f"{self.group}.{self.name}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of a check: `seen` says what was seen, and of one that was skipped why."""

    check: str
    group: str
    outcome: Outcome
    says: str
    seen: str
    why: str | None = None
    fix: str | None = None
