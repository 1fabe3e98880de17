"""Which release of this package this is."""

from typing import Final

VERSION: Final = "0.1.0"
"""The only place that says it: packaging reads it here, as the metadata of what is installed are slow to read."""


def version() -> str:
    """Return the version, e.g. `0.1.0`."""
    return VERSION
