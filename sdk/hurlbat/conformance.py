"""The three tasks by which `hurlbat conform` looks at a worker that serves them.

    from hurlbat import Hurlbat, conformance

    hurlbat = Hurlbat()
    conformance.serve(hurlbat)

They do no harm, but whoever can submit runs can have them sleep: serve them where you test.
"""

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from hurlbat.app import Hurlbat
from hurlbat.errors import HurlbatError, NonRetryable, RetryAfter

ECHO = "conform.echo"
SLEEP = "conform.sleep"
FAIL = "conform.fail"
MAX_SECONDS = 3600.0


class ConformFailure(HurlbatError):
    """What `conform.fail` fails with where another attempt may follow at any time."""


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to sleep, in seconds."""

    seconds: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Failing:
    """What to fail with: the words, whether another attempt may follow, and after how many seconds."""

    message: str
    retryable: bool = True
    retry_after: Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)] | None = None


def serve(app: Hurlbat) -> None:
    """Declare `conform.echo`, `conform.sleep` and `conform.fail` on an app. Raises `TaskInvalid` if it has them.

    `conform.echo` gives its input back. `conform.sleep` takes `{"seconds": n}`, n up to 3,600, ends early when it is
    cancelled, and gives `{"slept": n}`. `conform.fail` takes `{"message", "retryable", "retry_after"}` and fails with
    it.
    """
    app.task(name=ECHO)(_echo)
    app.task(name=SLEEP, execution_timeout=MAX_SECONDS)(_sleep)
    app.task(name=FAIL)(_fail)


async def _echo(input: Any) -> Any:
    return input


async def _sleep(input: Pause) -> dict[str, float]:
    await asyncio.sleep(input.seconds)
    return {"slept": input.seconds}


async def _fail(input: Failing) -> None:
    if not input.retryable:
        raise NonRetryable(input.message)
    if input.retry_after is not None:
        raise RetryAfter(input.retry_after, input.message)
    raise ConformFailure(input.message)
