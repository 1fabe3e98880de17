"""Call what provides for a task, in order, and leave it in reverse when the task has ended, however that was."""

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any

from hurlbat.context import Context
from hurlbat.depends import Manner, Provider, Want
from hurlbat.threads import Steps


class Injection:
    """What was provided for one call of a task. `stack` leaves it, and `steps` run what is sync."""

    def __init__(self, context: Context, steps: Steps, stack: AsyncExitStack) -> None:
        self._context = context
        self._steps = steps
        self._stack = stack
        self._given: dict[Provider, Any] = {}

    async def values(self, wants: Sequence[Want]) -> dict[str, Any]:
        """Return what these parameters get."""
        return {want.name: await self._value(want) for want in wants}

    async def _value(self, want: Want) -> Any:
        provider = want.provider
        if want.use_cache and provider in self._given:
            return self._given[provider]
        named: dict[str, Any] = dict.fromkeys(provider.contexts, self._context)
        named |= await self.values(provider.wants)
        positional = [named.pop(one.name, one.default) for one in provider.positional]
        value = await self._called(provider, positional, named)
        if want.use_cache:
            self._given[provider] = value
        return value

    async def _called(self, provider: Provider, positional: list[Any], named: dict[str, Any]) -> Any:
        call = provider.call
        match provider.manner:
            case Manner.COROUTINE:
                return await call(*positional, **named)
            case Manner.ASYNC_GENERATOR:
                manager = asynccontextmanager(call)(*positional, **named)
                value = await manager.__aenter__()
                self._stack.push_async_exit(_unswallowed(manager.__aexit__))
                return value
            case Manner.GENERATOR:
                lent = _Lent(contextmanager(call)(*positional, **named), self._steps)
                # before it is entered: when its time is over meanwhile, it is entered all the same, and must be left
                self._stack.push_async_exit(_unswallowed(lent.leave))
                return await lent.enter()
            case Manner.FUNCTION:
                value = await self._steps.enter(call, *positional, **named)
                return await value if inspect.isawaitable(value) else value


class _Lent:
    """A generator that is entered and left in threads."""

    def __init__(self, manager: AbstractContextManager[Any], steps: Steps) -> None:
        self._manager = manager
        self._steps = steps
        self._entered = False

    async def enter(self) -> Any:
        return await self._steps.enter(self._enter)

    async def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._entered:
            await self._steps.leave(self._manager.__exit__, kind, error, at)

    def _enter(self) -> Any:
        value = self._manager.__enter__()
        self._entered = True
        return value


def _unswallowed(leave: Callable[..., Any]) -> Callable[..., Any]:
    """Return an exit that lets the task's error pass: a run whose task has failed has no output to go on with."""

    async def leave_only(kind: Any, error: Any, at: Any) -> bool:
        await leave(kind, error, at)
        return False

    return leave_only
