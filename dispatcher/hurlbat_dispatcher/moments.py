"""Moments that people name: within a year of now, or they are a mistake."""

from typing import Final

from hurlbat_dispatcher.errors import Invalid

YEAR_SECONDS: Final = 31_536_000


def check_moment(moment: int | None, now: int, field: str = "run_at") -> None:
    """Return when a time (ms) to start is at most a year from now, past or ahead. Raises `Invalid`."""
    if moment is not None and abs(moment - now) > YEAR_SECONDS * 1000:
        raise Invalid(
            "member_invalid",
            f"{field} must be within {YEAR_SECONDS} seconds (a year) of now, ahead or past",
            field=field,
            limit=YEAR_SECONDS,
        )
