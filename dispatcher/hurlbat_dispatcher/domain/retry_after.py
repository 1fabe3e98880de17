"""How long a worker asked us to wait: the `Retry-After` header (RFC 9110, section 10.2.3), read forgivingly.

Workers write seconds, fractions, dates, and nonsense. A number or a date is clamped to what we are willing to wait, all
else is ignored; the timeline shows both what was asked and what is made of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

MAX_RETRY_AFTER: Final = 3_600.0
"""Seconds; who asks for more gets this."""

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """`asked` is the header as it came (cut short), `used` the seconds that we wait; None where there is none."""

    asked: str | None = None
    used: float | None = None


NOTHING_ASKED: Final = RetryAfter()


def read_retry_after(values: Sequence[str], now_ms: int) -> RetryAfter:
    """Read the header's values. Of several the longest wait that can be read counts."""
    if not values:
        return NOTHING_ASKED
    waits = [wait for wait in (_seconds(value.strip(), now_ms) for value in values) if wait is not None]
    used = min(max(0.0, *waits), MAX_RETRY_AFTER) if waits else None
    return RetryAfter(", ".join(values)[:128], used)


def _seconds(text: str, now_ms: int) -> float | None:
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text[:64])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now_ms / 1_000
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
