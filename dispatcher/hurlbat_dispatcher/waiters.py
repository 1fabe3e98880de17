"""Those who wait for the end of a run, and hear of it the moment it is committed."""

import asyncio
from collections.abc import Iterable


class Waiters:
    """Futures by run id; one that leaves takes everything with it."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def finished(self, run_ids: Iterable[str]) -> None:
        """Wake all who wait for these runs."""
        if self._waiting:
            for run_id in run_ids:
                for future in self._waiting.pop(run_id, ()):
                    if not future.done():
                        future.set_result(None)

    def wake_all(self) -> None:
        """Let everybody look for themselves, e.g. because the server stops."""
        self.finished(list(self._waiting))

    def enter(self, run_id: str) -> asyncio.Future[None]:
        """Begin to wait; to be followed by `leave`."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, set()).add(future)
        return future

    def leave(self, run_id: str, future: asyncio.Future[None]) -> None:
        """Wait no longer."""
        others = self._waiting.get(run_id)
        if others is not None:
            others.discard(future)
            if not others:
                del self._waiting[run_id]
        future.cancel()

    def __len__(self) -> int:
        return len(self._waiting)
