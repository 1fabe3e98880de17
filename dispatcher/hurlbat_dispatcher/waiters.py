"""Those who wait for news of a run, and hear of it the moment it is committed: of its end, or of whatever happens."""

import asyncio
from collections.abc import Collection, Iterable


class Waiters:
    """Futures of those who wait for the end of a run, and bells of those who watch it, by run id.

    One that leaves takes everything with it.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._watching: dict[str, set[asyncio.Event]] = {}
        self.watches = 0
        """How many watch."""
        self.closed = False
        """Whether nobody is to wait any longer."""

    @property
    def awaited(self) -> Collection[str]:
        """Return the runs whose end somebody waits for."""
        return self._waiting.keys()

    @property
    def watched(self) -> Collection[str]:
        """Return the runs that somebody watches."""
        return self._watching.keys()

    def finished(self, run_ids: Iterable[str]) -> None:
        """Wake all who wait for these runs, or watch them."""
        if self._waiting or self._watching:
            for run_id in run_ids:
                for future in self._waiting.pop(run_id, ()):
                    if not future.done():
                        future.set_result(None)
                self._ring(run_id)

    def changed(self, run_ids: Iterable[str]) -> None:
        """Wake all who watch these runs."""
        if self._watching:
            for run_id in run_ids:
                self._ring(run_id)

    def close(self) -> None:
        """Let everybody look once more and go: the server stops."""
        self.closed = True
        self.finished([*self._waiting, *self._watching])

    def enter(self, run_id: str) -> asyncio.Future[None]:
        """Begin to wait for the end of a run; to be followed by `leave`."""
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

    def watch(self, run_id: str) -> asyncio.Event:
        """Begin to watch a run: the bell rings when something has happened to it. To be followed by `unwatch`."""
        bell = asyncio.Event()
        self._watching.setdefault(run_id, set()).add(bell)
        self.watches += 1
        return bell

    def unwatch(self, run_id: str, bell: asyncio.Event) -> None:
        """Watch no longer."""
        others = self._watching.get(run_id)
        if others is not None and bell in others:
            others.discard(bell)
            self.watches -= 1
            if not others:
                del self._watching[run_id]

    def _ring(self, run_id: str) -> None:
        for bell in self._watching.get(run_id, ()):
            bell.set()

    def __len__(self) -> int:
        return len(self._waiting)
