"""Where the sync parts of an attempt run: in threads, in one set of context variables, and to their end.

A sync task has one thread to itself from its start to its end (a `Lane`), so that what its dependencies have opened is
used and closed where it was opened, and nobody who holds something waits for a thread. The sync dependencies of an
async task borrow a thread for each of their steps, and those that leave have threads apart: they need not wait for
those that enter, which may be waiting for just what is to be given back.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_LOOK_SECONDS = 5.0
"""How often a thread that waits for its attempt looks whether the event loop is still there."""
_UNSET: Any = object()


class Lane(Executor):
    """A thread of a pool, kept for one attempt: `taken` is done once there is one, `held` when it was given back."""

    def __init__(self, pool: Executor) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.taken: asyncio.Future[None] = self._loop.create_future()
        self.held = pool.submit(self._serve)

    def submit(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> Future[T]:
        """Run a function in the thread, after those before it."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args, **named))
            except BaseException as error:  # the caller's
                future.set_exception(error)

        self._give(job)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 -- an executor's
        """Give the thread back, when what was submitted has ended."""
        if not self.held.cancel():
            self._give(None)

    def _serve(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the next look ends it
            self._loop.call_soon_threadsafe(self._take)
        while (job := self._next()) is not None:
            job()

    def _take(self) -> None:
        if not self.taken.done():
            self.taken.set_result(None)

    def _give(self, job: Callable[[], None] | None) -> None:
        """Hand a job to the thread; on the event loop."""
        self._jobs.put(job)

    def _next(self) -> Callable[[], None] | None:
        """Wait for a job; in the thread."""
        while True:
            with suppress(Empty):
                return self._jobs.get(timeout=_LOOK_SECONDS)
            if self._loop.is_closed():
                return None


class Steps:
    """Runs the sync parts of one attempt. All of them see, and may change, its context variables.

    `told` is called when the attempt is told to stop while one is at work.
    """

    def __init__(self, entering: Executor, leaving: Executor, told: Callable[[], None]) -> None:
        self._entering = entering
        self._leaving = leaving
        self._told = told
        # one context for all, as a variable can be reset only in the context that it was set in
        self._variables = contextvars.copy_context()

    async def enter(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Call a function in a thread. A cancellation is raised only when it has ended, as nothing stops it before."""
        return await self._run(self._entering, lambda: function(*args, **named))

    async def leave(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> T:
        """Do the same with one that gives back what was entered."""
        return await self._run(self._leaving, lambda: function(*args, **named))

    async def _run(self, executor: Executor, function: Callable[[], T]) -> T:
        self._variables.run(_take_over, contextvars.copy_context())

        def call() -> tuple[T, None] | tuple[None, BaseException]:
            try:
                return self._variables.run(function), None
            except BaseException as error:  # not through the future, which cannot carry a StopIteration
                return None, error

        future = executor.submit(call)
        cancelled = await self._end_of(future)
        _take_over(self._variables)
        value, error = future.result()
        if cancelled is not None:
            raise cancelled from error
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # there is one where there is no error

    async def _end_of(self, future: Future[Any]) -> asyncio.CancelledError | None:
        """Return when it has ended: with the cancellation that came meanwhile, which is raised if it has not begun."""
        wrapped = asyncio.wrap_future(future)
        cancelled = None
        while not wrapped.done():
            try:
                await asyncio.wait([wrapped])
            except asyncio.CancelledError as error:
                if future.cancel():
                    raise
                cancelled = error
                self._told()
        return cancelled


def _take_over(values: contextvars.Context) -> None:
    for variable, value in values.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)
