"""Planted bugs: each is a small switch that breaks one guard of the product, inside a simulated world and nowhere else.

The simulator must find every one. One that it does not find shows that its faults are too few or its rules too weak.
Which seed finds it first is remembered, so that the test need not search; it must find it among the first 300 all the
same.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

Plant = Callable[[ExitStack], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """A guard that is broken. `hint` is a seed that finds it, with flow control and so on where it breaks that."""

    name: str
    says: str
    plant: Plant
    hint: int
    flow_control: bool
    ways: bool
    composition: bool

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Break the guard for as long as this lasts."""
        with ExitStack() as stack:
            self.plant(stack)
            yield


BUGS: Final[dict[str, Bug]] = {}


def bug(says: str, *, hint: int = 0, flow_control: bool = False) -> Callable[[Plant], Plant]:
    """Make a bug of a function that patches the product."""

    def plant(made: Plant) -> Plant:
        name = made.__name__
        room = made.__module__
        flow = flow_control or room.endswith("_flow")
        composed = room.endswith("_composition")
        BUGS[name] = Bug(name, says, made, hint, flow, room.endswith("_ways"), composed)
        return made

    return plant


def swap(stack: ExitStack, where: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put something that is made of the old in the place of a name; it is an error if there is no such name."""
    entered: AbstractContextManager[Any] = patch.object(where, name, make(getattr(where, name)))
    stack.enter_context(entered)
