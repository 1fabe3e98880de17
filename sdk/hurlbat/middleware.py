"""What an app puts around all its tasks: middleware, and other functions in place of those that they depend on."""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from hurlbat.context import Context
from hurlbat.errors import ConfigError
from hurlbat.opening import Opening

CallNext = Callable[[], Awaitable[Any]]
"""Goes on to the next middleware, and at last to the task; returns what it returns."""
Middleware = Callable[[Context, CallNext], Awaitable[Any]]
M = TypeVar("M", bound=Middleware)


@dataclass(frozen=True, slots=True)
class Around:
    """What is around the tasks of an app. The lists may grow, and the overrides change, while it runs."""

    opening: Opening = field(default_factory=Opening)
    middleware: list[Middleware] = field(default_factory=list)
    overrides: dict[Callable[..., Any], Callable[..., Any]] = field(default_factory=dict)

    def add(self, middleware: M) -> M:
        """Put one more around each attempt, inside of those that are there. Raises `ConfigError`."""
        name = getattr(middleware, "__name__", repr(middleware))
        if not _is_async(middleware):
            raise ConfigError(f"middleware {name} must be an async function: async def {name}(ctx, call_next)")
        try:
            inspect.signature(middleware).bind(None, None)
        except TypeError as error:
            raise ConfigError(
                f"middleware {name} is called with a Context and call_next, and cannot be: {error}"
            ) from error
        self.middleware.append(middleware)
        return middleware

    async def call(self, context: Context, task: CallNext) -> Any:
        """Call all middleware, the first one outermost, around a task."""
        for middleware in reversed(self.middleware):
            task = partial(middleware, context, task)
        return await task()


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
