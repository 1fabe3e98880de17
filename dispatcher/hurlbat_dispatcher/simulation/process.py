"""Processes of a simulated world: tasks that live, stand still and die together, at any await.

Which process a callback belongs to is told by its context, which asyncio carries from task to task. Nothing of a dead
process ever runs again, also no `finally`: that is what a kill means. A paused one (SIGSTOP) misses nothing: what
became ready meanwhile, its timers too, runs when it goes on.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from hurlbat_dispatcher.simulation.loop import OWNER, VirtualLoop

T = TypeVar("T")


class Killed(Exception):
    """The process died before it had answered."""


class Process:
    """Some tasks of a world with one fate. `kill_at` kills it before its n-th step; `steps` says how many it did.

    A step is one callback of the loop: what a task does between two awaits.
    """

    def __init__(self, name: str, loop: VirtualLoop, note: Callable[[str, str], None]) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.steps = 0
        self.kill_at: int | None = None
        self.fragile = True
        """Whether faults may kill and stall it."""
        self.context: Context = copy_context()
        self.context.run(OWNER.set, self)
        self._loop = loop
        self._note = note
        self._haunts = False
        self._parked: deque[asyncio.Handle] = deque()
        self._watchers: dict[object, Callable[[], object]] = {}

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
        """Begin a task in this process. Raises `Killed` when it is dead."""
        if not self.alive:
            work.close()
            raise Killed(f"{self.name} is dead")
        return self._loop.create_task(work, name=name, context=self.context.copy())

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in this process for somebody outside, and return the result. Raises `Killed` when it dies."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def done(task: asyncio.Task[T]) -> None:
            if answer.done():
                return
            if task.cancelled():
                answer.cancel()
            elif (error := task.exception()) is not None:
                answer.set_exception(error)
            else:
                answer.set_result(task.result())

        def died() -> None:
            if not answer.done():
                answer.set_exception(Killed(f"{self.name} died"))

        task = self.spawn(work)
        task.add_done_callback(done)
        forget = self.when_killed(died)
        try:
            return await answer
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            forget()

    def when_killed(self, watcher: Callable[[], object]) -> Callable[[], object]:
        """Call `watcher` once when this process dies; return what makes that undone."""
        token = object()
        self._watchers[token] = watcher
        return lambda: self._watchers.pop(token, None)

    def kill(self, why: str = "") -> None:
        """End it as `kill -9` does. What it is doing right now goes on to its next await and no further."""
        if not self.alive:
            return
        self.alive = False
        self._note(self.name, f"killed {why}".rstrip())
        watchers, self._watchers = self._watchers, {}
        for watcher in watchers.values():
            watcher()

    def stall(self, seconds: float) -> None:
        """Pause it for so long."""
        self.pause()
        self._loop.call_later(seconds, self.resume, context=Context())

    def pause(self) -> None:
        """Let it stand still as SIGSTOP does, from its next await on."""
        if self.alive and not self.paused:
            self.paused = True
            self._note(self.name, "paused")

    def resume(self) -> None:
        """Let it go on with all that it has missed."""
        if self.alive and self.paused:
            self.paused = False
            self._note(self.name, "goes on")
            self._unpark()

    def haunt(self) -> None:
        """Let even the dead run, when the world is over: their tasks must come to an end before it is torn down."""
        self._haunts = True
        self._unpark()

    def admits(self, handle: asyncio.Handle) -> bool:
        """Tell whether a callback of this process may run now; one that may not is kept."""
        if self._haunts:
            return True
        if self.alive and not self.paused:
            self.steps += 1
            if self.steps == self.kill_at:
                self.kill(f"at its step {self.steps}")
            else:
                return True
        self._parked.append(handle)
        return False

    def __repr__(self) -> str:
        state = "dead" if not self.alive else "paused" if self.paused else "alive"
        return f"Process({self.name!r}, {state}, {self.steps} steps)"

    def _unpark(self) -> None:
        while self._parked:
            self._loop.requeue(self._parked.popleft())


def current() -> Process | None:
    """Return the process that runs now; None is the world itself, which nothing can stop."""
    owner = OWNER.get()
    return owner if isinstance(owner, Process) else None
