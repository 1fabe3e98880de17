"""How workers stand, in memory before it is stored: their states, and when each was last heard of.

What is learned is in force at once and stored soon; reading the registry anew meanwhile takes nothing of it back.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.workers import Worker, WorkerState
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.secrecy import Vault
from hurlbat_dispatcher.store import workers as store
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.store.events import FilterRow, all_filters
from hurlbat_dispatcher.store.limits import Limited, all_limited
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.webhooks import WebhookRow, all_webhooks
from hurlbat_dispatcher.store.workers import Registered

log = structlog.get_logger("hurlbat.standing")

NEVER: Final = 1 << 62
SEEN_EVERY_MS: Final = 60_000
"""How far what is stored of a worker's last answer may lag behind."""


@dataclass(frozen=True, slots=True)
class Move:
    """A worker goes to another state, if it is in one of some."""

    name: str
    among: frozenset[WorkerState]
    to: WorkerState
    problem: str | None


class Standing:
    """Keeps the registry in memory ahead of the database."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        vault: Vault,
        clock: Clock,
        *,
        changed: Callable[[], None],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._vault = vault
        self._clock = clock
        self._changed = changed
        self._reading = asyncio.Lock()
        self._storing = asyncio.Lock()
        self._moves: deque[Move] = deque()
        self._seen: dict[str, int] = {}
        self._stored: dict[str, int] = {}
        self._read: Registered | None = None
        self._good_until = 0
        self._first_end = NEVER
        self._ahead = 0

    async def load(self) -> None:
        """Read what is registered. Cheap where nothing has changed: a few statements in one transaction."""
        async with self._reading:  # or an older snapshot could come after a newer one, or after a move was stored
            now, registered, limited, filters, webhooks = await self._database.read(_registered())
            self._registry.limit(limited)
            self._registry.hook(webhooks, self._vault)
            self._registry.filter(filters)
            if registered == self._read and now < self._good_until:
                return
            self._registry.replace(registered, self._vault, now)
            self._read = registered
            ends = [
                key["until"]
                for keys in self._registry.secrets.values()
                for key in keys
                if key["secret"] is not None and key["until"] is not None
            ]
            self._good_until = min((end for end in ends if end > now), default=NEVER)
            self._first_end = min(ends, default=NEVER)
            self._ahead = now - self._clock.now_ms()
            for move in self._moves:
                self._apply(move)

    def overlap_is_over(self) -> bool:
        """Tell whether the time of a replaced key is over by the database's clock, as far as that is known here."""
        return self._clock.now_ms() + self._ahead >= self._first_end

    def move(self, move: Move) -> Worker | None:
        """Change a worker's state in memory, to be stored; return it as it was, or None where it does not apply."""
        before = self._registry.workers.get(move.name)
        if before is None or not self._apply(move):
            return None
        self._moves.append(move)
        return before

    def saw(self, name: str) -> None:
        """Remember that a worker has just answered as it should."""
        self._seen[name] = self._clock.now_ms()

    def last_seen(self, worker: Worker) -> int | None:
        """Return when a worker last answered as it should, by the newest that is known."""
        return max(filter(None, (self._seen.get(worker.name), worker.last_seen_at)), default=None)

    async def store(self) -> None:
        """Store what is in force in memory only. What a database in trouble does not take is kept for the next time."""
        async with self._storing:
            try:
                await self._store_moves()
                await self._store_seen()
            except (DatabaseTrouble, Clash) as error:
                log.warning("how workers stand could not be stored yet", error=str(error))

    async def _store_moves(self) -> None:
        stored = bool(self._moves)
        while self._moves:
            move = self._moves[0]
            try:
                await self._database.write(self._write(move))
            except (DatabaseTrouble, Clash):
                raise
            except Exception as error:  # a problem's text that no database takes must not hold up the others
                log.error("a worker's state cannot be stored", worker=move.name, state=move.to, error=repr(error))
            async with self._reading:  # whoever reads now may have a snapshot from before the commit
                self._moves.popleft()
                self._read = None
        if stored:
            self._changed()

    async def _store_seen(self) -> None:
        workers = self._registry.workers
        self._seen = {name: at for name, at in self._seen.items() if name in workers}
        due = {
            name: at
            for name, at in self._seen.items()
            if at - max(self._stored.get(name, 0), workers[name].last_seen_at or 0) >= SEEN_EVERY_MS
        }
        if due:
            await self._database.write(store.saw_workers(self._tenant, due))
            self._stored = {name: at for name, at in self._stored.items() if name in workers} | due

    def _write(self, move: Move) -> Script[None]:
        now = yield from database_now()
        row = yield from store.locked_worker(self._tenant, move.name)
        if row is not None and row.state in move.among:
            moved = row._replace(state=move.to, problem=move.problem, updated_at=now)
            yield from store.save_worker(moved, new=False)

    def _apply(self, move: Move) -> bool:
        worker = self._registry.workers.get(move.name)
        if worker is None or worker.state not in move.among:
            return False
        self._registry.workers[move.name] = replace(worker, state=move.to, problem=move.problem)
        return True


def _registered() -> Script[tuple[int, Registered, Limited, list[FilterRow], list[WebhookRow]]]:
    now = yield from database_now()
    registered = yield from store.all_registered()
    limited = yield from all_limited()
    filters = yield from all_filters()
    webhooks = yield from all_webhooks()
    return now, registered, limited, filters, webhooks
