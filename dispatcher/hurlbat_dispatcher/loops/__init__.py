"""Background duties, one a file: each is a `run_once`, apart from the loop that calls it."""

from collections.abc import Awaitable, Callable

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.store.database import DatabaseTrouble

log = structlog.get_logger("hurlbat.loops")


async def every(
    seconds: float | Callable[[], float], clock: Clock, name: str, run_once: Callable[[], Awaitable[object]]
) -> None:
    """Call `run_once` again and again, with a rest between. The one place where a failed duty is logged.

    While the database is away, that is said once.
    """
    waits = False
    while True:
        await clock.sleep(seconds() if callable(seconds) else seconds)
        try:
            await run_once()
        except DatabaseTrouble as trouble:
            if not waits:
                log.warning("a background duty waits for the database", duty=name, detail=str(trouble))
            waits = True
        except Exception as error:
            log.error("a background duty failed", duty=name, error=repr(error))
        else:
            waits = False
