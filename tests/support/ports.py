"""Ports for servers that the tests start.

Every process of tests has a block of them to itself, and holds it for as long as it lives: nobody else's test takes a
port between its choice and its use, or while a server that was there is started again.
"""

import atexit
import itertools
import socket
from collections.abc import Iterator
from functools import cache

# Below the range that the kernel hands to outgoing connections, so that none of those can take a port in between.
FIRST, LAST, BLOCK = 12_000, 32_000, 400


def free_port() -> int:
    """Return a loopback port that nobody listens on, another one at every call until the block is through."""
    for port in itertools.islice(_ports(), BLOCK):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port of this process is taken")


@cache
def _ports() -> Iterator[int]:
    """Return this process's ports, which are its by a UDP socket at the first of them."""
    for first in range(FIRST, LAST, BLOCK):
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        return itertools.cycle(range(first, first + BLOCK))
    raise RuntimeError(f"every block of ports from {FIRST} to {LAST} is held by another process of tests")
