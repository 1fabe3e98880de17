"""The fence: what the owner of the lanes does holds only while it is the owner, and one transaction at a time."""

from collections.abc import Generator

from hurlbat_dispatcher.store import leases
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk


class NotOwner(Exception):
    """Another server owns the lanes now; nothing of the transaction was written."""


def fenced(desk: Desk) -> Generator[Ask, Rows, int]:
    """Hold the lanes until the commit, and return now (ms). Raises `NotOwner`."""
    rows = yield leases.FENCE.fetch()
    owner, epoch, now = rows[0]
    if owner != desk.me or epoch != desk.epoch:
        raise NotOwner(f"the lanes belong to {owner} in epoch {epoch}")
    return desk.tell_time(int(now))
