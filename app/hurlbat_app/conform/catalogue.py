"""All checks, in the order in which they are made."""

from typing import Final

from hurlbat_app.conform import (
    batches,
    cancelling,
    delivery,
    failures,
    forgeries,
    manifest,
    plain,
    reachable,
    reports,
    rotation,
    signatures,
    sizes,
    streams,
)
from hurlbat_app.conform.checks import Check

_ORDER: Final = (
    reachable.CHECKS,
    signatures.CHECKS,
    forgeries.CHECKS,
    rotation.CHECKS,
    manifest.CHECKS,
    delivery.CHECKS,
    tuple(check for check in plain.CHECKS if check.group == "delivery"),
    streams.CHECKS,
    batches.CHECKS,
    cancelling.CHECKS,
    failures.CHECKS,
    tuple(check for check in plain.CHECKS if check.group == "failures"),
    reports.CHECKS,
    sizes.CHECKS,
)
CHECKS: Final[tuple[Check, ...]] = tuple(check for checks in _ORDER for check in checks)
GROUPS: Final = tuple(dict.fromkeys(check.group for check in CHECKS))
FIRST: Final = ("reachable.answers", "reachable.no-redirect", "signatures.good", "reachable.mark")
"""What is looked at before all else, also where it was not asked for: without it nothing can be said."""
