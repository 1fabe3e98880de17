"""The way of one attempt through what is around its task, and out again: middleware, dependencies, the task."""

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AsyncExitStack, nullcontext
from typing import Any, Protocol

from hurlbat import databases
from hurlbat.context import Context
from hurlbat.injection import Injection
from hurlbat.lineage import Callers
from hurlbat.middleware import Around
from hurlbat.shape import Shape
from hurlbat.threads import Lane, Steps


class Runnable(Protocol):
    """A task as far as executing it goes."""

    @property
    def function(self) -> Callable[..., Any]:
        """What to call."""
        ...

    @property
    def shape(self) -> Shape:
        """How to call it."""
        ...

    @property
    def callers(self) -> Callers:
        """Who talks to the server for it."""
        ...


class Room(Protocol):
    """Where attempts are executed."""

    around: Around
    pool: Executor
    """Threads for sync tasks, and for what is sync in others."""
    leaving: Executor
    """Threads for what is given back."""

    def lane(self) -> Lane:
        """Ask for a thread of the pool to keep."""
        ...


class Passage:
    """One attempt of a task with something around it.

    `over` tells whether its result is out; `told` is called when it is cancelled while something sync is at work, which
    goes on to its end.
    """

    def __init__(
        self,
        runnable: Runnable,
        room: Room,
        *,
        over: Callable[[], bool],
        told: Callable[[], None],
    ) -> None:
        self.deaf = False
        """Whether a sync function is at work, which a cancellation cannot reach: it reads a flag."""
        self._function = runnable.function
        self._shape = runnable.shape
        self._around = room.around
        self._over = over
        self._lane = None if runnable.shape.is_async else room.lane()
        self._steps = (
            Steps(room.pool, room.leaving, told) if self._lane is None else Steps(self._lane, self._lane, told)
        )

    @property
    def held(self) -> Future[None] | None:
        """What is cancelled where a sync task has to stop before it has a thread."""
        return None if self._lane is None else self._lane.held

    async def ready(self) -> None:
        """Return when it may start: a sync task has to have its thread."""
        if self._lane is not None:
            await self._lane.taken

    async def go(self, input: Any, context: Context) -> Any:
        """Return what comes of it when all is left. May be called once."""
        async with databases.apart() if self._shape.is_async and databases.are_kept() else nullcontext():
            return await self._around.call(context, lambda: self._through_dependencies(input, context))

    def close(self) -> None:
        """Give back the thread."""
        if self._lane is not None:
            self._lane.shutdown()

    async def _through_dependencies(self, input: Any, context: Context) -> Any:
        overrides = self._around.overrides
        wants = self._shape.wants_with(overrides) if overrides else self._shape.wants
        async with AsyncExitStack() as stack:
            given = await Injection(context, self._steps, stack).values(wants)
            positional, named = self._shape.arguments(input, context, given)
            value = await self._called(positional, named)
            if self._over():  # too late: what it holds must not be kept as if it had succeeded
                raise asyncio.CancelledError("the task ended after its result was due")
        return value  # no exit swallows an error

    async def _called(self, positional: list[Any], named: dict[str, Any]) -> Any:
        if self._shape.is_async:
            return await self._function(*positional, **named)
        self.deaf = True
        try:
            value = await self._steps.enter(self._function, *positional, **named)
        finally:
            self.deaf = False
        return await value if inspect.isawaitable(value) else value
