"""Remove what has had its time (runs, events, fires, deliveries, keys, graphs), a few at a time; nobody waits."""

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.deliveries import old_deliveries, remove_deliveries
from hurlbat_dispatcher.store.gathering import forget, over
from hurlbat_dispatcher.store.retention import (
    ShapeKey,
    forget_lanes,
    old_events,
    old_fires,
    old_runs,
    old_shapes,
    over_keys,
    remove_events,
    remove_fires,
    remove_keys,
    remove_runs,
    remove_shapes,
)
from hurlbat_dispatcher.store.runs import BEFORE_ALL, database_now

BATCH = 500
NODES_AT_ONCE = 4
"""So many times as many nodes go with their workflows at once as runs; the rest goes later."""
WINDOW = 5_000
"""Runs that are looked at at once, whether or not they may go."""
IN_VAIN = 10
"""Windows without one that may go, after which the rest of them is for the next time."""
REST_SECONDS = 0.05
GATHERED_MS = 60_000
"""How long what is over is kept of what gathers submits."""


class Retention:
    """Removes what finished, events that came and schedules' fires, more than `seconds` ago; 0 keeps all of that."""

    def __init__(
        self, tenant: int, database: Database, clock: Clock, *, seconds: float, delivery_seconds: float = 0.0
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._clock = clock
        self._seconds = seconds
        self._delivery_seconds = delivery_seconds
        self._after = BEFORE_ALL[1]

    async def run_once(self) -> int:
        """Remove everything that is old enough; return how many runs that were.

        Where very many are old and may not go yet, as those that are due in a month, this looks at some of them only,
        and goes on behind them the next time.
        """
        now = await self._database.read(database_now())
        await self._forget_gatherings(now - GATHERED_MS)
        await self._remove_keys(now)
        await self._remove_deliveries(now - int(self._delivery_seconds * 1000))
        if not self._seconds:
            return 0
        before = now - int(self._seconds * 1000)
        await self._remove_events(before)
        await self._remove_fires(before)
        removed = await self._remove_runs(before, now)
        await self._database.write(forget_lanes(now))
        await self._remove_shapes(now)
        return removed

    async def _remove_runs(self, before: int, now: int) -> int:
        removed = in_vain = 0
        while in_vain < IN_VAIN:
            ids, edge = await self._database.read(
                old_runs(self._tenant, before=before, now=now, after=self._after, most=WINDOW)
            )
            for first in range(0, len(ids), BATCH):
                some = ids[first : first + BATCH]
                removed += await self._database.write(
                    remove_runs(self._tenant, some, before=before, now=now, nodes=NODES_AT_ONCE * BATCH)
                )
                await self._clock.sleep(REST_SECONDS)
            if edge is None:
                self._after = BEFORE_ALL[1]
                break
            self._after = edge
            in_vain = 0 if ids else in_vain + 1
        return removed

    async def _forget_gatherings(self, before: int) -> None:
        """Forget what gathered submits; where none is over this only reads."""
        while names := await self._database.read(over(before=before, most=BATCH)):
            await self._database.write(forget(names, before=before))
            await self._clock.sleep(REST_SECONDS)

    async def _remove_keys(self, now: int) -> None:
        """Forget idempotency keys whose time is over; where none is this only reads."""
        while keys := await self._database.read(over_keys(now, BATCH)):
            await self._database.write(remove_keys(keys, now))
            await self._clock.sleep(REST_SECONDS)

    async def _remove_deliveries(self, before: int) -> None:
        """Forget what was sent to workers; where none is old this only reads."""
        while ids := await self._database.read(old_deliveries(self._tenant, before=before, most=BATCH)):
            await self._database.write(remove_deliveries(self._tenant, ids))
            await self._clock.sleep(REST_SECONDS)

    async def _remove_shapes(self, now: int) -> None:
        """Forget graphs that no run has any more; where none is old this only reads."""
        after: ShapeKey | None = ("", 0)
        while after is not None:
            old, after = await self._database.read(old_shapes(self._tenant, now=now, after=after, most=BATCH))
            if old:
                await self._database.write(remove_shapes(self._tenant, old))
                await self._clock.sleep(REST_SECONDS)

    async def _remove_fires(self, before: int) -> None:
        """Remove what came of due times of schedules; where none is old this only reads."""
        while keys := await self._database.read(old_fires(self._tenant, before=before, most=BATCH)):
            await self._database.write(remove_fires(self._tenant, keys))
            await self._clock.sleep(REST_SECONDS)

    async def _remove_events(self, before: int) -> None:
        """Remove events; where none is old this only reads."""
        while ids := await self._database.read(old_events(self._tenant, before=before, most=BATCH)):
            await self._database.write(remove_events(self._tenant, ids))
            await self._clock.sleep(REST_SECONDS)
