"""What is looked at of plain workers alone: their answers are HTTP's own words."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from hurlbat.conformance import ECHO, FAIL
from hurlbat.jsontext import JsonTextError, parse
from hurlbat.wire import HEADER_ASYNC, HEADER_RETRY, MAX_BODY_BYTES, PROBLEM_TYPE
from hurlbat_app.conform.bench import Bench
from hurlbat_app.conform.checks import PLAIN, Check
from hurlbat_app.conform.delivery import same
from hurlbat_app.conform.exchange import Delivery
from hurlbat_app.conform.verdicts import Failed, Skipped

RESULT: Final = "delivery.completes"
_SAID: Final[dict[str, Any]] = {"conform": ["Grüße", None, 1.5, {}]}


async def _completes(bench: Bench) -> str:
    run = bench.run_any()
    delivery = await bench.deliver(run)
    if not 200 <= delivery.status < 300:
        raise Failed(delivery.without(run))
    if delivery.trouble:
        raise Failed(f"the answer broke: {delivery.trouble}")
    if len(delivery.rest) > MAX_BODY_BYTES:
        raise Failed(f"the body has {len(delivery.rest):,} bytes, and {MAX_BODY_BYTES:,} may be an output")
    if delivery.accepted and delivery.headers.get(HEADER_ASYNC) != "1":
        return f"202 without {HEADER_ASYNC}: 1 completes the run, and nothing is waited for"
    return f"{delivery.status}; the output is {_output(delivery)}"


async def _done_again(bench: Bench) -> str:
    run = bench.run_any()
    first, second = await bench.deliver(run), await bench.deliver(run)
    if not 200 <= first.status < 300:
        raise Failed(first.without(run))
    if not 200 <= second.status < 300:
        raise Failed(f"a run was answered {first.status}, and {second.status} when it was sent again")
    return f"{first.status}, then {second.status}"


async def _identity(bench: Bench) -> str:
    headers = (await bench.deliver(bench.run_any())).headers
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise Failed(f"a delivery was answered with content-encoding: {encoding}, and identity was asked for")
    return "not compressed"


async def _echo(bench: Bench) -> str:
    run = bench.run(ECHO, _SAID)
    delivery = await bench.deliver(run)
    if not 200 <= delivery.status < 300 or delivery.accepted:
        raise Skipped(f"the worker does not seem to serve {ECHO}: it was answered {delivery.status}")
    found = _json(delivery)
    if not same(found, _SAID):
        raise Skipped(f"the worker does not seem to serve {ECHO}: it does not give its input back")
    bench.scenes["plain echo"] = True
    return "the input came back as the body"


async def _no_retry(bench: Bench) -> str:
    delivery = await _failing(bench, retryable=False)
    problem = _json(delivery) if delivery.media_type == PROBLEM_TYPE else None
    if delivery.headers.get(HEADER_RETRY, "").lower() == "no":
        return f"{delivery.status} with {HEADER_RETRY}: no"
    if isinstance(problem, dict) and problem.get("retryable") is False:
        return f"{delivery.status}, a problem with retryable: false"
    raise Failed(f"a task failed for good, and it was answered {delivery.status} without {HEADER_RETRY}: no")


async def _retry_after(bench: Bench) -> str:
    delivery = await _failing(bench, retryable=True, retry_after=7)
    said = delivery.headers.get("retry-after", "")
    if delivery.status not in (429, 503) or not said:
        raise Failed(f"a task asked for a pause, and it was answered {delivery.status} with retry-after: {said or '–'}")
    seconds = _seconds(said)
    if seconds is None or not 0 <= seconds <= 3_600:
        raise Failed(f"retry-after: {said} is neither seconds nor an HTTP date within an hour")
    return f"{delivery.status} with retry-after: {said}"


async def _same_id(bench: Bench) -> str:
    run = bench.run(FAIL, {"message": "conform", "retryable": True})
    failed = await _failing(bench, retryable=True, run=run)
    again = bench.run(ECHO, _SAID, run_id=run.run_id, attempt=2)
    delivery = await bench.deliver(again)
    if not (200 <= delivery.status < 300 and same(_json(delivery), _SAID)):
        raise Failed(
            f"attempt 1 was answered {failed.status}, and attempt 2 with the same webhook-id {delivery.status}: "
            f"{_output(delivery)}"
        )
    return "taken again"


async def _failing(bench: Bench, *, run: Any = None, **input: Any) -> Delivery:
    if "plain echo" not in bench.scenes:
        raise Skipped(f"the worker does not serve {ECHO} and {FAIL}, as far as can be seen")
    run = run or bench.run(FAIL, {"message": "conform: on purpose", **input})
    delivery = await bench.deliver(run)
    if delivery.trouble or not delivery.status:
        raise Failed(f"{FAIL} got no answer: {delivery.trouble}")
    if delivery.status < 400:
        raise Failed(f"{FAIL} was answered {delivery.status}: the run would be completed")
    return delivery


def _json(delivery: Delivery) -> Any:
    try:
        return parse(delivery.rest)
    except JsonTextError:
        return None


def _output(delivery: Delivery) -> str:
    if not delivery.rest.strip():
        return "null, as the body is empty"
    text = delivery.rest[:200].decode("utf-8", "replace")
    try:
        parse(delivery.rest)
    except JsonTextError:
        return f"the text {text!r}"
    return f"the JSON {text}"


def _seconds(said: str) -> float | None:
    if said.strip().isdecimal():
        return float(said)
    try:
        return (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None


CHECKS: Final = (
    Check(
        "delivery",
        "completes",
        "A delivery is answered with a 2xx whose body can be the output.",
        "Any 2xx completes the run; its body is the output: JSON if it is JSON, else its text, null if it is empty.",
        "Answer 2xx only when the work is done, with a body of at most 1 MiB.",
        _completes,
        PLAIN,
    ),
    Check(
        "delivery",
        "plain-echo",
        "The body is the output as it was written.",
        "What is changed on the way is stored like that.",
        "Send the output as JSON in UTF-8.",
        _echo,
        PLAIN,
        after=(RESULT,),
    ),
    Check(
        "delivery",
        "done-again",
        "A run that was done is answered 2xx when it is sent again.",
        "It comes again because the first answer was lost: a 409 now fails a run whose work is done.",
        "Remember what you have answered to a webhook-id, and answer the same again.",
        _done_again,
        PLAIN,
        after=(RESULT,),
    ),
    Check(
        "delivery",
        "identity",
        "Answers are not compressed.",
        "Identity is asked for; what is compressed all the same fails the attempt (bad_encoding).",
        "Turn off the middleware or the proxy that compresses, for this path: it must heed accept-encoding: identity.",
        _identity,
        PLAIN,
    ),
    Check(
        "failures",
        "no-retry",
        "A failure that must not be repeated says so.",
        "Every other error is tried again as the task's policy says, and happens twice.",
        f"Answer with the header {HEADER_RETRY}: no, or a problem (RFC 9457) with retryable: false.",
        _no_retry,
        PLAIN,
        after=(RESULT,),
    ),
    Check(
        "failures",
        "retry-words",
        "A failure that asks for a pause is a 429 or 503 with Retry-After.",
        "It costs the run nothing, and holds back what else would come; without the header it is a charged failure.",
        "Send Retry-After in seconds, or as an HTTP date.",
        _retry_after,
        PLAIN,
        after=(RESULT,),
    ),
    Check(
        "failures",
        "same-id",
        "After a failure the same webhook-id is taken again.",
        "It is the run's id on every attempt: a receiver that remembers what has failed never lets a retry through.",
        "Remember a webhook-id only after success.",
        _same_id,
        PLAIN,
        after=(RESULT,),
    ),
)
