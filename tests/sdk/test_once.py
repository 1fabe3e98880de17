"""Values that are made when they are first asked for."""

import threading
from concurrent.futures import ThreadPoolExecutor

from hurlbat.once import once


class Door:
    """Makes a key when it is asked for one."""

    def __init__(self) -> None:
        self.both = threading.Barrier(2, timeout=60)
        self.made = 0

    @once
    def key(self) -> object:
        """The key of this door."""
        self.both.wait()
        self.made += 1
        return object()


def test_two_threads_that_are_first_at_the_same_time_find_the_same() -> None:
    door = Door()
    with ThreadPoolExecutor(2) as threads:
        one, other = [done.result(60) for done in [threads.submit(lambda: door.key) for _ in range(2)]]
    assert one is other is door.key
    assert door.made == 2


def test_it_may_be_replaced() -> None:
    door = Door()
    door.key = "mine"
    assert (door.key, door.made) == ("mine", 0)
