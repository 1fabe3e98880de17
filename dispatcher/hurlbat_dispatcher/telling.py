"""How times and durations are told to people, in sentences and in JSON."""

from datetime import UTC, datetime
from functools import lru_cache


def rfc3339(ms: int) -> str:
    """Return a time in milliseconds since the epoch as `2030-01-31T12:00:00.000Z`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def span(ms: int) -> str:
    """Return a duration in milliseconds as people say it, e.g. `90 s`."""
    return f"{ms / 1000:g} s"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
