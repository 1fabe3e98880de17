"""Which run the code belongs to that is being executed, so that what it submits is linked to that run."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from hurlbat.runs import RunOptions

if TYPE_CHECKING:
    from hurlbat.client import AsyncClient
    from hurlbat.sync_client import Client


class Callers(Protocol):
    """Who talks to the server for a task."""

    @property
    def client(self) -> "AsyncClient":
        """For async code."""
        ...

    @property
    def sync_client(self) -> "Client":
        """For sync code."""
        ...


class Running(Protocol):
    """An attempt that is being executed here."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def callers(self) -> Callers:
        """Who talks to the server that the run is from."""
        ...

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        ...


RUNNING: ContextVar[Running | None] = ContextVar("hurlbat_running", default=None)
"""The attempt that the current code belongs to; also in its threads, and in asyncio tasks that it makes."""


def linked(options: RunOptions, client: "AsyncClient | Client") -> RunOptions:
    """Return the options with the current run as parent, unless they name one, or None for none.

    Only at the server that the run is from; another one would not know it. What a task left behind has no parent.
    """
    running = RUNNING.get()
    if "parent" in options or running is None or running.over:
        return options
    if client is not running.callers.client and client is not running.callers.sync_client:
        return options
    return {**options, "parent": running.run_id}
