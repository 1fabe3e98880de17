"""Schedules: the orders in which the steps of several sides can follow each other. Pure: no database, no time.

What the sides do is not known beforehand, as each step depends on what the steps before it have found. So schedules
are explored by doing them: whoever plays one asks at each fork which side goes on, and the explorer remembers which
ways it has not gone yet. The same choices must lead to the same forks.

Two schedules that differ only in the order of steps that cannot see each other end alike, and one of them is enough.
Those are left out by sleep sets (P. Godefroid, *Partial-Order Methods for the Verification of Concurrent Systems*,
1996, chapter 5): of all orders that can end differently, none is missed.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Step(NamedTuple):
    """What a side does next: `touches` is what it locks, writes, moves or shows to others, `sees` what it reads."""

    what: str
    touches: frozenset[str] = frozenset()
    sees: frozenset[str] = frozenset()


Ready = Mapping[str, Step]
"""The sides that can go on, and each one's next step."""
Choose = Callable[[Ready], str | None]
"""Says which side goes on; None: what follows was seen already in another schedule."""


def independent(one: Step, other: Step) -> bool:
    """Tell whether the order of two steps of different sides makes no difference to anybody."""
    return not (one.touches & other.touches or one.touches & other.sees or one.sees & other.touches)


def never(one: Step, other: Step) -> bool:
    """Take every order for a difference."""
    return False


@dataclass(slots=True)
class _Fork:
    ready: Ready
    asleep: frozenset[str]
    """Sides whose next step was done in another schedule, and nothing has happened since that it could see."""
    tried: list[str] = field(default_factory=list)

    def untried(self) -> str | None:
        return next((side for side in self.ready if side not in self.asleep and side not in self.tried), None)


class AllSchedules:
    """Goes through all schedules, depth first. Play one with `choose`, then ask whether there is `another`."""

    def __init__(self, independent: Callable[[Step, Step], bool] = independent) -> None:
        self._independent = independent
        self._path: list[_Fork] = []
        self._at = 0

    def choose(self, ready: Ready) -> str | None:
        """Return the side that goes on here in this schedule."""
        if self._at == len(self._path):
            fork = _Fork(dict(ready), self._asleep())
            first = fork.untried()
            if first is None:
                return None
            fork.tried.append(first)
            self._path.append(fork)
        fork = self._path[self._at]
        if fork.ready != ready:
            raise AssertionError(f"the same schedule came to {dict(ready)} and before to {fork.ready}")
        self._at += 1
        return fork.tried[-1]

    def another(self) -> bool:
        """Turn to the next schedule; tell whether there is one."""
        self._at = 0
        while self._path:
            following = self._path[-1].untried()
            if following is not None:
                self._path[-1].tried.append(following)
                return True
            self._path.pop()
        return False

    def _asleep(self) -> frozenset[str]:
        if not self._path:
            return frozenset()
        before = self._path[-1]
        done = before.ready[before.tried[-1]]
        resting = before.asleep.union(before.tried[:-1])
        return frozenset(side for side in resting if self._independent(before.ready[side], done))


class SomeSchedules:
    """Draws so many schedules; the seed decides which."""

    def __init__(self, seed: int, count: int) -> None:
        self._random = random.Random(seed)
        self._left = count

    def choose(self, ready: Ready) -> str | None:
        """Return the side that goes on here, each as likely."""
        return self._random.choice(list(ready))

    def another(self) -> bool:
        """Turn to the next schedule; tell whether there is one."""
        self._left -= 1
        return self._left > 0


Schedules = AllSchedules | SomeSchedules
