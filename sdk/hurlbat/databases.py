"""Connections that Django keeps for each thread: closed around an attempt as Django does around a request.

Nothing closes them otherwise, as an attempt is no request: one that the database has dropped would fail every later
task of its thread. Nothing is imported here; where the app has not loaded Django there is nothing to do.
"""

import logging
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_CONNECTIONS = "django.db"
_SETTINGS = "django.conf"
_THREADS = "asgiref.sync"

logger = logging.getLogger("hurlbat")


class Pool(ThreadPoolExecutor):
    """Threads for what is sync. Those of their connections that are old or broken are closed before and after it."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **named: P.kwargs) -> Future[T]:
        """Run a function in a thread."""

        def between() -> T:
            _close(_old)
            try:
                return function(*args, **named)
            finally:
                _close(_old)

        return super().submit(between)


def are_kept() -> bool:
    """Return whether this process has a framework that keeps connections for its threads."""
    return _CONNECTIONS in sys.modules and _THREADS in sys.modules


@asynccontextmanager
async def apart() -> AsyncIterator[None]:
    """Give an async task a thread of its own for what it does in sync code, and close its connections at the end.

    Django's async queries run in such a thread. Only where `are_kept`.
    """
    threads = sys.modules[_THREADS]
    async with threads.ThreadSensitiveContext():
        try:
            yield
        finally:
            await threads.sync_to_async(_close)(_all)


def _close(which: Callable[[Any], None]) -> None:
    database, settings = sys.modules.get(_CONNECTIONS), sys.modules.get(_SETTINGS)
    if database is None or settings is None or not settings.settings.configured:
        return
    try:
        which(database)
    except Exception:  # the database's; the attempt has its own result
        logger.exception("a connection of Django's could not be closed")


def _old(database: Any) -> None:
    database.close_old_connections()


def _all(database: Any) -> None:
    database.connections.close_all()
