"""Remembers what was sent to workers and what came back, for people who look into an attempt.

That is no part of what is promised of runs: it is written once a second and beside them, a second of it is lost in a
crash, and where very much is sent only a part of what goes well is kept. What meets trouble goes first.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.push.record import Record
from hurlbat_dispatcher.store import deliveries as store
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.store.deliveries import DeliveryRow

log = structlog.get_logger("hurlbat.deliveries")

FLUSH_SECONDS: Final = 1.0
MOST_CLEAN: Final = 100
"""Deliveries that went well and are kept, in the time of a flush."""
MOST_TROUBLED: Final = 500
"""The same for those that did not."""


class Deliveries:
    """What this server has sent lately, and what all servers have."""

    def __init__(
        self, tenant: int, database: Database, clock: Clock, *, spawn: Callable[[Awaitable[None]], None]
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._clock = clock
        self._spawn = spawn
        self._clean: dict[str, Record] = {}
        self._troubled: dict[str, Record] = {}
        self._writing: dict[str, Record] = {}
        self._flushing = False
        self._closed = False
        self._one_at_a_time = asyncio.Lock()

    def keep(self, record: Record) -> None:
        """Take a delivery that is over."""
        kept, most = (self._clean, MOST_CLEAN) if record.clean else (self._troubled, MOST_TROUBLED)
        if len(kept) >= most or self._closed:
            return
        kept[record.id] = record
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush_soon())

    async def find(self, delivery_id: str) -> dict[str, Any] | None:
        """Return a delivery as `Record.as_json` says it; None where it was not kept. Raises `DatabaseTrouble`."""
        for held in (self._clean, self._troubled, self._writing):
            if delivery_id in held:
                return _read(held[delivery_id].as_json())
        text = await self._database.read(store.find(self._tenant, delivery_id))
        return None if text is None else _read(text)

    async def flush(self) -> None:
        """Store what was not stored yet. What cannot be is lost, and told in the log."""
        async with self._one_at_a_time:
            await self._flush()

    async def close(self) -> None:
        """Store what was not stored yet, and keep no more: afterwards nothing of this is at the database."""
        self._closed = True
        await self.flush()

    async def _flush(self) -> None:
        taken = self._clean | self._troubled
        self._clean, self._troubled = {}, {}
        self._writing |= taken
        rows = [DeliveryRow(self._tenant, one.id, one.at, one.worker, one.as_json()) for one in taken.values()]
        try:
            if rows:
                await self._database.write(store.keep(rows))
        except (DatabaseTrouble, Clash) as error:
            log.warning("what was sent to workers is not kept", deliveries=len(rows), error=str(error))
        finally:
            for name in taken:
                self._writing.pop(name, None)

    async def _flush_soon(self) -> None:
        await self._clock.sleep(FLUSH_SECONDS)
        self._flushing = False
        await self.flush()


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)
    return found
