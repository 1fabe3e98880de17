"""The slots of a worker: how many more attempts may go there now, and who has a right to them first."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hurlbat_dispatcher.domain.workers import Window, probe_wait

if TYPE_CHECKING:
    from hurlbat_dispatcher.domain.lanes import Pool

AGO_MS: Final = 1_000
"""How long ago trouble began of which nothing else is known."""


@dataclass(slots=True, eq=False)
class Slots:
    """The budget of one worker: attempts in flight against its window, behind a gate.

    The gate is shut while the worker is not to be sent to, half open (one probing delivery at a time) while it is
    unreachable, and shut until `not_before` after backpressure. Times are ms.
    """

    worker: str
    window: Window
    serving: bool = False
    probing: bool = False
    used: int = 0
    not_before: int = 0
    failures: int = 0
    probes: set[str] = field(default_factory=set)
    """Attempts that went through the half open gate; what was in flight before does not count as one."""
    reserved: "Pool | None" = None
    """Those who need many slots at once and were passed over too often: nobody else starts here until they have."""
    pools: "dict[Pool, None]" = field(default_factory=dict)

    def room(self, now: int) -> int:
        """Return how many more slots may be taken now, one by one."""
        if not self.serving or now < self.not_before:
            return 0
        if self.probing:
            return min(1 - len(self.probes), self.window.slots - self.used)
        return self.window.size - self.used

    def takes(self, cost: int, now: int) -> bool:
        """Tell whether an attempt that takes so many slots may start now.

        One that takes more than the window has goes to a worker that does nothing else, or it would wait for ever.
        """
        if cost <= self.room(now):
            return True
        if cost == 1 or not self.serving or now < self.not_before or self.probes:
            return False
        return cost <= self.window.slots - self.used and (self.used == 0 or self.probing)

    def answered(self, count: int, now: int) -> None:
        """Count good answers; the first opens a gate that was half open."""
        self.back()
        self.window.grow(count, now, self.used)

    def waited(self, now: int) -> None:
        """Let the window of a worker that is in use recover by the passing of time."""
        if self.serving and not self.probing and now >= self.not_before:
            self.window.grow(0, now, self.used)

    def back(self) -> None:
        """Open the gate of a worker that was away; its window begins small, so that nothing stampedes."""
        if self.probing:
            self.probing = False
            self.failures = 0
            self.probes.clear()
            self.not_before = 0
            self.window.restart()

    def unreachable(self, now: int) -> None:
        """Let one probing delivery through at a time, each later than the last."""
        if self.probing and now < self.not_before:
            return
        self.probing = True
        self.failures += 1
        self.not_before = now + probe_wait(self.failures)

    def shrink(self, now: int, age: int = AGO_MS, wait: int = 0) -> None:
        """Narrow the window, for trouble with what was sent so many ms ago; all of one flight counts once."""
        self.window.shrink(now, now - age, wait)

    def pushed_back(self, now: int, wait: int, age: int = AGO_MS) -> None:
        """Narrow the window, and send nothing for so many ms."""
        self.shrink(now, age, wait)
        self.rest(now, wait)

    def rest(self, now: int, wait: int) -> None:
        """Send nothing for so many ms."""
        self.not_before = max(self.not_before, now + wait)
