"""Whether failures are told so that what follows is right: which error, whether to try again, and when."""

from typing import Any, Final

from hurlbat.conformance import ECHO, FAIL
from hurlbat_app.conform.bench import Bench
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.delivery import RESULT
from hurlbat_app.conform.verdicts import Failed

GROUP: Final = "failures"
FAILED: Final = f"{GROUP}.failed"
MESSAGE: Final = "conform: the bank does not answer (Ω)"
RETRY_AFTER: Final = 7


async def _failed(bench: Bench) -> str:
    error = (await _fail(bench, retryable=True)).get("error")
    if not isinstance(error, dict):
        raise Failed(f"the failed result's error is {error!r}, not an object")
    if not (isinstance(error.get("type"), str) and error["type"]):
        raise Failed(f"the failed result's error has the type {error.get('type')!r}")
    if MESSAGE not in str(error.get("message")):
        raise Failed(f"the task failed with {MESSAGE!r}, and the result says {error.get('message')!r}")
    return f"{error['type']}: {error['message']}"


async def _retryable(bench: Bench) -> str:
    if (found := (await _fail(bench, retryable=False)).get("retryable", True)) is not False:
        raise Failed(f"the task failed for good, and the result says retryable: {found!r}")
    if (found := (await _fail(bench, retryable=True)).get("retryable", True)) is not True:
        raise Failed(f"the task may be tried again, and the result says retryable: {found!r}")
    return "false where it shall not be tried again, and true where it may"


async def _retry_after(bench: Bench) -> str:
    found = (await _fail(bench, retryable=True, retry_after=RETRY_AFTER)).get("retry_after")
    if isinstance(found, bool) or found != RETRY_AFTER:
        raise Failed(f"the task asks for {RETRY_AFTER} s, and the result says retry_after: {found!r}")
    return f"retry_after: {found}"


async def _again(bench: Bench) -> str:
    bench.needs(ECHO, FAIL)
    first = bench.run(FAIL, {"message": MESSAGE, "retryable": True})
    (await bench.deliver(first)).error(first)
    second = bench.run(ECHO, "the second attempt", run_id=first.run_id, attempt=2)
    output = (await bench.deliver(second)).output(second)
    if output != "the second attempt":
        raise Failed(f"attempt 2 of a run whose attempt 1 failed has the output {output!r}")
    return "run again"


async def _fail(bench: Bench, **input: Any) -> dict[str, Any]:
    bench.needs(FAIL)
    run = bench.run(FAIL, {"message": MESSAGE, **input})
    return (await bench.deliver(run)).error(run)


CHECKS: Final = (
    Check(
        GROUP,
        "failed",
        "A task that fails has a failed result with the error's type and message.",
        "They are all that people see of it, and what alarms and filters go by.",
        'Answer {"state": "failed", "error": {"type": …, "message": …}} with status 200.',
        _failed,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "retryable",
        "A failure that must not be repeated says retryable: false, and no other does.",
        "What is tried again although it must not be happens twice; what is not although it may be is lost.",
        "Pass on retryable: false where the task says so; leave it out, or say true, in all other failures.",
        _retryable,
        after=(FAILED,),
    ),
    Check(
        GROUP,
        "retry-after",
        "A failure that says when to try again says so in retry_after.",
        "It overrides the backoff: else a service that asked for a pause is asked again too early.",
        "Pass on retry_after, in seconds.",
        _retry_after,
        after=(FAILED,),
    ),
    Check(
        GROUP,
        "again",
        "The next attempt of a run runs again.",
        "A worker that remembers run ids alone answers a retry with the old failure, and the run never recovers.",
        "Remember (run_id, attempt), not the run's id alone.",
        _again,
        after=(RESULT, FAILED),
    ),
)
