"""Hear that the process is told to stop before its web server does.

A server that stops gracefully waits for the answers that are under way before it tells the app. For a delivery that can
be minutes. Heard early, the streams are closed at once, their runs go on by themselves, and the server need not wait.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

NOTICE_SECONDS = 0.25
"""Between our hearing of the signal and the web server's: requests of this time are refused politely, with their
connections closed, so that none meets a connection that the server closes without a word."""

LOOK_SECONDS = 0.5
"""How often it is looked whether gunicorn has told this worker to stop."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_stop_signal(call: Callable[[], None]) -> Iterator[None]:
    """Call back on the running event loop at SIGTERM and SIGINT; the handlers that were there follow a moment later.

    Signals that nobody handles are left alone, and so are all of them outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    mine: dict[signal.Signals, tuple[Any, Any]] = {}
    for number in _SIGNALS:
        before = signal.getsignal(number)
        if callable(before):
            mine[number] = (_chained(loop, call, before), before)
            signal.signal(number, mine[number][0])
    try:
        yield
    finally:
        for number, (handler, before) in mine.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before)


def _chained(
    loop: asyncio.AbstractEventLoop, call: Callable[[], None], before: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if told or loop.is_closed():
            before(number, frame)
            return
        told = True
        loop.call_soon_threadsafe(call)
        if before is signal.default_int_handler:
            before(number, frame)
        else:
            loop.call_soon_threadsafe(loop.call_later, NOTICE_SECONDS, before, number, frame)

    return handle


@asynccontextmanager
async def when_gunicorn_stops(call: Callable[[], None]) -> AsyncIterator[None]:
    """Call back once this worker process of gunicorn was told to stop, where it is one.

    Only the main thread can hear signals, and it is gunicorn's; but its handler of SIGTERM is a method of the object
    that says whether the worker is to go on.
    """
    worker: Any = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if not isinstance(getattr(worker, "alive", None), bool):
        yield
        return
    watcher = asyncio.create_task(_watch(worker, call))
    try:
        yield
    finally:
        watcher.cancel()


async def _watch(worker: Any, call: Callable[[], None]) -> None:
    while worker.alive:  # noqa: ASYNC110 -- gunicorn's, and it tells nobody
        await asyncio.sleep(LOOK_SECONDS)
    call()
