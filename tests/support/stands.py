"""A server on either database, with all that a set of tests has beside it, for as long as these tests last."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support.postgres import Cluster
from tests.support.processes import Processes

T = TypeVar("T")
SetUp = Callable[[Processes, Path, str], AbstractContextManager[T]]
"""Starts everything, given what starts processes, a folder for files, and the URL of the database."""
UNHURRIED: Final[dict[str, Any]] = {"HURLBAT_HEARTBEAT": "40", "HURLBAT_LEASE": "120"}
"""Settings of a server whose tests are not about leases: it or a worker may stand still, and nothing is lost."""


@contextmanager
def on_sqlite(folder: Path, set_up: SetUp[T]) -> Iterator[T]:
    """Yield what is set up on SQLite; all its processes end with the block."""
    processes = Processes(folder)
    try:
        with set_up(processes, folder, f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}") as started:
            yield started
    finally:
        processes.close()


@contextmanager
def on_postgres(folder: Path, cluster: Cluster, set_up: SetUp[T]) -> Iterator[T]:
    """Yield what is set up on a database of its own on PostgreSQL; all its processes end with the block."""
    processes = Processes(folder)
    with cluster.database() as name:
        try:
            with set_up(processes, folder, cluster.url(name)) as started:
                yield started
        finally:
            processes.close()
