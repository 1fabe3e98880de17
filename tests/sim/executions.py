"""What goes on inside a simulated worker: one attempt at work, and the stream on which it tells of itself."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.sim.history import Key


class Stream(httpx.AsyncByteStream):
    """A body that is written while it is read. It ends when its writer says so, or when its reader leaves."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.left = False

    @property
    def open(self) -> bool:
        """Whether what is written may still be read."""
        return not self._ended and not self.left

    def write(self, piece: bytes) -> bool:
        """Write this much; tell whether somebody may read it."""
        if not self.open:
            return False
        self._pieces.append(piece)
        self._wake()
        return True

    def end(self, error: Exception | None = None) -> None:
        """End in order, or break off."""
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._error is not None:
                raise self._error
            if self._ended:
                return
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting

    async def aclose(self) -> None:
        """Leave: nobody reads any more."""
        self.left = True

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


@dataclass(slots=True, eq=False)
class Execution:
    """One attempt that a worker has. `stream` is where its lines go; without one it reports."""

    run: Mapping[str, Any]
    stream: Stream | None = None
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    reports: bool = True
    """Whether it tells of itself once there is no stream."""
    late: float = 0.0
    """For how many seconds it says nothing when it is done."""

    @property
    def key(self) -> Key:
        """The attempt."""
        return self.run["run_id"], self.run["attempt"]

    @property
    def token(self) -> str:
        """Its lease token."""
        return str(self.run["lease_token"])

    @property
    def detached(self) -> bool:
        """Whether no stream carries its lines any longer."""
        return self.stream is None or not self.stream.open

    def say(self, text: str) -> bool:
        """Write a line into the stream; tell whether there was one."""
        return self.stream is not None and self.stream.write(f"{text}\n".encode())
