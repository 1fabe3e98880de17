"""An event loop whose time is virtual: where nothing is ready, the next timer is due at once.

It does no I/O and allows no threads, so what runs when depends on the program and the seed alone. asyncio's rules hold:
callbacks of one process run in the order in which they became ready. Between processes the order is drawn, as on
machines of their own. Where real threads are allowed (`threads`), time passes as it really does while one works.
"""

import asyncio
import gc
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple, Unpack

from hurlbat_dispatcher.clock import Chance, SystemClock

T = TypeVar("T")
Args = TypeVarTuple("Args")

MAX_AT_ONCE: Final = 1_000_000
"""Callbacks in one moment of virtual time, after which somebody turns in a circle."""

MANY_TIMERS: Final = 50
"""Timers, above which those that were cancelled are swept out when they are the most."""
COLLECT_EVERY: Final = 100_000
"""Moves of time between two collections of garbage: at moments that are the same in every run."""


class Deadlock(RuntimeError):
    """Nothing is ready and no timer is set: what is waited for can never come."""


class Livelock(RuntimeError):
    """Callbacks follow on each other without end, and no time passes."""


class Owner(Protocol):
    """Whose callbacks may not run at times."""

    def admits(self, handle: asyncio.Handle) -> bool:
        """Tell whether the callback may run now; one that may not is kept by the owner."""
        ...


OWNER: ContextVar[Owner | None] = ContextVar("hurlbat_owner", default=None)
"""Whose the callbacks are that run in a context; those of nobody always run."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time. `order` draws whose callbacks go first at the same moment; without it, first come."""

    # asyncio's own; there is no other way to see what is ready
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _stopping: bool
    _selector: Any
    _timer_cancelled_count: int

    def __init__(self, order: Chance | None = None, *, threads: bool = False) -> None:
        super().__init__()
        self.moved = 0
        """How often time has moved."""
        self._order = order
        self._threads = threads
        self._working = 0
        self._real = SystemClock()
        self._now = 0.0
        self._at_once = 0
        self._made = 0
        self._tasks: list[Task] = []
        self._prune_at = 1_000
        self.set_task_factory(self._new_task)

    def time(self) -> float:
        """Return the seconds of virtual time since the loop was made."""
        return self._now

    def unfinished(self) -> list["Task"]:
        """Return all tasks that have not ended, the oldest first."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return list(self._tasks)

    def requeue(self, handle: asyncio.Handle) -> None:
        """Let a callback that its owner kept run after those that are ready."""
        self._ready.append(handle)

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future whose place in a set is the same in every run."""
        self._made += 1
        return Future(self._made, loop=self)

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Args]], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        """Call soon; from another thread only where threads are allowed and one is waited for."""
        if self._thread_is_own():
            return self.call_soon(callback, *args, context=context)
        if not self._threads:
            raise RuntimeError("threads are refused in a simulated world: they have an order of their own")
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Args]], T], *args: *Args) -> asyncio.Future[T]:
        """Run a function in a thread. Raises RuntimeError where threads are refused."""
        if not self._threads:
            raise RuntimeError("threads are refused in a simulated world: they have an order of their own")
        self.hold()
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self.release())
        return future

    def hold(self) -> None:
        """Let time pass as it really does from now on: a thread works. To be followed by `release`."""
        self._working += 1

    def release(self) -> None:
        """Let time be virtual again, when no other thread works."""
        self._working -= 1

    def _thread_is_own(self) -> bool:
        return asyncio._get_running_loop() is self or not self.is_running()

    def _new_task(self, _: asyncio.AbstractEventLoop, work: Any, **more: Any) -> "Task":
        self._made += 1
        task = Task(self._made, work, loop=self, **more)
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._prune_at = max(1_000, 2 * len(self.unfinished()))
        return task

    def _run_once(self) -> None:
        """Run what is ready; when nothing is, move time first. Replaces asyncio's own, which waits for I/O."""
        ready = self._ready
        if not ready and not self._stopping:
            self._move_time()
        self._wake_due()
        count = len(ready)
        self._at_once += count
        if self._at_once > MAX_AT_ONCE:
            self._at_once = 0
            raise Livelock(f"{MAX_AT_ONCE:,} callbacks ran at {self._now:.6f} and more are ready: {ready[0]!r}")
        if count > 1 and self._order is not None:
            self._mix(self._order)
        for _ in range(count):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            owner = handle._context.get(OWNER)  # type: ignore[attr-defined]  # the only way to know whose it is
            if owner is None or owner.admits(handle):
                handle._run()

    def _move_time(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False  # type: ignore[attr-defined]  # asyncio's own
        if self._timer_cancelled_count > len(scheduled) // 2 > MANY_TIMERS:
            scheduled = self._without_cancelled()
        self._at_once = 0
        if self._working:
            self._wait_really(scheduled[0].when() - self._now if scheduled else None)
        elif scheduled:
            self._now = max(self._now, scheduled[0].when())
            self.moved += 1
            if not self.moved % COLLECT_EVERY:
                gc.collect()
        else:
            raise Deadlock("nothing is ready and no timer is set: what is waited for can never come")

    def _without_cancelled(self) -> list[asyncio.TimerHandle]:
        for timer in self._scheduled:
            timer._scheduled = not timer._cancelled  # type: ignore[attr-defined]  # asyncio's own
        self._scheduled = [timer for timer in self._scheduled if not timer._cancelled]
        heapq.heapify(self._scheduled)
        self._timer_cancelled_count = 0
        return self._scheduled

    def _wait_really(self, seconds: float | None) -> None:
        began = self._real.monotonic()
        self._process_events(self._selector.select(seconds))  # type: ignore[attr-defined]  # asyncio's own
        passed = self._real.monotonic() - began
        self._now += passed if seconds is None else min(seconds, passed)

    def _wake_due(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]  # asyncio's own
            self._ready.append(handle)

    def _mix(self, order: Chance) -> None:
        """Draw whose callbacks come next, again and again; those of one owner keep their order."""
        owners: dict[Owner | None, deque[asyncio.Handle]] = {}
        for handle in self._ready:
            owners.setdefault(handle._context.get(OWNER), deque()).append(handle)  # type: ignore[attr-defined]
        if len(owners) == 1:
            return
        lines = list(owners.values())
        self._ready.clear()
        while lines:
            at = order.bits(16) % len(lines)
            self._ready.append(lines[at].popleft())
            if not lines[at]:
                del lines[at]


class Task(asyncio.Task[Any]):
    """A task whose place in a set is the same in every run, and so the order in which a set of them is cancelled."""

    def __init__(self, number: int, work: Coroutine[Any, Any, Any], **more: Any) -> None:
        self._number = number
        super().__init__(work, **more)

    def __hash__(self) -> int:
        return self._number


class Future(asyncio.Future[Any]):
    """The same for a future."""

    def __init__(self, number: int, **more: Any) -> None:
        self._number = number
        super().__init__(**more)

    def __hash__(self) -> int:
        return self._number
