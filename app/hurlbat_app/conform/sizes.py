"""Whether a worker takes what may be as large as this, and refuses what is larger."""

from typing import Final

from hurlbat.conformance import ECHO
from hurlbat.wire import MAX_BODY_BYTES, MAX_LINE_CHARS
from hurlbat_app.conform.bench import Bench
from hurlbat_app.conform.checks import BOTH, Check
from hurlbat_app.conform.delivery import RESULT
from hurlbat_app.conform.probe import Broken
from hurlbat_app.conform.verdicts import Failed

GROUP: Final = "sizes"
INPUT: Final = f"{GROUP}.input"
NEAR: Final = MAX_BODY_BYTES - 64
"""Characters of an input that just fits into the body of a submit; the delivery with it has more than 1 MiB."""
DELIVERY_BYTES: Final = 4 * MAX_BODY_BYTES
TOO_LARGE: Final = 16 * MAX_BODY_BYTES
SECONDS: Final = 20.0
"""What the large ones may take longer than others."""


async def _input(bench: Bench) -> str:
    bench.needs(ECHO)
    run = bench.run(ECHO, "x" * NEAR)
    output = (await bench.deliver(run, seconds=SECONDS)).output(run)
    if output != "x" * NEAR:
        raise Failed(f"of {NEAR:,} characters {len(output) if isinstance(output, str) else 0:,} came back")
    return f"{NEAR:,} characters there and back"


async def _delivery(bench: Bench) -> str:
    bench.needs(ECHO)
    count = min(bench.max_batch, 5)  # one more than fits: the server ends a delivery behind the limit
    runs = [bench.run(ECHO, f"{number}" * (DELIVERY_BYTES // 4 - 4_096)) for number in range(count)]
    delivery = await bench.deliver(*runs, seconds=SECONDS)
    for number, run in enumerate(runs):
        output = delivery.output(run)
        if not isinstance(output, str) or set(output) != {f"{number}"}:
            raise Failed(f"run {number + 1} of {count}, of 1 MiB each, had an output that is not its own")
    return f"{sum(len(run.input) for run in runs):,} bytes in {count} runs"


async def _too_large(bench: Bench) -> str:
    message_id, body = bench.harmless()
    body = body.replace(b'"data":{', b'"data":{"padding":"' + b"x" * TOO_LARGE + b'",', 1)
    headers = bench.signed(body, message_id=message_id)
    try:
        answer = await bench.ask(body, headers, bench.target.patience + SECONDS)
        said = str(answer.status)
        if answer.ok:
            raise Failed(f"a body of {len(body):,} bytes was taken, and answered {said}")
        if answer.status >= 500:
            raise Failed(f"a body of {len(body):,} bytes was answered {answer.told}")
    except Broken:
        said = "the connection was closed"  # before all was read, and the answer with it
    message_id, body = bench.harmless()
    after = await bench.ask(body, bench.signed(body, message_id=message_id))
    if not after.ok:
        raise Failed(f"after a body of {TOO_LARGE:,} bytes a good request was answered {after.told}")
    return said


async def _long_answer(bench: Bench) -> str:
    bench.needs(ECHO)
    run = bench.run(ECHO, "x" * (MAX_LINE_CHARS + 65_536))
    delivery = await bench.deliver(run, seconds=SECONDS)
    if delivery.status == 413:
        return "an input of that size was refused with 413"
    said = delivery.result(run).said
    if said.get("state") == "completed":
        raise Failed(
            f"an output of {MAX_LINE_CHARS + 65_536:,} characters was sent, and a line may have {MAX_LINE_CHARS:,}"
        )
    return "told as a failed result"


CHECKS: Final = (
    Check(
        GROUP,
        "input",
        "An input of nearly 1 MiB is taken, and an output of that size sent.",
        "So large may the body of a submit be; frameworks and proxies often stop at less, nginx at 1 MiB for a whole "
        "delivery.",
        "Raise the limit of the body for this path to 16 MiB, in the framework and in every proxy before it "
        "(client_max_body_size).",
        _input,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "delivery",
        "A whole delivery of some 4 MiB is taken.",
        "The server fills a delivery up to 4 MiB; a 413 fails all runs in it.",
        "Raise the limit of the body for this path to 16 MiB.",
        _delivery,
        after=(INPUT,),
    ),
    Check(
        GROUP,
        "too-large",
        "A body of more than 16 MiB is refused, and does not bring the worker down.",
        "The signature can be verified only when the whole body is there: without a limit anybody can fill the "
        "worker's memory.",
        "Refuse with 413 by content-length, and stop reading at 16 MiB.",
        _too_large,
        BOTH,
    ),
    Check(
        GROUP,
        "long-answer",
        "An output that is too long is told as a failure.",
        "A line beyond the limit is cut off and fails as response_too_large, and the run is tried again, with the same "
        "outcome; a failed result with retryable: false says what happened, once.",
        "Compare the output with 1 MiB before you send it, and answer a failed result if it is longer.",
        _long_answer,
        after=(RESULT, INPUT),
    ),
)
