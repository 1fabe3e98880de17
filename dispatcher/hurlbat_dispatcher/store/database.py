"""What the engine asks of a database.

SQLite and PostgreSQL differ behind this, for these reasons and no others: SQLite runs in the server's own process, so a
script runs on its thread in one hop, its file belongs to one server at a time, and there is nobody to notify.
PostgreSQL is shared: steps are awaited, servers wake each other, and clocks are the database's.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from hurlbat_dispatcher.store.statement import Script

T = TypeVar("T")
Heard = Callable[[str], None]


class DatabaseTrouble(Exception):
    """The database could not do it: nothing of the transaction is stored, or nobody knows (`unknown`)."""

    def __init__(self, message: str, *, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class Clash(Exception):
    """A constraint, or another transaction, forbids what the script wrote; the whole transaction was rolled back."""


class CannotOpen(Exception):
    """The database cannot be used by this server; the sentence says what to do."""


class Database(Protocol):
    """Runs scripts, each in one transaction."""

    shared: bool
    """Whether other servers may use it at the same time."""
    file: str | None
    """The file that it is, where it is one."""

    async def open(self) -> None:
        """Connect, take the file's lock where there is one. Raises `CannotOpen`, `DatabaseTrouble`."""

    async def close(self) -> None:
        """Let go of everything. May be called twice."""

    async def prepare(self) -> None:
        """Get the schema ready for this version: one that is ours alone is migrated, a shared one only made.

        Raises `CannotOpen` when it is newer, or shared and older.
        """

    async def migrate(self) -> None:
        """Bring the schema up to this version. Raises `CannotOpen` when it is newer."""

    async def write(self, script: Script[T]) -> T:
        """Run the script in one durable transaction, after all that were given before it."""

    async def read(self, script: Script[T]) -> T:
        """Run the script on a snapshot that has every write that was acknowledged."""

    async def listen(self, heard: Heard) -> None:
        """Call `heard` with what other servers notify, if any. Ask again to have a lost connection back."""

    async def notify(self, message: str) -> None:
        """Tell the other servers; a hint that may be lost."""

    async def cut_off(self) -> None:
        """End the transactions of servers that have stood still in the middle of one, whoever waits for them or not."""
