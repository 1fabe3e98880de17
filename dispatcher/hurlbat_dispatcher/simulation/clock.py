"""The time of one host in a simulated world: the world's, off by a skew that may jump."""

import asyncio
from typing import Final

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.simulation.loop import VirtualLoop
from hurlbat_dispatcher.simulation.trace import Trace

QUIET: Final = 60.0
"""Seconds without anything after which duties begin to rest longer."""
LONGEST_REST: Final = 21_600.0
"""Seconds that a duty rests at most while nothing happens."""
BRIEF: Final = 1.0
"""Seconds below which a sleep is no duty's, and is never longer."""
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


class RestingClock(VirtualClock):
    """A clock for long idle times: who sleeps rests longer, up to six hours, the longer nothing has happened.

    The background duties of a server look again and again whether there is something to do; that in an idle world they
    find nothing is known beforehand. Whatever happens wakes those whose time has come. Timers are not touched: what is
    due is due. Nor is who sleeps for less than a second: it has something to do, and tries that again.
    """

    def __init__(self, loop: VirtualLoop, trace: Trace, *, begin_ms: int = BEGIN_MS) -> None:
        super().__init__(loop, begin_ms=begin_ms)
        self._trace = trace

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds, or later where nothing happens meanwhile."""
        now = self._loop.time()
        rest = min((now - self._trace.last_at - QUIET) / 2, LONGEST_REST)
        if rest > seconds >= BRIEF:
            try:
                async with asyncio.timeout(rest):
                    await self._trace.next_line()
            except TimeoutError:
                return
        await super().sleep(max(0.0, now + seconds - self._loop.time()))
