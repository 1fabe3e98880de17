"""What happened in a world, one plain line each: the virtual time, who, what. The same seed gives the same lines."""

import asyncio
import hashlib

from hurlbat_dispatcher.simulation.loop import VirtualLoop

WORLD = "world"
"""Who does what no process does."""


class Trace:
    """The lines, and what is counted of them. A line must hold nothing that differs between two runs."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.lines: list[str] = []
        self.last_at = 0.0
        """When the last line was written."""
        self._loop = loop
        self._awaited: asyncio.Future[None] | None = None

    def note(self, who: str, what: str) -> None:
        """Write a line."""
        self.last_at = self._loop.time()
        self.lines.append(f"{self.last_at:.6f} {who} {what}")
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not awaited.done():
            awaited.set_result(None)

    async def next_line(self) -> None:
        """Return when another line is written."""
        if self._awaited is None:
            self._awaited = self._loop.create_future()
        await asyncio.shield(self._awaited)

    @property
    def digest(self) -> str:
        """Return what two histories have in common only if all their lines are the same."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
