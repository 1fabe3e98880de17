"""The time of one host in a simulated world: the world's, off by a skew that may jump."""

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.simulation.loop import VirtualLoop

BEGIN_MS = 1_800_000_000_000
"""When worlds begin, in ms since the epoch: in January 2027."""


class VirtualClock:
    """A host's clock. `skew` is in seconds; `uptime` is how long the host runs already, which nobody else can know."""

    def __init__(self, loop: VirtualLoop, *, skew: float = 0.0, uptime: float = 0.0, begin_ms: int = BEGIN_MS) -> None:
        self.skew = skew
        self._loop = loop
        self._uptime = uptime
        self._begin_ms = begin_ms
        self._waits = SystemClock()

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, as this host believes."""
        return self._begin_ms + round((self._loop.time() + self.skew) * 1_000)

    def monotonic(self) -> float:
        """Return seconds that never go back, since this host began."""
        return self._uptime + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds of virtual time."""
        await self._waits.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """Set the clock forward, or back."""
        self.skew += seconds
