"""One server's connection to the simulated disk: the same promises, latency and exceptions as a real database."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from hurlbat_dispatcher.simulation.disk import Disk
from hurlbat_dispatcher.simulation.faults import Trouble
from hurlbat_dispatcher.store.database import Clash, DatabaseTrouble, Heard
from hurlbat_dispatcher.store.statement import Script

T = TypeVar("T")


class SimulatedDatabase:
    """A database as one server sees it. See `store.database.Database`. `shared`: other servers may use it, too."""

    file: str | None = None

    def __init__(self, disk: Disk, trouble: Trouble, *, shared: bool) -> None:
        self.shared = shared
        self._disk = disk
        self._trouble = trouble
        self._open = False
        self._writing = asyncio.Lock()

    async def open(self) -> None:
        """Connect."""
        await self._trouble.io("connect", self._trouble.faults.disk_seconds)
        self._open = True

    async def close(self) -> None:
        """Let go."""
        self._open = False

    async def prepare(self) -> None:
        """Do nothing: the schema is made with the disk."""

    async def migrate(self) -> None:
        """Do nothing: the schema is made with the disk."""

    async def write(self, script: Script[T]) -> T:
        """Run the script in one transaction, after all that were given before it."""
        async with self._writing:
            return await self._do("a commit", script, self._disk.write)

    async def read(self, script: Script[T]) -> T:
        """Run the script on what is stored."""
        return await self._do("a read", script, self._disk.read)

    async def listen(self, heard: Heard) -> None:
        """Call `heard` with what other servers notify."""
        if self.shared and self._open:
            self._disk.listen(heard)

    async def notify(self, message: str) -> None:
        """Tell the other servers."""
        if self.shared and self._open:
            self._disk.notify(message)

    async def cut_off(self) -> None:
        """Do nothing: a transaction is one step here, and nobody stands still in the middle of it."""

    async def _do(self, what: str, script: Script[T], run: Callable[[Script[T]], T]) -> T:
        seconds = self._trouble.faults.disk_seconds
        await self._trouble.io(f"the begin of {what}", seconds)
        if not self._open:
            script.close()
            raise DatabaseTrouble("the database is closed")
        try:
            result = run(script)
        except sqlite3.IntegrityError as error:
            raise Clash(str(error)) from error
        except sqlite3.DataError:  # a value that no database takes: the fault of whoever gave it
            raise
        except sqlite3.Error as error:
            raise DatabaseTrouble(f"the database failed: {error}") from error
        await self._trouble.io(f"the end of {what}", seconds)
        return result
