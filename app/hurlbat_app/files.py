"""How many files, and so connections, this process may have open."""

import logging
from typing import Final

BESIDES: Final = 1_000
"""Files for the API's own connections, the database and the log."""
_log = logging.getLogger("hurlbat.server")


def make_room(connections: int) -> None:
    """Raise this process's limit of open files as far as it may, and say so where that is too little for all."""
    try:
        import resource
    except ImportError:
        return
    wanted = connections + BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if most > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        except (OSError, ValueError):
            most = soft
    if most < wanted:
        _log.warning(
            "%d connections to workers are allowed (HURLBAT_MAX_CONNECTIONS), and this process may have %d files open; "
            "raise that limit (ulimit -n) to %d, or allow fewer",
            connections,
            most,
            wanted,
        )
