"""What an app opens once for all its tasks, and closes when none of them runs any more.

An asyncio task of its own holds it open, as what was entered in one task must be left in the same. Where the loop ends
without the app's lifespan, that task is cancelled with all the others, and closes when they have ended.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from hurlbat.errors import ConfigError


class Opening:
    """Opens by `enter`, once, and closes by `leave`. `settled` returns when the tasks that use it have ended."""

    def __init__(
        self,
        opener: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        settled: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.state: Any = None
        """What the opener has given, while it is open."""
        self._opener = opener
        self._settled = settled
        self._holder: asyncio.Task[None] | None = None
        self._opened: asyncio.Future[None] | None = None
        self._close = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether tasks may run: it is open, or there is nothing to open."""
        if self._opener is None:
            return True
        opened = self._opened
        return opened is not None and self._is_held() and opened.done() and opened.exception() is None

    async def enter(self) -> None:
        """Return when it is open. Raises what the opener raises; then the next one tries again."""
        if self._opener is None:
            return
        loop = asyncio.get_running_loop()
        if self._opened is None or not self._is_held():
            self._close = asyncio.Event()
            self._opened = loop.create_future()
            self._holder = loop.create_task(self._hold(self._opener, self._opened, self._close))
        await asyncio.shield(self._opened)

    async def leave(self) -> None:
        """Return when it is closed. Raises what the opener raises."""
        if self._holder is not None and self._is_held():
            self._close.set()
            await self._holder

    def _is_held(self) -> bool:
        holder = self._holder
        return holder is not None and not holder.done() and holder.get_loop() is asyncio.get_running_loop()

    async def _hold(
        self,
        opener: Callable[[], AbstractAsyncContextManager[Any]],
        opened: asyncio.Future[None],
        close: asyncio.Event,
    ) -> None:
        try:
            manager = opener()
            if not hasattr(manager, "__aenter__"):
                raise ConfigError(f"the lifespan gave {manager!r}; it must be made by @asynccontextmanager")
            async with manager as self.state:
                opened.set_result(None)
                try:
                    await close.wait()
                except asyncio.CancelledError:  # the loop ends, which is no error of the lifespan's: it closes as ever
                    if self._settled is not None:
                        await self._settled()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)
            opened.exception()  # seen, also where nobody waits any more
        finally:
            if self._opened is opened:  # not so where the loop was lost, as by a fork, and another holds it now
                self.state = None
