"""Whether several runs in one delivery stay out of each other's way."""

from typing import Final

from hurlbat.conformance import ECHO, FAIL, SLEEP
from hurlbat_app.conform.bench import SLOWER, Bench
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.delivery import RESULT, one_result, same
from hurlbat_app.conform.exchange import ending
from hurlbat_app.conform.streams import STARTED, TYPE, must_stream
from hurlbat_app.conform.verdicts import Failed, Skipped

GROUP: Final = "batches"
ALL: Final = f"{GROUP}.all"
_LONG_NUMBERS: Final = f"[{'1' * 40},{'1' * 400},0.{'1' * 400}]"
"""What no integer and no 64-bit float has in full, and a server takes."""


async def _all(bench: Bench) -> str:
    _needs_room(bench, 2)
    bench.needs(ECHO)
    runs = [bench.run(ECHO, {"number": number}) for number in range(bench.max_batch)]
    delivery = await bench.deliver(*runs)
    for number, run in enumerate(runs):
        one_result(delivery, run)
        if not same(delivery.output(run), {"number": number}):
            raise Failed(
                f"run {number + 1} of {len(runs)} had the output {delivery.output(run)!r}, which is not its own"
            )
    return f"{len(runs)} runs in one delivery, each with its own result"


async def _one_fails(bench: Bench) -> str:
    _needs_room(bench, 3)
    bench.needs(ECHO, FAIL)
    first, last = bench.run(ECHO, "first"), bench.run(ECHO, "last")
    failing, unknown = bench.run(FAIL, {"message": "conform", "retryable": True}), bench.run("conform.no-such-task", 1)
    delivery = await bench.deliver(first, failing, *([unknown] if bench.max_batch > 3 else []), last)
    delivery.error(failing)
    if (delivery.output(first), delivery.output(last)) != ("first", "last"):
        raise Failed("beside a run that failed the others had outputs that are not theirs")
    return "one failed, its neighbours have completed"


async def _long_numbers(bench: Bench) -> str:
    _needs_room(bench, 2)
    bench.needs(ECHO)
    long, neighbour = bench.run(ECHO, None)._replace(input=_LONG_NUMBERS), bench.run(ECHO, "a neighbour")
    delivery = await bench.deliver(long, neighbour)
    if delivery.output(neighbour) != "a neighbour":
        raise Failed("beside a run with long numbers another one had an output that is not its own")
    one_result(delivery, long)
    return f"the run with numbers of 400 digits {ending(delivery.result(long).said)}"


async def _slow(bench: Bench) -> str:
    _needs_room(bench, 2)
    bench.needs(ECHO, SLEEP)
    must_stream(bench)
    for slowness in SLOWER:
        seconds = 0.6 * slowness
        slow, quick = bench.run(SLEEP, {"seconds": seconds}), bench.run(ECHO, "quick")
        delivery = await bench.deliver(slow, quick, heartbeat=0.2 * slowness, seconds=seconds)
        if not delivery.streams and (delivery.ok or delivery.accepted):
            raise Skipped(f"a delivery was answered {delivery.status} and not as a stream")
        ahead = delivery.result(slow).at - delivery.result(quick).at
        if ahead >= seconds / 2:
            return f"the quick one's result came {ahead:.2f} s before the slow one's"
    raise Failed(
        f"beside a run that slept {seconds:g} s a quick one's result came {max(ahead, 0.0):.2f} s before the slow one's"
    )


def _needs_room(bench: Bench, runs: int) -> None:
    if bench.max_batch < runs:
        raise Skipped(f"the manifest's max_batch is {bench.max_batch}")


CHECKS: Final = (
    Check(
        GROUP,
        "all",
        "A delivery of max_batch runs is answered with exactly one result for each.",
        "The server packs what is ready into one request, up to max_batch runs; one without a result is put back or "
        "lost, one with two fails.",
        "Answer every run of data.runs, or say a smaller max_batch in the manifest.",
        _all,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "one-fails",
        "A run that fails does not stop its neighbours.",
        "They belong to other callers, and know nothing of each other.",
        "Catch what each run raises, and answer for it alone.",
        _one_fails,
        after=(RESULT, ALL),
    ),
    Check(
        GROUP,
        "long-numbers",
        "Numbers of any length spoil no more than their own run.",
        "Callers may send them. Where they stop the parser, all runs of the delivery fail for what is in one.",
        "Keep each input as raw JSON until its task reads it, and let a number that does not fit fail that run alone.",
        _long_numbers,
        after=(RESULT, ALL),
    ),
    Check(
        GROUP,
        "slow",
        "A slow run does not hold back its neighbour's result.",
        "The neighbour's caller waits for it, and its slot stays taken. Runs one after the other make every delivery "
        "as slow as their sum.",
        "Run them at the same time and send each result when it is there, or say `max_batch: 1` in the manifest.",
        _slow,
        after=(RESULT, ALL, TYPE, STARTED),
    ),
)
