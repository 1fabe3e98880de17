"""What servers on one database tell each other after a commit.

All of it is a hint: the sweep makes up for what is lost.

A message is a JSON object; who does not know a word in it leaves that word alone.
"""

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, Protocol, TypeVar

import structlog

from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import CancelOrder, Ledger
from hurlbat_dispatcher.turn.operations import Freed, Operation, Take, Tick

log = structlog.get_logger("hurlbat.neighbours")

MAX_TOLD: Final = 120
"""Runs in one message: a payload of PostgreSQL's holds 8,000 bytes."""
MAX_CANCELLED: Final = 40
"""Cancelled attempts in one message: a worker's name has up to 128 characters."""
T = TypeVar("T")


class Listener(Protocol):
    """What a message may ask of this server."""

    def finished(self, run_ids: Sequence[str]) -> None:
        """Wake who waits for these runs."""

    def let_go(self, attempts: Iterable[tuple[str, str, int]]) -> None:
        """Stop to send cancelled attempts (worker, run id, attempt)."""

    def reload(self) -> None:
        """Read the registry anew."""

    def look(self) -> None:
        """See who is there, and whether somebody must start the runs."""


class Neighbours:
    """The other servers, as far as this one talks to them."""

    def __init__(
        self,
        desk: Desk,
        listener: Listener,
        *,
        put: Callable[[Operation], None],
        notify: Callable[[str], Awaitable[None]],
        spawn: Callable[[Awaitable[None]], None],
    ) -> None:
        self._desk = desk
        self._listener = listener
        self._put = put
        self._notify = notify
        self._spawn = spawn

    def committed(self, ledger: Ledger) -> None:
        """Tell what a commit of this server means to others."""
        owns = self._desk.owns
        for sender, starts in groupby(sorted(ledger.assigned), key=lambda one: one.sender):
            for some in _portions([one.run_id for one in starts]):
                self._tell({"for": sender, "started": some})
        elsewhere = [order for order in ledger.cancels if order.sender not in (None, self._desk.me)]
        for sender, orders in groupby(sorted(elsewhere, key=_sender), key=_sender):
            for listed in _portions([(order.worker, order.run_id, order.attempt) for order in orders], MAX_CANCELLED):
                self._tell({"for": sender, "cancelled": listed})
        if not owns:
            for freed in _portions(ledger.freed):
                self._tell({"freed": freed})
        queued = {"queued": True} if ledger.queued and not owns else {}
        portions = list(_portions(ledger.finished)) or ([[]] if queued else [])
        for finished in portions:
            self._tell(queued | {"finished": finished})

    def registry_changed(self) -> None:
        """Tell that the registry should be read anew."""
        self._tell({"registry": True})

    def moved(self) -> None:
        """Tell that this server has come, or takes no more work."""
        self._tell({"moved": True})

    def heard(self, message: str) -> None:
        """Do what another server's message asks for."""
        try:
            said = json.loads(message)
            self._do(said)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            log.warning("a message of another server was not understood", error=repr(error))

    def _do(self, said: dict[str, Any]) -> None:
        self._listener.finished([str(run_id) for run_id in said.get("finished", ())])
        if said.get("for") == self._desk.me:
            started = [str(run_id) for run_id in said.get("started", ())]
            if started:
                self._put(Take(started))
            self._listener.let_go([(str(one[0]), str(one[1]), int(one[2])) for one in said.get("cancelled", ())])
        if self._desk.owns:
            freed = [(str(one[0]), int(one[1])) for one in said.get("freed", ())]
            if freed:
                self._put(Freed(freed))
            if said.get("queued"):
                self._put(Tick())
        if said.get("registry"):
            self._listener.reload()
        if said.get("moved"):
            self._listener.look()

    def _tell(self, said: dict[str, Any]) -> None:
        self._spawn(self._notify(json.dumps(said, separators=(",", ":"))))


def _sender(order: CancelOrder) -> str:
    return order.sender or ""


def _portions(items: Sequence[T], most: int = MAX_TOLD) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), most):
        yield items[at : at + most]
