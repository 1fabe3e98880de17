"""Ports for servers that the tests start."""

import itertools
import os
import socket

# Below the range that the kernel hands to outgoing connections, so that none of those can take a port in between.
FIRST, LAST = 12_000, 32_000
# Every test process begins somewhere else, and those that were started together far from each other: they rarely meet.
_ports = itertools.cycle(range(FIRST, LAST))
for _ in range(os.getpid() * 7_919 % (LAST - FIRST)):
    next(_ports)


def free_port() -> int:
    """Return a loopback port that nobody listens on, another one at every call."""
    for port in itertools.islice(_ports, LAST - FIRST):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port is taken")
