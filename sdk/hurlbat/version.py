"""Which release of this package is installed."""

from functools import cache


@cache
def version() -> str:
    """Return the installed version, e.g. `0.1.0`."""
    from importlib.metadata import version as installed  # slow to import, and seldom needed

    return installed("hurlbat")
