"""Room for connections: how many may be open at once, and who gets the next one.

One worker has half of it at most, and of those who wait the one with the fewest comes first: many slow requests to one
worker do not keep the others from theirs.
"""

import asyncio
from collections import Counter, deque
from typing import Final

MAX_CONNECTIONS: Final = 4_000
"""At once, unless the server is set to another number."""


class Room:
    """Room for `most` connections. Belongs to one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.share = max(1, most // 2)
        """What one of them may have."""
        self._open = 0
        self._used: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def enter(self, name: str) -> None:
        """Wait for room for one more connection of `name`. Who has entered must leave."""
        if name not in self._waiting and self._has_room_for(name):
            self._take(name)
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.cancelled():
                self._forget(name, mine)
            else:  # it came at the same moment
                self.leave(name)
            raise

    def leave(self, name: str) -> None:
        """Give the room of a connection back."""
        self._open -= 1
        self._used[name] -= 1
        if not self._used[name]:
            del self._used[name]
        self._let_in()

    def _let_in(self) -> None:
        while waiting := [name for name in self._waiting if self._has_room_for(name)]:
            name = min(waiting, key=lambda one: self._used[one])
            first = self._waiting[name][0]
            self._forget(name, first)
            if not first.done():
                self._take(name)
                first.set_result(None)

    def _has_room_for(self, name: str) -> bool:
        return self._open < self.most and self._used[name] < self.share

    def _take(self, name: str) -> None:
        self._open += 1
        self._used[name] += 1

    def _forget(self, name: str, one: asyncio.Future[None]) -> None:
        line = self._waiting.get(name, deque())
        if one in line:
            line.remove(one)
            if not line:
                del self._waiting[name]
