"""Everything that is executed in this process: each attempt once, remembered for a while, and brought to an end.

An attempt lives here from its delivery to its result, whatever becomes of the connection that brought it. While that
connection streams, its outbox hears the attempt's lines; when it breaks, a reporter takes its place.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, NamedTuple

from hurlbat import outside
from hurlbat.databases import Pool
from hurlbat.execution import UNKNOWN_TASK, Execution, Sink
from hurlbat.messages import Cancellation, Delivered, Key
from hurlbat.middleware import Around
from hurlbat.passage import Runnable
from hurlbat.report import Reporter
from hurlbat.threads import Lane
from hurlbat.wire import HEARTBEAT_SECONDS, LEASE_SECONDS, CancelledLine, CompletedLine, FailedLine, Result, StartedLine

if TYPE_CHECKING:
    import httpx

REMEMBER_RESULTS = 10_000
REMEMBER_SECONDS = 600.0
REMEMBER_CHARS = 64 * 1_048_576
CANCEL_PATIENCE = 4.0
LEAVE_PATIENCE = 1.0
"""Seconds for leaving what is around a task after it was given back."""

logger = logging.getLogger("hurlbat")


class _Remembered(NamedTuple):
    result: Result
    at: float
    size: int


class Workbench:
    """The attempts of one process. `tasks` may grow; `http` gives the client to report with, `around` is around all."""

    def __init__(
        self,
        tasks: Mapping[str, Runnable],
        http: "Callable[[], httpx.AsyncClient]",
        *,
        threads: int,
        heartbeat: float = HEARTBEAT_SECONDS,
        lease: float = LEASE_SECONDS,
        clock: Callable[[], float] = outside.monotonic,
        around: Around | None = None,
    ) -> None:
        self.around = around or Around()
        self.heartbeat = heartbeat
        self.draining = False
        self._tasks = tasks
        self._http = http
        self._lease = lease
        self._clock = clock
        self._threads = threads
        self.pool = self._new_pool()
        self.leaving = self._new_pool()
        self._running: dict[Key, Execution] = {}
        self._unfinished: dict[Key, asyncio.Task[None]] = {}
        self._recent: OrderedDict[Key, _Remembered] = OrderedDict()
        self._remembered_chars = 0
        self._reports: set[asyncio.Task[None]] = set()
        self._streams: set[Callable[[], None]] = set()

    # -- deliveries ------------------------------------------------------------------------------------------------

    def begin(self, delivered: Delivered, sink: Sink) -> None:
        """Execute an attempt, or attach to it if it is running, or repeat its result if it has ended."""
        key = delivered.key
        execution = self._running.get(key)
        if execution is not None:
            execution.listen(sink)
            return
        known = self._recall(key)
        if known is not None:
            sink.put(StartedLine(*key))
            sink.put(known)
            return
        runnable = self._tasks.get(delivered.task)
        if runnable is None:
            said = f"this worker serves no task {delivered.task}"
            sink.put(FailedLine(*key, UNKNOWN_TASK, said, retryable=False))
            return
        execution = Execution(delivered, runnable, self, self._ended)
        execution.sinks.append(sink)
        self._running[key] = execution

    def streaming(self, close: Callable[[], None]) -> None:
        """Remember how to close a stream, so that draining can; see `streamed`."""
        self._streams.add(close)

    def streamed(self, close: Callable[[], None]) -> None:
        """Forget a stream that has ended."""
        self._streams.discard(close)

    def let_go(
        self,
        deliveries: Iterable[Delivered],
        sink: Sink,
        heartbeat: float = HEARTBEAT_SECONDS,
        *,
        all_of_them: bool = False,
    ) -> None:
        """Take attempts off an answer that broke: the started ones go on and report, the others never begin.

        With `all_of_them` those begin as well. They report at least every so many seconds of `heartbeat`.

        Results that were sent are reported too, as nobody can tell whether they arrived; the server takes a repeat.
        """
        beat = min(self.heartbeat, heartbeat)
        for delivered in deliveries:
            execution = self._running.get(delivered.key)
            if execution is None:
                known = self._recall(delivered.key)
                if known is not None:
                    self._report(Reporter(delivered, self._http, beat, self._lease, result=known))
                continue
            if sink in execution.sinks:
                execution.sinks.remove(sink)
            if execution.sinks:
                continue
            if not (execution.started or all_of_them):
                execution.withdraw()
                continue
            reporter = Reporter(delivered, self._http, beat, self._lease, stop=execution.cancel)
            execution.sinks.append(reporter)
            self._report(reporter)

    def give_back(self, deliveries: Iterable[Delivered], reason: str) -> None:
        """End attempts that are still running as failures that may be repeated."""
        for delivered in deliveries:
            execution = self._running.get(delivered.key)
            if execution is not None:
                execution.abandon(reason)

    async def cancel(self, cancellations: Iterable[Cancellation]) -> list[dict[str, Any]]:
        """Ask attempts to stop and wait a moment for them; say of each whether it is known to have stopped."""
        named = [(cancelled, self._running.get((cancelled.run_id, cancelled.attempt))) for cancelled in cancellations]
        asked = []
        for cancelled, execution in named:
            if execution is not None:
                execution.cancel(cancelled.reason)
                asked.append(execution.handle)
        if asked:
            await asyncio.wait(asked, timeout=CANCEL_PATIENCE)
        return [
            {"run_id": cancelled.run_id, "attempt": cancelled.attempt, "status": self._status(cancelled, execution)}
            for cancelled, execution in named
        ]

    def _status(self, cancelled: Cancellation, execution: Execution | None) -> str:
        if execution is not None:
            return "stopped" if execution.handle.done() else "unknown"
        key = (cancelled.run_id, cancelled.attempt)
        return "stopped" if key in self._recent and key not in self._unfinished else "unknown"

    def lane(self) -> Lane:
        """Ask for a thread of the pool to keep."""
        return Lane(self.pool)

    def _new_pool(self) -> Executor:
        return Pool(self._threads, thread_name_prefix="hurlbat")

    # -- the end ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Take deliveries again after a drain, as when one process starts its app twice."""
        if self.draining:
            self.draining = False
            self.pool = self._new_pool()
            self.leaving = self._new_pool()

    def forget(self) -> None:
        """Have nothing of another process: what was running at a fork runs in the parent only."""
        for known in (self._running, self._unfinished, self._recent, self._reports, self._streams):
            known.clear()
        self._remembered_chars = 0
        self.draining = False
        self.pool = self._new_pool()
        self.leaving = self._new_pool()

    def close_streams(self) -> None:
        """Take nothing new, and close the streams; their runs go on and report by themselves."""
        self.draining = True
        for close in list(self._streams):
            close()

    async def drain(self, grace: float) -> None:
        """Take nothing new, close the streams, give running tasks so many seconds, and report those that do not end."""
        self.close_streams()
        await asyncio.sleep(0)
        handles = self._handles()
        if handles:
            logger.info("waiting up to %g s for %d running tasks", grace, len(handles))
            await asyncio.wait(handles, timeout=grace)
        for execution in list(self._running.values()):
            logger.warning("%s (run %s) did not end in time and is given back", execution.task, execution.run_id)
            execution.abandon("the worker stopped before the task ended")
        if self._unfinished:
            await asyncio.wait(self._unfinished.values(), timeout=LEAVE_PATIENCE)
        if self._reports:
            _, left = await asyncio.wait(self._reports, timeout=max(grace, 1.0))
            for report in left:
                report.cancel()
        for pool in (self.pool, self.leaving):
            pool.shutdown(wait=False, cancel_futures=True)

    async def settled(self, grace: float) -> None:
        """Return when no attempt is under way, or after so many seconds of `grace`."""
        if handles := self._handles():
            await asyncio.wait(handles, timeout=grace)

    def _handles(self) -> list[asyncio.Task[None]]:
        return [execution.handle for execution in self._running.values()] + list(self._unfinished.values())

    # -- memory ----------------------------------------------------------------------------------------------------

    def _ended(self, execution: Execution) -> None:
        del self._running[execution.key]
        if execution.leaving:
            self._unfinished[execution.key] = execution.handle
            execution.handle.add_done_callback(lambda _: self._unfinished.pop(execution.key, None))
        result = execution.result
        if result is None or (execution.stop_reason is not None and not execution.started):
            return
        size = _size(result)
        self._recent[execution.key] = _Remembered(result, self._clock(), size)
        self._remembered_chars += size
        oldest = self._clock() - REMEMBER_SECONDS
        while self._recent:
            first = next(iter(self._recent.values()))
            fits = len(self._recent) <= REMEMBER_RESULTS and self._remembered_chars <= REMEMBER_CHARS
            if fits and first.at > oldest:
                break
            self._recent.popitem(last=False)
            self._remembered_chars -= first.size

    def _recall(self, key: Key) -> Result | None:
        known = self._recent.get(key)
        return known.result if known is not None else None

    def _report(self, reporter: Reporter) -> None:
        task = asyncio.create_task(reporter.run())
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)


def _size(result: Result) -> int:
    match result:
        case CompletedLine():
            return len(result.output)
        case FailedLine():
            return len(result.stack or "") + 200
        case CancelledLine():
            return 200
