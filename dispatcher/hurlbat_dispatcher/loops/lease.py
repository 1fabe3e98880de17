"""Keep this server's lease on a shared database, and learn who owns the lanes.

What is held is judged by our own monotonic clock, counted from before the request, so that a slow answer never makes a
lease seem longer than it is.
"""

from collections.abc import Callable

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.leases import renew

log = structlog.get_logger("hurlbat.lease")


class Lease:
    """Proof that this server is believed to be alive. `seconds` is its length."""

    def __init__(
        self, me: str, database: Database, clock: Clock, *, seconds: float, own: Callable[[int | None], None]
    ) -> None:
        self._me = me
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._own = own
        self._until = 0.0
        self._owner: str | None = None

    def holds(self) -> bool:
        """Tell whether the lease is good now. On a database of our own it always is."""
        return not self._database.shared or self._clock.monotonic() < self._until

    async def run_once(self) -> None:
        """Renew it; take the lanes when nobody has them."""
        before = self._clock.monotonic()
        held = await self._database.write(renew(self._me, int(self._seconds * 1000), alone=not self._database.shared))
        if self._until and before > self._until:
            log.warning("the lease had run out; others may have rescued what was in flight", by=before - self._until)
        self._until = before + self._seconds
        if held.owner != self._owner:
            self._owner = held.owner
            mine = "this server starts the runs" if held.owner == self._me else "another server starts the runs"
            log.info(mine, epoch=held.epoch, owner=held.owner)
        self._own(held.epoch if held.owner == self._me else None)
