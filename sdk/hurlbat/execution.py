"""Execute one attempt, once, and tell whoever listens.

    waiting ──▶ started ──▶ ended
       └──────────────────────▲

An async function starts with its asyncio task, a sync one when a thread takes it up; what is withdrawn or cancelled
before that ends without having started.

An execution knows nothing of connections. It puts its lines into sinks: the answer that is being streamed, or a
reporter once that stream broke.
"""

import asyncio
import contextvars
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Protocol

from hurlbat import databases, outside
from hurlbat.context import Context
from hurlbat.errors import Cancelled, CancelRun, NonRetryable, PayloadError, RetryAfter, WouldDeadlock
from hurlbat.lineage import RUNNING, Callers
from hurlbat.messages import Delivered, Key
from hurlbat.passage import Passage, Room, Runnable
from hurlbat.payloads import encode, printable
from hurlbat.stacks import stack_of
from hurlbat.wire import (
    MAX_BODY_BYTES,
    CancelledLine,
    CompletedLine,
    FailedLine,
    Line,
    Result,
    StartedLine,
)

INVALID_INPUT = "invalid_input"
INVALID_OUTPUT = "invalid_output"
UNKNOWN_TASK = "unknown_task"
EXECUTION_TIMEOUT = "execution_timeout"
CANCELLED = "cancelled"
WORKER_STOPPED = "worker_stopped"

LEAVE_SECONDS = 3.0
"""How long an attempt that was told to stop has for leaving what is around its task, before it is reported without."""

logger = logging.getLogger("hurlbat")


class Sink(Protocol):
    """Takes the lines of an execution, in order, on the event loop."""

    def put(self, line: Line) -> None:
        """Take one line."""
        ...


class Execution:
    """One attempt in this process: who listens, how far it is, and what came of it."""

    def __init__(
        self, delivered: Delivered, runnable: Runnable, room: Room, ended: Callable[["Execution"], None]
    ) -> None:
        self.delivered = delivered
        self.sinks: list[Sink] = []
        self.started = False
        self.result: Result | None = None
        self.stop_reason: str | None = None
        self.input: Any = None
        self._runnable = runnable
        self._room = room
        self._passage: Passage | None = None
        self._scope: asyncio.Timeout | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._ended = ended
        self._entered = False
        self._began_at = outside.time()
        self._thread = threading.get_ident()
        self._future: Future[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self.handle = self._loop.create_task(self._carry_out())

    # -- what a context shows --------------------------------------------------------------------------------------

    @property
    def callers(self) -> Callers:
        """Who talks to the server that the run is from."""
        return self._runnable.callers

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.result is not None

    @property
    def leaving(self) -> bool:
        """Whether it is still within what is around its task."""
        return self._passage is not None

    @property
    def state(self) -> Any:
        """What the lifespan of the tasks has given."""
        return self._room.around.opening.state

    @property
    def key(self) -> Key:
        """What names this attempt."""
        return self.delivered.key

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.delivered.run_id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.delivered.task

    @property
    def attempt(self) -> int:
        """Which start of the run this is."""
        return self.delivered.attempt

    @property
    def max_attempts(self) -> int:
        """How many charged starts the run may have."""
        return self.delivered.max_attempts

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the caller attached to the run."""
        return self.delivered.metadata

    @property
    def trigger(self) -> Mapping[str, Any] | None:
        """What started the run, if nobody submitted it."""
        return self.delivered.trigger

    @property
    def parents(self) -> Mapping[str, Any] | None:
        """The outputs of the parents of a workflow's node, by their names."""
        return self.delivered.parents

    @property
    def deadline(self) -> datetime:
        """When the execution timeout ends it."""
        return datetime.fromtimestamp(self._began_at + self.delivered.execution_timeout, UTC)

    def tell(self, line: Line) -> None:
        """Send a line, from whichever thread; after the end nothing is sent any more."""
        if threading.get_ident() == self._thread:
            self._put(line)
            return
        with suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._put, line)

    # -- what others may do with it --------------------------------------------------------------------------------

    def listen(self, sink: Sink) -> None:
        """Put all further lines into this sink, beginning with `started` if it has."""
        self.sinks.append(sink)
        if self.started:
            sink.put(StartedLine(self.run_id, self.attempt))

    def cancel(self, reason: str) -> None:
        """Ask it to stop: cancel the asyncio task, or set the flag that a sync function may read."""
        self._stop(reason, FailedLine(self.run_id, self.attempt, CANCELLED, reason, retryable=False))

    def withdraw(self) -> None:
        """Stop it because it did not start in time to be ours; nobody hears of it."""
        self.sinks.clear()
        self.cancel("withdrawn before it started")

    def abandon(self, reason: str) -> None:
        """End it as a failure that may be repeated elsewhere: the process is about to stop."""
        self._stop(reason, None)
        self._end(FailedLine(self.run_id, self.attempt, WORKER_STOPPED, reason))

    def _stop(self, reason: str, unentered: Result | None) -> None:
        if self.result is not None or self.stop_reason is not None:
            return
        self.stop_reason = reason
        if not self._entered:  # a task that is cancelled before its first step runs no line of its own
            self.handle.cancel()
            if unentered is not None:
                self._end(unentered)
        elif self._can_be_interrupted():
            self.handle.cancel()
            if self._passage is not None and unentered is not None:
                self._loop.call_later(LEAVE_SECONDS, self._leave_behind, lambda: unentered)

    def _can_be_interrupted(self) -> bool:
        if self._runnable.shape.is_async or (self._future is not None and self._future.cancel()):
            return True
        return self._passage is not None and not self._passage.deaf

    # -- carrying it out -------------------------------------------------------------------------------------------

    async def _carry_out(self) -> None:
        self._entered = True
        RUNNING.set(self)
        shape = self._runnable.shape
        try:
            self.input = shape.read(self.delivered.input)
        except PayloadError as error:
            self._start()
            self._end(self._failed(INVALID_INPUT, str(error), details=error.details))
            return
        context = Context(self)
        self._scope = scope = asyncio.timeout(None)
        try:
            async with scope:
                if shape.needs or self._room.around.middleware or (shape.is_async and databases.are_kept()):
                    value = await self._pass(context)
                elif shape.is_async:
                    positional, named = shape.arguments(self.input, context, {})
                    self._start()
                    value = await self._runnable.function(*positional, **named)
                else:
                    value = await self._in_thread(*shape.arguments(self.input, context, {}))
        except asyncio.CancelledError as error:
            if self.stop_reason is None and self._cancelled_from_outside():
                self._end(FailedLine(self.run_id, self.attempt, WORKER_STOPPED, "the worker's event loop stopped"))
                raise
            self._conclude(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit, which would otherwise end the whole server
            self._conclude(error)
        else:
            if self.stop_reason is not None and self.result is None:
                logger.info(
                    "%s went on although it was told to stop (%s); what it made of run %s, attempt %d, is ignored",
                    *(self.task, self.stop_reason, *self.key),
                )
            if self.result is None:
                self._end(self._completed(value))
        finally:
            RUNNING.set(None)  # or the asyncio task and this would hold each other, for the garbage collector to find

    async def _in_thread(self, positional: list[Any], named: dict[str, Any]) -> Any:
        context = contextvars.copy_context()
        function = self._runnable.function

        def call() -> tuple[Any, BaseException | None]:
            self._began_at = outside.time()
            self._loop.call_soon_threadsafe(self._start)
            try:
                return context.run(function, *positional, **named), None
            except BaseException as error:  # not through the future, which cannot carry a StopIteration
                return None, error

        self._future = self._room.pool.submit(call)
        value, error = await asyncio.wrap_future(self._future)
        if error is not None:
            raise error
        return await value if inspect.isawaitable(value) else value

    async def _pass(self, context: Context) -> Any:
        """Do all that is around the task, and the task."""
        passage = Passage(self._runnable, self._room, over=lambda: self.over, told=self._overtaken)
        self._passage, self._future = passage, passage.held
        try:
            await passage.ready()
            self._start()
            return await passage.go(self.input, context)
        finally:
            self._passage = None
            passage.close()
            if self._alarm is not None:
                self._alarm.cancel()

    def _overtaken(self) -> None:
        """Report at once when the time is over: what is at work in a thread takes as long as it takes."""
        if self._is_overdue and not self.over:
            self._end(self._timed_out())

    @property
    def _is_overdue(self) -> bool:
        return self._scope is not None and self._scope.expired()

    def _leave_behind(self, result: Callable[[], Result]) -> None:
        if not self.over:
            self._end(result())
            logger.warning(
                "%s, run %s, attempt %d: it was told to stop %g s ago and has not left what is around it; it is "
                "reported, and goes on",
                *(self.task, *self.key, LEAVE_SECONDS),
            )

    def _conclude(self, error: BaseException) -> None:
        timed_out = isinstance(error, TimeoutError) and self._is_overdue
        if not self.over:
            self._end(self._timed_out() if timed_out else self._raised(error))
        elif not timed_out and not isinstance(error, asyncio.CancelledError | Cancelled):
            logger.warning(
                "%s failed after run %s, attempt %d, was reported\n%s", self.task, *self.key, stack_of(error).rstrip()
            )

    def _cancelled_from_outside(self) -> bool:
        return self.handle.cancelling() > 0

    def _start(self) -> None:
        self.started = True
        self._began_at = outside.time()
        when = self._loop.time() + self.delivered.execution_timeout
        if self._passage is not None:
            self._expire_at(when)
        elif self._scope is not None:
            self._scope.reschedule(when)
        self._put(StartedLine(self.run_id, self.attempt))

    def _expire_at(self, when: float) -> None:
        """Let the attempt, with all that is around its task, end at a time of the loop."""
        if self._scope is not None:
            self._scope.reschedule(when)
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when + LEAVE_SECONDS, self._leave_behind, self._timed_out)

    def _put(self, line: Line) -> None:
        if self.result is None:
            for sink in self.sinks:
                sink.put(line)

    def _end(self, result: Result) -> None:
        if self.result is not None:
            return
        self.result = result
        self._ended(self)
        for sink in self.sinks:
            sink.put(result)

    # -- what came of it -------------------------------------------------------------------------------------------

    def _completed(self, value: Any) -> Result:
        try:
            output = encode(value, self._runnable.shape.output_form, what="output", limit=MAX_BODY_BYTES)
        except PayloadError as error:
            return self._failed(INVALID_OUTPUT, str(error))
        return CompletedLine(self.run_id, self.attempt, output)

    def _timed_out(self) -> Result:
        timeout = self.delivered.execution_timeout
        self.stop_reason = f"the execution timeout of {timeout:g} s is over"
        logger.warning("%s was stopped, run %s, attempt %d: %s", self.task, self.run_id, self.attempt, self.stop_reason)
        return FailedLine(self.run_id, self.attempt, EXECUTION_TIMEOUT, self.stop_reason)

    def _raised(self, error: BaseException) -> Result:
        if self.stop_reason is not None and isinstance(error, asyncio.CancelledError | Cancelled):
            return self._failed(CANCELLED, self.stop_reason)
        if isinstance(error, CancelRun):
            reason = error.reason and printable(str(error.reason))
            logger.info("%s has cancelled its run %s: %s", self.task, self.run_id, reason or "it gives no reason")
            return CancelledLine(self.run_id, self.attempt, reason)
        try:
            message = str(error)
        except Exception:  # a user's own __str__
            message = "(the error's text cannot be shown)"
        stack = stack_of(error)
        level = logging.INFO if isinstance(error, RetryAfter) else logging.WARNING
        logger.log(level, "%s failed, run %s, attempt %d\n%s", self.task, self.run_id, self.attempt, stack.rstrip())
        return FailedLine(
            self.run_id,
            self.attempt,
            error.word if isinstance(error, WouldDeadlock) else type(error).__name__,
            printable(message),
            stack=stack,
            retryable=not isinstance(error, NonRetryable | WouldDeadlock),
            retry_after=error.seconds if isinstance(error, RetryAfter) else None,
            rate_limit_key=error.rate_limit_key if isinstance(error, RetryAfter) else None,
        )

    def _failed(self, type: str, message: str, details: str | None = None) -> Result:
        return FailedLine(self.run_id, self.attempt, type, printable(message), retryable=False, details=details)
