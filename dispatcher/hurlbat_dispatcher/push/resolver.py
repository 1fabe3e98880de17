"""Resolves names without blocking the loop, and without one slow name holding up the others.

`getaddrinfo` blocks and cannot be cancelled, so each lookup has a thread of its own that dies with the process.
Requests for one name share one lookup, and a name that hangs keeps nobody waiting until `MAX_LOOKUPS` of them hang.
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

MAX_LOOKUPS: Final = 64

Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Returns all addresses of a name, or raises OSError."""


class Resolver:
    """Looks names up, one lookup at a time for each name."""

    def __init__(self, lookup: Lookup | None = None) -> None:
        self._lookup = lookup or self._ask_system
        self._running: dict[str, asyncio.Task[Sequence[str]]] = {}
        self._threads = asyncio.Semaphore(MAX_LOOKUPS)

    async def addresses(self, host: str) -> Sequence[str]:
        """Return the addresses of a name. Raises OSError; being cancelled leaves the lookup to the others."""
        task = self._running.get(host)
        if task is None:
            task = asyncio.ensure_future(self._run(host))
            self._running[host] = task
            task.add_done_callback(_forget_error)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Stop waiting for lookups."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, host: str) -> Sequence[str]:
        try:
            return await self._lookup(host)
        finally:
            del self._running[host]

    async def _ask_system(self, host: str) -> Sequence[str]:
        async with self._threads:
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Sequence[str]] = loop.create_future()
            threading.Thread(target=_getaddrinfo, args=(host, loop, answer), daemon=True, name="hurlbat-dns").start()
            return await answer


def _getaddrinfo(host: str, loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Sequence[str]]) -> None:
    found: Sequence[str] = ()
    error: OSError | None = None
    try:
        infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = list(dict.fromkeys(str(info[4][0]) for info in infos))
    except UnicodeError:
        error = OSError(f"{host} is not a name that can be resolved")
    except OSError as failed:
        error = failed
    try:
        loop.call_soon_threadsafe(_tell, answer, found, error)
    except RuntimeError:  # the loop was closed meanwhile: nobody waits
        return


def _tell(answer: asyncio.Future[Sequence[str]], found: Sequence[str], error: OSError | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(found)


def _forget_error(task: asyncio.Task[Sequence[str]]) -> None:
    if not task.cancelled():
        task.exception()
