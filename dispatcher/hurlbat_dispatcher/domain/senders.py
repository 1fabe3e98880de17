"""Which of several servers sends an attempt that is about to start."""

from collections.abc import Mapping, Sequence
from typing import Final

AHEAD: Final = 32
"""Attempts by which the owner of the lanes may be ahead of another server before it gives work away.

What it sends itself starts sooner: nobody has to be told, and nothing to be read.
"""


def choose(me: str, hint: str | None, peers: Sequence[str], sending: Mapping[str, int]) -> str:
    """Return the server that took the run in, if it is still there, else the one that has the least in flight.

    `peers` are the other servers that may be given work, `sending` is how much each has in flight.
    """
    if hint is not None and hint in peers:
        return hint
    if hint == me or not peers:
        return me
    least = min(peers, key=lambda peer: (sending.get(peer, 0), peer))
    return least if sending.get(me, 0) > sending.get(least, 0) + AHEAD else me
