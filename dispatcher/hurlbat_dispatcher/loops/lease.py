"""Keep this server's lease on a shared database, and learn who owns the lanes.

What is held is judged by our own monotonic clock, counted from before the request, so that a slow answer never makes a
lease seem longer than it is.
"""

import math
from collections.abc import Callable
from typing import Final

import structlog

from hurlbat_dispatcher.clock import AgreedClock
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.leases import Ownership, hand_over, renew

log = structlog.get_logger("hurlbat.lease")

RENEWALS: Final = 3
"""How often a lease is renewed in its length."""
FAR_OFF_MS: Final = 30_000
"""How far a host's clock may be from the database's without a warning."""
AFTER_THE_OWNER: Final = 0.05
"""Seconds after the end of the owner's lease at which the others look whether it was renewed."""
AGAIN: Final = 0.5
"""Seconds between two looks at an owner whose lease is over, and who cannot be followed yet."""


class Lease:
    """Proof that this server is believed to be alive. `seconds` is its length."""

    def __init__(
        self,
        me: str,
        database: Database,
        clock: AgreedClock,
        *,
        seconds: float,
        held: Callable[[Ownership, bool], None],
        handed_over: Callable[[], None],
    ) -> None:
        self._me = me
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._held = held
        self._handed_over = handed_over
        self._must_hand_over = False
        self._until = 0.0
        self._owner: str | None = None
        self._others_until = 0.0
        self._stopping = False
        self._warned = False

    def holds(self) -> bool:
        """Tell whether the lease is good now. On a database of our own it always is."""
        return not self._database.shared or self._clock.monotonic() < self._until

    def pause(self) -> float:
        """Return the seconds until the next look: in time to renew, and when the owner's lease may be over."""
        usual = self._seconds / RENEWALS
        if self._owner == self._me or self._stopping:
            return usual
        left = self._others_until - self._clock.monotonic()
        return min(usual, left + AFTER_THE_OWNER if left > 0 else AGAIN)

    async def run_once(self) -> None:
        """Renew it; take the lanes when nobody has them, unless this server stops."""
        if self._must_hand_over:
            await self.hand_over()
        before = self._clock.monotonic()
        self._others_until = math.inf
        length = int(self._seconds * 1000)
        held = await self._database.write(
            renew(self._me, length, alone=not self._database.shared, stopping=self._stopping)
        )
        over_by = self._clock.monotonic() - self._until
        lapsed = bool(self._until) and over_by > 0
        if lapsed:
            log.warning("the lease had run out; others may have rescued what was in flight", by=round(over_by, 3))
        if self._database.shared:
            ahead = self._clock.agree(held.now, before)
            if ahead is not None:
                self._compare(ahead)
        self._until = before + self._seconds
        self._others_until = self._clock.monotonic() + (held.lease_until - held.now) / 1000
        if held.owner != self._owner:
            self._owner = held.owner
            mine = "this server starts the runs" if held.owner == self._me else "another server starts the runs"
            log.info(mine, epoch=held.epoch, owner=held.owner)
        self._held(held, lapsed)
        if held.owner != self._me and held.over(length) and not self._stopping:
            await self._database.cut_off()  # the lanes would be ours, if nobody held on to them

    def _compare(self, ahead: int) -> None:
        """Say when this host's clock is far from the database's, which is the one that counts; `ahead` in ms."""
        wrong = abs(ahead) > FAR_OFF_MS
        if wrong and not self._warned:
            log.warning(
                "this host's clock is not the database's, by which everything goes; set it right",
                ahead_seconds=ahead / 1000,
            )
        self._warned = wrong

    async def hand_over(self) -> None:
        """Take no more work, and let another server start the runs. What is in flight here goes on.

        When it fails it is done again before the next renewal. Raises `DatabaseTrouble`.
        """
        self._stopping = self._must_hand_over = True
        await self._database.write(hand_over(self._me, int(self._seconds * 1000)))
        self._must_hand_over = False
        self._handed_over()
