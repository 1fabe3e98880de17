"""Threads in a virtual world: one works at a time, and the world waits for it.

A sync function runs in a thread of its own, as in production, but the loop goes on only when it has ended, or waits for
the world itself (an API call, a pause between tries). So what happens is the same in every run. One that takes long by
a real clock is let go: from then on time passes as it really does, until it ends.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from hurlbat.threads import Lane
from hurlbat_dispatcher.simulation.loop import VirtualLoop

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 0.5
"""Real seconds that the world stands still for a thread."""
LANES: Final = 1_000
"""Threads that attempts keep. None waits for one, as the world would stand still for it."""


class _Job:
    """A function in a thread. `quiet` is set while it does nothing: it has ended, or waits for the world."""

    def __init__(self) -> None:
        self.quiet = threading.Event()
        self.let_go = False
        """Whether the world goes on beside it."""
        self.lock = threading.Lock()


_jobs = threading.local()


class Threads(Executor):
    """Runs functions in threads for a virtual loop. `submit` is called on the loop's own thread."""

    def __init__(self, loop: VirtualLoop, most: int) -> None:
        self._loop = loop
        self._pool = ThreadPoolExecutor(most, thread_name_prefix="hurlbat")
        self._kept: Threads | None = None

    def submit(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> Future[T]:
        """Run a function in a thread, and return when it has ended, waits, or takes long."""
        job = _Job()
        answer: Future[T] = Future()

        def work() -> None:
            if answer.set_running_or_notify_cancel():
                _jobs.current = job
                try:
                    answer.set_result(function(*args, **named))
                except BaseException as error:  # the caller's
                    answer.set_exception(error)
                _jobs.current = None
            self._rest(job)  # only now: until the loop knows the result, its time must not go on

        self._pool.submit(work)
        self._watch(job)
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads."""
        if self._kept is not None:
            self._kept.shutdown(wait, cancel_futures=cancel_futures)
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)

    def lane(self) -> Lane:
        """Return a thread for one attempt to keep. The world does not wait for it while it has nothing to do."""
        if self._kept is None:
            self._kept = Threads(self._loop, LANES)
        return _Lane(self._kept)

    def ask(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something on the loop, from a thread of ours, which waits while time goes on; or from outside of all."""
        job: _Job | None = getattr(_jobs, "current", None)
        if job is None:
            return self._loop.run_until_complete(work())
        answer: Future[T] = Future()

        def begin() -> None:
            job.quiet.wait(PATIENCE)  # the thread is about to be
            task = self._loop.create_task(work())
            task.add_done_callback(end)

        def end(task: asyncio.Task[T]) -> None:
            job.quiet.clear()
            if task.cancelled():
                answer.cancel()
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())
            self._watch(job)

        self._loop.call_soon_threadsafe(begin)
        self._rest(job)
        return answer.result()

    def _watch(self, job: _Job) -> None:
        """Stand still until the thread is quiet, or for as long as patience lasts."""
        job.quiet.wait(PATIENCE)
        with job.lock:
            if not job.quiet.is_set():
                job.let_go = True
                self._loop.hold()

    def _rest(self, job: _Job) -> None:
        """Say, on the job's thread, that it does nothing now."""
        with job.lock:
            job.quiet.set()
            let_go, job.let_go = job.let_go, False
        if let_go and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.release)


class _Lane(Lane):
    """A lane that the world waits for while it works."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._job: _Job | None = None
        super().__init__(threads)

    def _give(self, job: Callable[[], None] | None) -> None:
        if self._job is not None:
            self._job.quiet.clear()
        super()._give(job)
        if self._job is not None:
            self._threads._watch(self._job)

    def _next(self) -> Callable[[], None] | None:
        self._job = _jobs.current
        self._threads._rest(_jobs.current)
        return super()._next()
