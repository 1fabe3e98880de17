"""Walk through all states of a model, breadth first, so that the trace to whatever is found is a shortest one."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Step(NamedTuple, Generic[S]):
    """What may happen next: its name, the state after it, and the promise that it breaks, if any."""

    name: str
    after: S
    broken: str | None = None


@dataclass(frozen=True, slots=True)
class Explored:
    """What a walk found: how many states and steps there are, or a promise that is broken, and how it comes to that."""

    states: int
    steps: int
    broken: str | None = None
    trace: tuple[str, ...] = ()


STUCK = "every run can still end"
"""The promise that a state breaks from which no good end can be reached."""
MOST = 400_000


def explore(
    begin: S, steps: Callable[[S], Iterator[Step[S]]], broken: Callable[[S], str | None], ended: Callable[[S], bool]
) -> Explored:
    """Walk from `begin` through everything that can happen.

    `broken` tells which promise a state breaks, `ended` which states are good ends: every state must reach one.
    """
    came: dict[S, tuple[S, str] | None] = {begin: None}
    before: dict[S, list[S]] = {}
    queue = deque([begin])
    taken = 0
    while queue:
        state = queue.popleft()
        for step in steps(state):
            taken += 1
            before.setdefault(step.after, []).append(state)
            new = step.after not in came
            if new:
                came[step.after] = (state, step.name)
                queue.append(step.after)
            wrong = step.broken or (broken(step.after) if new else None)
            if wrong is not None:
                return Explored(len(came), taken, wrong, (*_trace(came, state), step.name))
        assert len(came) <= MOST, "the model has more states than it should"
    stuck = _stuck(came, before, ended)
    if stuck is not None:
        return Explored(len(came), taken, STUCK, _trace(came, stuck))
    return Explored(len(came), taken)


def _trace(came: dict[S, tuple[S, str] | None], state: S) -> tuple[str, ...]:
    names: list[str] = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return tuple(reversed(names))


def _stuck(came: dict[S, tuple[S, str] | None], before: dict[S, list[S]], ended: Callable[[S], bool]) -> S | None:
    """Return the first state from which no good end is in reach, if there is one: where nothing happens any more."""
    good = {state for state in came if ended(state)}
    queue = deque(good)
    while queue:
        for state in before.get(queue.popleft(), ()):
            if state not in good:
                good.add(state)
                queue.append(state)
    left = {state for states in before.values() for state in states}
    stuck = [state for state in came if state not in good]
    return next((state for state in stuck if state not in left), next(iter(stuck), None))
