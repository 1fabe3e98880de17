"""Waiting for the end of a run, and watching what happens to it.

Who waits is woken by the commit: by that of this server, or by the word of another one. What is read then is read for
all who were woken at once. A word may be lost: so the runs that are waited for are looked at together now and then, in
one read for all of them and not in one for each.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from enum import Enum, auto
from itertools import chain
from typing import Final, Self

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.runs import Run
from hurlbat_dispatcher.errors import Unavailable
from hurlbat_dispatcher.following import Following
from hurlbat_dispatcher.run_ids import unknown_run
from hurlbat_dispatcher.store import runs, views
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.statement import Row, Rows, Script
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.waiters import Waiters

LOOK_AGAIN: Final = 5.0
"""Seconds after which those who wait are looked after together: word of an end may have been lost."""
WATCH_AGAIN: Final = 1.0
"""Seconds after which runs that are watched are looked at, where another server may do what happens to them."""
MAX_WATCHES: Final = 1_000
"""Who may watch at once, at one server."""
GAP: Final = 0.05
"""Seconds between two looks of one who watches: in a storm of changes he is told of many at once."""
MOST_AT_ONCE: Final = 100
"""Runs that are read at once, with their timelines; fewer at first, and where these are long."""
FEW_AT_ONCE: Final = 10
MANY_LINES: Final = 2_000
"""Lines in one read's timelines after which the next one reads fewer runs: each may have 1,000, of 8 KB."""
MOST_MARKS: Final = 1_000


class _Turn(Enum):
    """What one who asked is told whose turn it is to read."""

    YOURS = auto()


_Asker = asyncio.Future[Run | None | _Turn]


class Looks:
    """Reads runs with their timelines: all that are asked for while a read is on its way are in the next one.

    The read is made by one of those who asked. When he leaves amid it, it is the turn of another.
    """

    def __init__(self, tenant: int, database: Database) -> None:
        self._tenant = tenant
        self._database = database
        self._asked: dict[str, list[_Asker]] = {}
        self._reading = False
        self._most = FEW_AT_ONCE

    async def look(self, run_id: str) -> Run:
        """Return a run as it is now, or later. Raises `NotFound`, `Unavailable`."""
        asker: _Asker = asyncio.get_running_loop().create_future()
        self._asked.setdefault(run_id, []).append(asker)
        self._next()
        try:
            found = await available(asker)
        except asyncio.CancelledError:
            if not asker.cancelled() and asker.exception() is None and asker.result() is _Turn.YOURS:
                self._done()
            raise
        if found is _Turn.YOURS:
            try:
                found = await available(self._read(run_id))
            finally:
                self._done()
        if not isinstance(found, Run):
            raise unknown_run(run_id)
        return found

    def _next(self) -> None:
        """Let somebody read, if there is somebody and nobody does."""
        while self._asked and not self._reading:
            run_id = next(iter(self._asked))
            askers = self._asked[run_id]
            asker = askers.pop(0)
            if not askers:
                del self._asked[run_id]
            if not asker.done():
                self._reading = True
                asker.set_result(_Turn.YOURS)

    def _done(self) -> None:
        self._reading = False
        self._next()

    async def _read(self, own: str) -> Run | None:
        """Read a run of one's own, and those that others have asked for."""
        asked = {run_id: self._asked.pop(run_id) for run_id in list(self._asked)[: self._most - 1]}
        try:
            found = await self._database.read(views.told_runs(self._tenant, list({own: None} | asked)))
        except asyncio.CancelledError:
            for run_id, askers in asked.items():
                self._asked.setdefault(run_id, []).extend(askers)
            raise
        except Exception as error:
            failure = error
            _answer(asked, lambda asker, _: asker.set_exception(failure))
            raise
        lines = sum(len(run.timeline) for run in found.values())
        if lines > MANY_LINES:
            self._most = max(1, self._most // 4)
        elif len(asked) + 1 >= self._most:
            self._most = min(2 * self._most, MOST_AT_ONCE)
        _answer(asked, lambda asker, run_id: asker.set_result(found.get(run_id)))
        return found.get(own)


def _answer(asked: dict[str, list[_Asker]], say: Callable[[_Asker, str], None]) -> None:
    for run_id, askers in asked.items():
        for asker in askers:
            if not asker.done():
                say(asker, run_id)


class Watch(AbstractContextManager["Watch"]):
    """One who watches a run. To be left, whatever happens."""

    def __init__(self, run: Run, bell: asyncio.Event, waiting: "Waiting") -> None:
        self.run = run
        """The run when it was last looked at, with its timeline."""
        self._bell = bell
        self._waiting = waiting
        self._looked_at = asyncio.get_running_loop().time()

    async def news(self, seconds: float) -> bool:
        """Look at the run again when something has happened to it; False when nothing has for so many seconds.

        Raises `Unavailable` when the server stops or the run cannot be read, `NotFound` when it was removed.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        except TimeoutError:
            return False
        rest = self._looked_at + GAP - asyncio.get_running_loop().time()
        if rest > 0 and not self.over:
            await self._waiting.clock.sleep(rest)
        if self.over:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        self._bell.clear()
        try:
            self.run = await self._waiting.looks.look(self.run.id)
        except BaseException:
            self._bell.set()  # there is still something to be seen
            raise
        finally:
            self._looked_at = asyncio.get_running_loop().time()
        return True

    @property
    def over(self) -> bool:
        """Tell whether the server stops, so that nothing more is to be heard."""
        return self._waiting.over

    def leave(self) -> None:
        """Watch no longer."""
        self._waiting.leave(self.run.id, self._bell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


class Waiting:
    """Everybody who waits at this server."""

    def __init__(self, tenant: int, database: Database, clock: Clock, waiters: Waiters) -> None:
        self._tenant = tenant
        self._database = database
        self._waiters = waiters
        self._marks: dict[str, Row] = {}
        self._followers: list[Following] = []
        self.clock = clock
        self.looks = Looks(tenant, database)

    @property
    def over(self) -> bool:
        """Tell whether nobody is to wait any longer."""
        return self._waiters.closed

    def committed(self, ledger: Ledger) -> None:
        """Wake who waits for what a turn has ended or changed."""
        self._waiters.finished(ledger.finished)
        if self._waiters.watched:
            told = (values[1] for values in ledger.notes)
            started = (values[-1] for values in ledger.starts)
            self._waiters.changed(chain(ledger.touched, told, started))
        for one in self._followers:
            told = (values[1] for values in ledger.notes)
            started = (values[-1] for values in ledger.starts)
            new = (row.id for row in ledger.inserts)
            one.heard(chain(new, ledger.touched, told, started), ((values[-2], values[0]) for values in ledger.ends))

    async def end_of(self, run_id: str, seconds: float) -> Run:
        """Return the run when it has ended, or as it is after so many seconds. Raises `NotFound`, `Unavailable`."""
        until = asyncio.get_running_loop().time() + seconds
        while True:
            future = self._waiters.enter(run_id)
            try:
                run = await self.looks.look(run_id)
                left = until - asyncio.get_running_loop().time()
                if run.is_final or left <= 0 or self.over:
                    return run
                del run  # with all its input, which is not held on to while nothing happens
                await _settled(future, left)
            finally:
                self._waiters.leave(run_id, future)

    async def end_of_new(self, run_id: str, seconds: float, submitted: Awaitable[Run]) -> Run:
        """Return a run that is being submitted when it has ended, or as it is after so many seconds.

        The answer to the submit says how it stands, so it need not be looked at before something happens to it.
        """
        named, future = run_id, self._waiters.enter(run_id)
        try:
            run = await submitted
            new, over, run_id = run.id == run_id, run.is_final, run.id
            del run
            if new and not over and not self.over:
                until = asyncio.get_running_loop().time() + seconds
                await _settled(future, seconds)
                seconds = max(0.0, until - asyncio.get_running_loop().time())
        finally:
            self._waiters.leave(named, future)
        return await self.end_of(run_id, seconds)

    async def watch(self, run_id: str) -> Watch:
        """Begin to watch a run. Raises `NotFound`, `Unavailable`."""
        if self.over:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        if self._waiters.watches >= MAX_WATCHES:
            raise Unavailable(
                "too_many_streams",
                f"{MAX_WATCHES} streams of events are open at this server; close one, or try again",
                limit=MAX_WATCHES,
                retry_after=5,
            )
        bell = self._waiters.watch(run_id)
        try:
            return Watch(await self.looks.look(run_id), bell, self)
        except BaseException:
            self.leave(run_id, bell)
            raise

    def leave(self, run_id: str, bell: asyncio.Event) -> None:
        """Watch no longer."""
        self._waiters.unwatch(run_id, bell)
        if run_id not in self._waiters.watched:
            self._marks.pop(run_id, None)

    def follow(self) -> Following:
        """Begin to follow all runs."""
        following = Following(self._followers.remove)
        self._followers.append(following)
        return following

    async def look_again(self) -> None:
        """Wake those whose runs have ended without their hearing of it."""
        for some in _slices(list(self._waiters.awaited)):
            rows = await self._database.read(_over(self._tenant, some))
            self._waiters.finished(row[0] for row in rows)
        if not self._database.shared:
            await self.watch_again()

    async def watch_again(self) -> None:
        """Wake those who watch runs to which something has happened, of which no word came."""
        for some in _slices(list(self._waiters.watched)):
            found = await self._database.read(views.marks_of(self._tenant, some))
            gone = [run_id for run_id in some if run_id not in found]
            news = [run_id for run_id, mark in found.items() if self._marks.get(run_id) != mark]
            self._marks.update((run_id, found[run_id]) for run_id in news if run_id in self._waiters.watched)
            self._waiters.changed(gone + news)


async def _settled(future: asyncio.Future[None], seconds: float) -> None:
    """Return when the future is done, or after so many seconds."""
    await asyncio.wait({future}, timeout=seconds)


def _slices(ids: list[str]) -> list[list[str]]:
    return [ids[at : at + MOST_MARKS] for at in range(0, len(ids), MOST_MARKS)]


def _over(tenant: int, ids: list[str]) -> Script[Rows]:
    """Read which of these runs have ended."""
    return (yield runs.OVER.fetch(tenant, ids))
