"""What happened in a world, one plain line each: the virtual time, who, what. The same seed gives the same lines."""

import hashlib

from hurlbat_dispatcher.simulation.loop import VirtualLoop

WORLD = "world"
"""Who does what no process does."""


class Trace:
    """The lines, and what is counted of them. A line must hold nothing that differs between two runs."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.lines: list[str] = []
        self._loop = loop

    def note(self, who: str, what: str) -> None:
        """Write a line."""
        self.lines.append(f"{self._loop.time():.6f} {who} {what}")

    @property
    def digest(self) -> str:
        """Return what two histories have in common only if all their lines are the same."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
