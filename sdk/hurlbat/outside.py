"""What this package takes from the outside world: time and chance. A test may put a virtual world in their place."""

import random
import time as host
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Protocol


class World(Protocol):
    """Where time and chance come from."""

    def time(self) -> float:
        """Return seconds since the epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread for so many seconds."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`, each as likely."""
        ...

    def token(self) -> str:
        """Return 32 hex digits that nobody has had before."""
        ...


_worlds: list[World] = []


def time() -> float:
    """Return seconds since the epoch; may jump."""
    return _worlds[-1].time() if _worlds else host.time()


def monotonic() -> float:
    """Return seconds that never go back."""
    return _worlds[-1].monotonic() if _worlds else host.monotonic()


def sleep(seconds: float) -> None:
    """Block the calling thread for so many seconds."""
    if _worlds:
        _worlds[-1].sleep(seconds)
    else:
        host.sleep(seconds)


def uniform(low: float, high: float) -> float:
    """Return a number between `low` and `high`, each as likely."""
    return _worlds[-1].uniform(low, high) if _worlds else random.uniform(low, high)


def token() -> str:
    """Return 32 hex digits that nobody has had before."""
    return _worlds[-1].token() if _worlds else token_hex(16)


@contextmanager
def using(world: World) -> Iterator[None]:
    """Take time and chance from this world, in the whole process, while the block runs."""
    _worlds.append(world)
    try:
        yield
    finally:
        _worlds.remove(world)
