"""The single writer: a bounded queue of operations, drained into turns.

While one turn is on its way to the disk the next fills up, so the busier the server the larger its turns: group
commit falls out by itself. The picture is ahead of the database between a decision and its commit, so any failure
means that it is read anew; the operations of a turn that failed are done again in halves, so that a bad one fails
alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.holding import Holding
from hurlbat_dispatcher.errors import Overloaded, Problem, Unavailable
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.turn.crank import turn
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.due import rebuild
from hurlbat_dispatcher.turn.fence import NotOwner
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Attempt, Detach, End, Look, Operation, Publish, Recall, Submit, Tick

log = structlog.get_logger("hurlbat.writer")

MAX_OPERATIONS: Final = 256
MAX_ENTRIES: Final = 2_000
"""Submissions in one turn, about; a turn always takes at least one operation."""
TROUBLE_WAIT: Final = 0.5
"""Seconds between two looks at a database in trouble."""
MAX_CLASHES: Final = 5
"""How often a submit, or what nobody waits for, is put off, when others are in its way."""
LONGEST_SLEEP: Final = 3600.0
RECALL_AFTER: Final = 5_000
"""Milliseconds after which a started attempt must be in somebody's hands."""


class Writer:
    """Does the turns of one server, one after the other."""

    def __init__(
        self,
        database: Database,
        desk: Desk,
        clock: Clock,
        *,
        limit: int,
        committed: Callable[[Ledger], None],
        handed_over: Callable[[], frozenset[Attempt]],
        took: Callable[[], frozenset[Attempt]],
    ) -> None:
        self._database = database
        self._desk = desk
        self._clock = clock
        self._limit = limit
        self._committed = committed
        self._handed_over = handed_over
        self._took = took
        self._queue: deque[Operation] = deque()
        self._entries = 0
        self._wake = asyncio.Event()
        self._offset = 0.0
        self._current: Sequence[Operation] = ()
        self._stale = True
        self._epoch: int | None = None
        self._closing = False
        self._closed = False
        self.trouble: str | None = None
        """Why the database cannot be written to, as long as that is so."""
        self.last_size = 0
        """Operations of the last turn."""

    @property
    def queued(self) -> int:
        """Return how many operations wait."""
        return len(self._queue)

    # -- what others call --------------------------------------------------------------------------------------------

    def put(self, operation: Operation) -> None:
        """Queue an operation. Submits may be refused: `Overloaded` beyond the limit, `Unavailable` in trouble."""
        if self._closed:
            if operation.reply is not None:
                raise Unavailable("stopping", "the server has stopped", retry_after=1)
            return
        if isinstance(operation, Submit | Publish):
            if self.trouble is not None:
                raise Unavailable("database_unavailable", self.trouble, retry_after=1)
            if self._entries + operation.entries_count > self._limit:
                raise Overloaded(
                    "overloaded",
                    f"more than {self._limit} submissions wait; try again",
                    limit=self._limit,
                    retry_after=1,
                )
            self._entries += operation.entries_count
        self._queue.append(operation)
        self._wake.set()

    def own(self, epoch: int | None) -> None:
        """Begin or stop to start runs, in this epoch. A turn that is on its way ends as what it began."""
        if self._epoch != epoch:
            self._epoch = epoch
            self._stale = True
            self.put(Tick(sweep=True))

    async def look(self, lane: int) -> Holding | None:
        """Return how a lane stands after the next turn. Raises `Unavailable`."""
        operation = Look(lane, reply=asyncio.get_running_loop().create_future())
        self.put(operation)
        assert operation.reply is not None
        found: Holding | None = await operation.reply
        return found

    def recall(self) -> None:
        """Send what was started for this server without its knowing, and rescue what it has lost on the way."""
        self.put(Recall(before=self._desk.last_now - RECALL_AFTER))

    def close(self) -> None:
        """Let `run` return once everything queued is done."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Do turns until closed."""
        try:
            await self._turn_until_closed()
        finally:
            self._closed = True
            for operation in self._queue:
                if operation.reply is not None and not operation.reply.done():
                    operation.reply.set_exception(Unavailable("stopping", "the server has stopped", retry_after=1))

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _turn_until_closed(self) -> None:
        while True:
            await self._wait()
            operations = self._drain()
            if operations:
                await self._guarded(operations)
            elif self._closing:
                return
            if self.trouble is not None:
                if self._closing:
                    return
                await self._clock.sleep(TROUBLE_WAIT)

    async def _wait(self) -> None:
        if self._queue or self._closing:
            return
        self._wake.clear()
        seconds = LONGEST_SLEEP if self._desk.moment is None else self._until(self._desk.moment)
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _until(self, moment: int) -> float:
        return min(LONGEST_SLEEP, (moment - self._offset) / 1000 - self._clock.monotonic())

    def _drain(self) -> list[Operation]:
        taken: list[Operation] = []
        entries = 0
        while self._queue and len(taken) < MAX_OPERATIONS and entries < MAX_ENTRIES:
            operation = self._queue.popleft()
            entries += operation.entries_count
            taken.append(operation)
        self._entries -= entries
        if self._desk.moment is not None and self._until(self._desk.moment) <= 0:
            self._desk.moment = None
            taken.append(Tick())
        return taken

    async def _guarded(self, operations: Sequence[Operation]) -> None:
        """Do a turn; whatever goes wrong in it, the next one is done."""
        self._current = operations
        try:
            await self._do(operations)
        except Exception as error:
            self._stale = True
            log.critical("a turn broke", error=repr(error), exc_info=error)
        finally:
            self._current = ()

    async def _do(self, operations: Sequence[Operation], *, again: bool = True) -> None:
        try:
            ledger = await self._turn(operations)
        except NotOwner as lost:
            log.warning("another server starts the runs now", detail=str(lost))
            self._epoch = None
            self._stale = True
            await self._do(operations)
        except DatabaseTrouble as trouble:
            self._in_trouble(trouble, operations)
        except Clash as clash:
            if again:  # somebody else was there first, and can be seen now
                await self._do(operations, again=False)
            else:
                await self._in_halves(operations, clash)
        except Exception as error:
            await self._in_halves(operations, error)
        else:
            if self.trouble is not None:
                log.info("the database works again")
                self.trouble = None
            self._after(ledger)

    async def _turn(self, operations: Sequence[Operation]) -> Ledger:
        stale, self._stale = self._stale or self._desk.picture.outdated, False
        for operation in operations:
            if isinstance(operation, Recall):
                operation.in_hand, operation.took = self._in_hand(), self._took()
        try:
            self._desk.asked = self._clock.monotonic()
            if stale:
                self._desk.epoch = self._epoch
                await self._database.write(rebuild(self._desk))
            asked = self._clock.monotonic()  # a commit may take its time: what is late is not to be later by that
            ledger = await self._database.write(turn(self._desk, operations))
            self._offset = ledger.now - asked * 1000
        except BaseException:
            self._stale = True
            raise
        self.last_size = len(operations)
        return ledger

    def _after(self, ledger: Ledger) -> None:
        if ledger.moment is not None and (self._desk.moment is None or ledger.moment < self._desk.moment):
            self._desk.moment = ledger.moment
        self._queue.extendleft(reversed(ledger.deferred))
        for reply, value in ledger.replies:
            if not reply.done():
                if isinstance(value, Problem):
                    reply.set_exception(value)
                else:
                    reply.set_result(value)
        self._committed(ledger)

    def _in_trouble(self, trouble: DatabaseTrouble, operations: Sequence[Operation]) -> None:
        """Refuse what was asked for, keep what happened: ends and leases are applied when the database is back."""
        if self.trouble is None:
            log.error("the database is in trouble", detail=str(trouble))
        self.trouble = str(trouble)
        problem = Unavailable(
            "outcome_unknown" if trouble.unknown else "database_unavailable", str(trouble), retry_after=1
        )
        kept: list[Operation] = []
        for operation in operations:
            if operation.reply is not None:
                if not operation.reply.done():
                    operation.reply.set_exception(problem)
            elif not isinstance(operation, Tick | Recall):  # both are made anew
                if isinstance(operation, End):
                    operation.again = operation.again or trouble.unknown
                kept.append(operation)
        self._queue.extendleft(reversed(kept))
        if trouble.unknown or any(isinstance(operation, Recall) for operation in operations):
            self._queue.appendleft(Recall())
        self._queue.append(Tick(sweep=True))

    def _in_hand(self) -> frozenset[Attempt]:
        return self._handed_over().union(*map(_spoken_of, self._queue), *map(_spoken_of, self._current))

    async def _in_halves(self, operations: Sequence[Operation], error: Exception) -> None:
        if len(operations) > 1:
            half = len(operations) // 2
            await self._do(operations[:half])
            if self.trouble is None:
                await self._do(operations[half:])
            else:
                self._in_trouble(DatabaseTrouble(self.trouble), operations[half:])
            return
        first = operations[0]
        patient = first.reply is None or isinstance(first, Submit | Publish)
        if isinstance(error, Clash) and patient and first.clashes < MAX_CLASHES:
            first.clashes += 1
            self._entries += first.entries_count
            self._queue.append(first)  # what has happened has happened: it is tried again, behind the others
            return
        log.error("an operation failed", operation=type(operations[0]).__name__, error=repr(error), exc_info=error)
        reply = operations[0].reply
        if reply is not None and not reply.done():
            problem = (
                "a constraint of the database forbids it" if isinstance(error, Clash) else "the server made a mistake"
            )
            reply.set_exception(Unavailable("operation_failed", f"{problem}; nothing of it was stored", retry_after=1))


def _spoken_of(operation: Operation) -> Sequence[Attempt]:
    match operation:
        case End(ends):
            return [(end.run_id, end.attempt) for end in ends]
        case Detach(attempts):
            return attempts
        case _:
            return ()
