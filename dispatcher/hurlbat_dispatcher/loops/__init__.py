"""Background duties, one a file: each is a `run_once`, apart from the loop that calls it."""

from collections.abc import Awaitable, Callable

import structlog

from hurlbat_dispatcher.clock import Clock

log = structlog.get_logger("hurlbat.loops")


async def every(
    seconds: float | Callable[[], float], clock: Clock, name: str, run_once: Callable[[], Awaitable[object]]
) -> None:
    """Call `run_once` again and again, with a rest between. The one place where a failed duty is logged."""
    while True:
        await clock.sleep(seconds() if callable(seconds) else seconds)
        try:
            await run_once()
        except Exception as error:
            log.error("a background duty failed", duty=name, error=repr(error))
