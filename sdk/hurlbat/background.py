"""An event loop in a thread of this process, for servers and platforms that have none.

It is started by the first who needs it, never before: a server that forks its workers after it has loaded the app would
leave the thread behind. A forked process begins anew, and a process that ends lets the loop end in good order first.
"""

import asyncio
import atexit
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any
from weakref import WeakSet

RETRY_SECONDS = 5.0
"""Between two tries to open what lives as long as the loop."""
PING_SECONDS = 2.0
"""A loop that does not answer for so long is blocked."""

logger = logging.getLogger("hurlbat")

_HERE = f"{os.path.dirname(__file__)}{os.sep}"
_LIBRARY = f"{os.path.dirname(os.__file__)}{os.sep}"

_all: "WeakSet[Background]" = WeakSet()
_at_exit: list[Callable[[], None]] = []


class Background:
    """A loop of its own, started when it is first asked for.

    `live` is open while the loop runs; while it cannot be opened that is logged and tried again. `forget` is called in
    a forked process whose parent had the loop running. Its end takes at most `patience` seconds.
    """

    def __init__(
        self,
        live: Callable[[], AbstractAsyncContextManager[Any]],
        *,
        forget: Callable[[], None] = lambda: None,
        patience: float = 10.0,
    ) -> None:
        self._live = live
        self._forget = forget
        self._patience = patience
        self._lock = threading.Lock()
        self._thread: _Thread | None = None
        _all.add(self)

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop. Starts it where it does not run."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            with self._lock:
                thread = self._thread
                if thread is None or not thread.is_alive():
                    thread = self._thread = _Thread(self._live)
                    thread.start()
                    _end_with_the_process()
            thread.ready.wait()
        return thread.loop

    def blocked(self, patience: float | None = None) -> str | None:
        """Return where the loop is stuck, `file:line in function`, or None where it goes on.

        It is stuck when it does not answer within so many seconds of `patience`, by default `PING_SECONDS`.
        """
        thread = self._thread
        if thread is None or not thread.is_alive():
            return None
        pong = threading.Event()
        with suppress(RuntimeError):  # closed just now
            thread.loop.call_soon_threadsafe(pong.set)
            if not pong.wait(PING_SECONDS if patience is None else patience):
                return _place(thread)
        return None

    def stop(self) -> None:
        """End the loop, and what lives with it."""
        thread, self._thread = self._thread, None
        if thread is None or not thread.is_alive():
            return
        with suppress(RuntimeError):  # closed just now
            thread.loop.call_soon_threadsafe(thread.over.set)
        thread.join(self._patience)
        if thread.is_alive():
            logger.warning("the event loop of the tasks has not ended within %g s and is left behind", self._patience)

    def begin_anew(self) -> None:
        """Know nothing of the thread, which is not in this process."""
        self._lock = threading.Lock()  # may have been held by another thread at the fork
        if self._thread is not None:
            self._thread = None
            self._forget()


class _Thread(threading.Thread):
    def __init__(self, live: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        super().__init__(name="hurlbat-loop", daemon=True)
        self.loop = asyncio.new_event_loop()
        self.over = asyncio.Event()
        self.ready = threading.Event()
        self._live = live

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop.call_soon(self.ready.set)
        told = ""
        while not self.over.is_set():
            try:
                async with self._live():
                    await self.over.wait()
            except Exception as error:  # the user's own
                if self.over.is_set():
                    logger.exception("the lifespan of the tasks failed when it was closed")
                    return
                if repr(error) != told:
                    told = repr(error)
                    logger.exception("the lifespan of the tasks failed; it is tried again every %g s", RETRY_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS):
                        await self.over.wait()


def _place(thread: threading.Thread) -> str:
    """Return where a thread is: in the outermost code that is neither this package's nor the standard library's."""
    frame = sys._current_frames().get(thread.ident or 0)
    place: traceback.FrameSummary | None = None
    for line in traceback.extract_stack(frame) if frame is not None else []:
        if line.filename.startswith(_HERE):
            place = None
        elif place is None and (not line.filename.startswith(_LIBRARY) or "-packages" in line.filename):
            place = line
    return "a place that cannot be told" if place is None else f"{place.filename}:{place.lineno} in {place.name}"


def _end_with_the_process() -> None:
    if _at_exit:
        return
    _at_exit.append(_stop_all)
    # Hooks of atexit come after all threads of pools were waited for, and a sync task may run for hours: this hook, by
    # which the standard library ends its pools, comes before. It is called in the reverse order of registration.
    register: Callable[[Callable[[], None]], object] = getattr(threading, "_register_atexit", atexit.register)
    register(_stop_all)


def _stop_all() -> None:
    for background in list(_all):
        background.stop()


def _begin_anew() -> None:
    for background in list(_all):
        background.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
