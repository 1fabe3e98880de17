"""Whether the answer to a delivery is a stream that tells what happens when it happens."""

from itertools import pairwise
from math import inf
from typing import Any, Final

from hurlbat.wire import STREAM_TYPE, StartedLine
from hurlbat_app.conform.bench import SLOWER, Bench, Nap
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.delivery import RESULT
from hurlbat_app.conform.exchange import Delivery, Heard
from hurlbat_app.conform.verdicts import Failed, Skipped

GROUP: Final = "streams"
TYPE: Final = f"{GROUP}.type"
STARTED: Final = f"{GROUP}.started"
MISSED: Final = 3
"""Heartbeats that may be missed before the server cuts a stream."""
AFTERMATH_SECONDS: Final = 2.0
"""How long the server leaves a stream open after its last result."""
ENDS: Final = 3
"""How many streams must stay open for too long before that is held against the worker."""


def must_stream(bench: Bench) -> None:
    """Raise `Skipped` where the worker says that it does not."""
    if not bench.says_it_streams:
        raise Skipped("the manifest says `streams: false`: it answers in one piece")


async def _type(bench: Bench) -> str:
    must_stream(bench)
    delivery = await _delivered(bench)
    if delivery.accepted:
        raise Skipped("the worker answers 202 and reports instead")
    if delivery.ok and not delivery.streams:
        fix = "Send it as a stream, or say `streams: false` in the manifest."
        raise Failed(f"a delivery was answered as {delivery.media_type or 'nothing'}", fix)
    if not delivery.ok:
        raise Failed(delivery.without(delivery.runs[0]))
    return delivery.media_type


async def _lines(bench: Bench) -> str:
    delivery = await _stream(bench)
    for heard in delivery.lines:
        if heard.wrong:
            raise Failed(heard.wrong)
    if delivery.trouble:
        raise Failed(f"the stream broke: {delivery.trouble}")
    [run] = delivery.runs
    started, results = delivery.started(run), delivery.results(run)
    if not started or not isinstance(started.line, StartedLine):
        raise Failed("there was no started line", "Send a started line when the task begins, and then the result.")
    if not results:
        raise Failed(delivery.without(run))
    if delivery.lines.index(started) > delivery.lines.index(results[0]):
        raise Failed("the started line came after the result", "Send it when the task begins.")
    late = [heard for heard in delivery.lines[delivery.lines.index(results[0]) + 1 :] if heard.type != "heartbeat"]
    if late:
        raise Failed(f"after the result came a line of type {late[0].type}", "End the stream after the last result.")
    return f"{len(delivery.lines)} lines: {', '.join(_kinds(delivery.lines))}"


async def _started(bench: Bench) -> str:
    for slowness in SLOWER:
        nap = await _nap(bench, slowness)
        started, ended = nap.delivery.started(nap.run), nap.delivery.result(nap.run)
        if not started:
            raise Skipped("there was no started line")
        ahead = ended.at - started.at
        if ahead >= nap.seconds / 2:
            return f"{started.at - nap.delivery.sent_at:.2f} s after sending, {ahead:.2f} s before the end"
    raise Failed(
        f"of a run that slept {nap.seconds:g} s the started line came only {ahead:.2f} s before the result: something "
        "on the way keeps the stream back until it is complete"
    )


async def _heartbeats(bench: Bench) -> str:
    for slowness in SLOWER:
        nap = await _nap(bench, slowness)
        silence = _silence(nap)
        if silence <= MISSED * nap.heartbeat:
            return f"asked for every {nap.heartbeat:g} s; the longest silence was {silence:.2f} s"
    raise Failed(
        f"{nap.heartbeat:g} s were asked for in data.heartbeat, and the stream was silent for {silence:.2f} s: after "
        f"{MISSED} missed ones it is cut"
    )


async def _identity(bench: Bench) -> str:
    text = "conform " * 1_000  # what compresses begins with some hundred bytes
    run = bench.run("conform.echo", text) if bench.serves("conform.echo") else bench.run_any()
    seen = [("a delivery", (await bench.deliver(run)).headers)]
    if bench.described is not None:
        seen.append(("describe", bench.described.headers))
    for what, headers in seen:
        if (encoding := headers.get("content-encoding", "identity").strip().lower()) not in ("", "identity"):
            server = headers.get("via") or headers.get("server")
            by = f" (it says that it is {server})" if server else ""
            raise Failed(f"{what} was answered with content-encoding: {encoding}{by}, and identity was asked for")
    return "nothing is compressed"


async def _ends(bench: Bench) -> str:
    delivery = await _stream(bench)
    for tries in reversed(range(ENDS)):
        result = delivery.result(delivery.runs[0])
        lasted = (delivery.ended_at or inf) - result.at
        if lasted <= AFTERMATH_SECONDS:
            return f"{max(lasted, 0.0):.2f} s after the last result"
        if tries:  # who stood still for once does not leave its streams open
            delivery = await _any(bench)
    if delivery.ended_at is None:
        raise Failed(f"{2 * AFTERMATH_SECONDS:g} s after the last result the stream was still open")
    raise Failed(f"the stream ended {lasted:.1f} s after the last result")


def _silence(nap: Nap) -> float:
    """Return the longest time without a line, from `started` to the end."""
    begin = nap.delivery.started(nap.run)
    times = [heard.at for heard in nap.delivery.lines if begin and heard.at >= begin.at]
    return max((after - before for before, after in pairwise(times)), default=0.0)


async def _nap(bench: Bench, slowness: int) -> Nap:
    must_stream(bench)
    nap = await bench.nap(slowness)
    if not nap.delivery.streams and (nap.delivery.ok or nap.delivery.accepted):
        raise Skipped(f"a delivery was answered {nap.delivery.status} and not as a stream")
    return nap


async def _delivered(bench: Bench) -> Delivery:
    """Deliver one run of any task, once for all who look at it."""
    if "any" not in bench.scenes:
        bench.scenes["any"] = await _any(bench)
    found: Delivery = bench.scenes["any"]
    return found


async def _any(bench: Bench) -> Delivery:
    return await bench.deliver(bench.run_any(), linger=2 * AFTERMATH_SECONDS)


async def _stream(bench: Bench) -> Delivery:
    must_stream(bench)
    delivery = await _delivered(bench)
    if not delivery.streams and (delivery.ok or delivery.accepted):
        raise Skipped(f"a delivery was answered {delivery.status} and not as a stream")
    return delivery


def _kinds(lines: list[Heard]) -> list[Any]:
    return list(dict.fromkeys(str(heard.type) for heard in lines))


CHECKS: Final = (
    Check(
        GROUP,
        "type",
        "A delivery is answered as a stream of lines, unless the manifest says otherwise.",
        "Only a stream may take longer than 30 seconds and tells a slow worker from a dead one.",
        f"Answer with content-type: {STREAM_TYPE}.",
        _type,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "lines",
        "Every line is good JSON: started, then the result, and nothing of the run after it.",
        "A line that cannot be read fails its run (bad_result). Without started the execution timeout does not count, "
        "and a run that is cut off is put back as if it had never begun.",
        "Write one JSON object and a line feed for everything that happens.",
        _lines,
        after=(TYPE,),
    ),
    Check(
        GROUP,
        "started",
        "The started line comes when the task begins, not together with the result.",
        "A stream that is kept back until it is complete is silence: after 15 seconds the server cuts it, and the run "
        "goes on alone, or is lost. Results of quick runs wait for slow neighbours.",
        "Flush after every line, and turn off buffering on the way: nginx heeds `x-accel-buffering: no` or "
        "`proxy_buffering off`. What cannot stream, as some platforms, says `streams: false` in the manifest.",
        _started,
        after=(TYPE,),
    ),
    Check(
        GROUP,
        "heartbeats",
        "While a task runs the stream is never silent for long.",
        "The server cuts a stream that misses three heartbeats, and proxies close what is idle.",
        'Send {"type": "heartbeat"} whenever nothing was sent for data.heartbeat seconds, the number in the message.',
        _heartbeats,
        after=(TYPE, STARTED),
    ),
    Check(
        GROUP,
        "identity",
        "Answers are not compressed.",
        "Identity is asked for. What is compressed all the same fails the attempt (bad_encoding), as unpacking what "
        "others send is a way to be filled up; and what compresses holds lines back.",
        "Turn off the middleware or the proxy that compresses, for this path: it must heed accept-encoding: identity.",
        _identity,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "ends",
        "The stream ends when the last result is sent.",
        "One that stays open holds a connection; the server closes it after two seconds.",
        "End the answer after the last result.",
        _ends,
        after=(TYPE,),
    ),
)
