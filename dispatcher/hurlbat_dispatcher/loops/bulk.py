"""Do what was accepted for many runs: a few at a time through the writer, as anybody's requests, so that all go on.

How far an operation is stands in the database, and what was done is counted in the commit that did it. Whoever takes
it up after a crash goes on there; what was done beyond that does not fit any more, and is not done again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.bulk import OperationKind, Part, RunFilter
from hurlbat_dispatcher.errors import Conflict, NotFound, Unavailable
from hurlbat_dispatcher.store import bulk as store
from hurlbat_dispatcher.store.bulk import OperationRow
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.turn.operations import Cancel, Operation, Replay

log = structlog.get_logger("hurlbat.bulk")

LOOKED_AT: Final = 1_000
"""Runs of each state that are looked at in one read."""
CHUNK: Final = 200
"""Runs that are changed at a time; the writer does everybody else's work before it gets the next ones."""
AGAIN: Final = 1.0
"""Seconds after which what went wrong is tried again."""
TICK: Final = 0.002
"""Seconds after which the millisecond is over in which an operation was accepted."""
CANCELLED: Final = "cancelled by request"


class BulkWork:
    """The operations that this server does. They share the writer: one chunk at a time."""

    def __init__(
        self,
        tenant: int,
        me: str,
        database: Database,
        clock: Clock,
        *,
        put: Callable[[Operation], None],
        others: Callable[[], int],
        spawn: Callable[[Awaitable[None]], None],
        keep: float,
    ) -> None:
        self.me = me
        self.stopping = False
        self._tenant = tenant
        self._database = database
        self._clock = clock
        self._put = put
        self._others = others
        self._spawn = spawn
        self._keep = int(keep * 1000)
        self._at_work: set[str] = set()
        self._one_at_a_time = asyncio.Lock()

    async def run_once(self) -> None:
        """Take up what was left by servers that are gone, and forget what ended long ago (`keep`; 0 keeps it)."""
        if self.stopping:
            return
        for id_ in await self._database.write(store.take_over(self._tenant, self.me, self._keep)):
            self.begin(id_)

    def begin(self, id_: str) -> None:
        """Begin to do an operation of ours, or go on with it."""
        if id_ not in self._at_work:
            self._at_work.add(id_)
            self._spawn(self._do(id_))

    def stop(self) -> None:
        """Begin nothing more; what is left goes to another server, or waits for the next start."""
        self.stopping = True

    async def _do(self, id_: str) -> None:
        try:
            await self._clock.sleep(TICK)
            while not self.stopping and await self._went_on(id_):
                pass
        finally:
            self._at_work.discard(id_)

    async def _went_on(self, id_: str) -> bool:
        """Do some more, or wait until that may be possible again; tell whether there is more to do here."""
        try:
            return await self._some(id_)
        except (DatabaseTrouble, Clash, Unavailable) as trouble:
            log.warning("an operation on many runs waits", operation=id_, detail=str(trouble))
        except Exception as error:
            log.error("an operation on many runs failed, and is tried again", operation=id_, error=repr(error))
        await self._clock.sleep(AGAIN)
        return True

    async def _some(self, id_: str) -> bool:
        found = await self._database.read(store.next_slice(self._tenant, id_, self.me, LOOKED_AT))
        if found is None:
            return False
        row, (ids, until) = found
        for start in range(0, len(ids), CHUNK):
            if self.stopping:
                return False
            chunk = ids[start : start + CHUNK]
            async with self._one_at_a_time:
                await self._change_gently(row, chunk)
            await self._database.write(store.advance(self._tenant, id_, self.me, chunk[-1]))
        if until is None:
            await self._database.write(store.finish(self._tenant, id_, self.me))
            return False
        await self._database.write(store.advance(self._tenant, id_, self.me, until))
        return True

    async def _change_gently(self, row: OperationRow, ids: Sequence[str]) -> None:
        """Change these runs, and leave the writer to others for as long, where `others` say that they wait."""
        began = self._clock.monotonic()
        await self._change(row, ids)
        if self._others():
            await self._clock.sleep(self._clock.monotonic() - began)

    async def _change(self, row: OperationRow, ids: Sequence[str]) -> None:
        """Change these runs, and wait until that is stored. Raises `Unavailable` when nobody knows."""
        part = Part(row.id, frozenset(RunFilter.from_json(row.filter).states), row.created_at)
        reason = row.reason or CANCELLED
        changes = [
            Cancel(id_, reason, part=part) if row.kind == OperationKind.CANCEL else Replay(id_, part=part)
            for id_ in ids
        ]
        loop = asyncio.get_running_loop()
        replies = []
        for change in changes:
            change.reply = loop.create_future()
            self._put(change)
            replies.append(change.reply)
        for outcome in await asyncio.gather(*replies, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Conflict | NotFound):
                raise outcome
