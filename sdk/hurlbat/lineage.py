"""Which run the code belongs to that is being executed, so that what it submits is linked to that run."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from hurlbat.client import AsyncClient
    from hurlbat.runs import RunOptions
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


def current_run(client: "AsyncClient | Client") -> str | None:
    """Return the run that the current code belongs to, if there is one and it is from the server of this client.

    Another server would not know it. What a task left behind belongs to no run.
    """
    running = RUNNING.get()
    if running is None or running.over:
        return None
    if client is not running.callers.client and client is not running.callers.sync_client:
        return None
    return running.run_id


def linked(options: "RunOptions", client: "AsyncClient | Client") -> "RunOptions":
    """Return the options with the current run as parent, unless they name one, or None for none."""
    if "parent" in options:
        return options
    run_id = current_run(client)
    return options if run_id is None else {**options, "parent": run_id}
