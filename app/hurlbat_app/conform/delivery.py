"""Whether a worker runs what it gets: once, with the input that was sent, and with one good answer."""

import json
from typing import Any, Final

from hurlbat.conformance import ECHO, SLEEP
from hurlbat.wire import HEADER_WORKER, DeliveredRun, deliver_body, probe_body
from hurlbat_app.conform.bench import Bench, soon, timestamp
from hurlbat_app.conform.checks import Check
from hurlbat_app.conform.exchange import Delivery, ending
from hurlbat_app.conform.manifest import MORE
from hurlbat_app.conform.verdicts import Failed, Skipped

GROUP: Final = "delivery"
RESULT: Final = f"{GROUP}.result"
_OTHER_WORKER: Final = "conform-another-worker"
_DEPTH: Final = 48

_TEXTS: Final = (
    "Grüße, Ω, 日本語, עברית, नमस्ते",
    "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 𝒳",
    "e\u0301 is not \u00e9",
    'quotes " \\ / and \b\f\n\r\t',
    "\u2028\u2029\u007f\u0001\ufeff\ufffd",
    '<script>&amp;"</script>',
    "",
    " leading and trailing ",
)
_NUMBERS: Final = (0, -1, 9_007_199_254_740_991, -9_007_199_254_740_991, 0.1, -1.5e-300, 1.7976931348623157e308, 5e-324)
_NAMES: Final = {"Größe 日本": 1, "__proto__": {"a": 1}, "constructor": 2, "a.b": 3, "$ref": 4, " ": 5, "run_id": 6}
_EMPTY: Final[tuple[Any, ...]] = (None, False, True, "", [], {}, [[]], [None], {"": ""}, {"a": None, "b": {}})
"""Values that an echo gives back: integers as far as a 64-bit float has them all."""


async def result(bench: Bench) -> str:
    """Deliver one run and look for its one result."""
    run = bench.run_any()
    delivery = await bench.deliver(run)
    one_result(delivery, run)
    said = delivery.result(run).said
    error = said.get("error")
    if isinstance(error, dict) and error.get("type") == "unknown_task":
        raise Failed(f"the worker serves no task {run.task}", "Name a task that it serves: --task NAME --input JSON.")
    return f"{run.task} {ending(said)}"


def one_result(delivery: Delivery, run: DeliveredRun) -> None:
    """Look for exactly one good result of a run. Raises `Failed`."""
    first = delivery.result(run)
    if len(delivery.results(run)) > 1:
        raise Failed(f"{run.task} has {len(delivery.results(run))} results, and it was delivered once")
    if first.wrong:
        raise Failed(f"the result cannot be read: {first.wrong}")
    known = {(one.run_id, one.attempt) for one in delivery.runs}
    stray = next((heard.key for heard in delivery.lines if heard.key and heard.key not in known), None)
    if stray:
        raise Failed(f"the answer names run {stray[0]}, attempt {stray[1]}, which was not sent")


async def _mark(bench: Bench) -> str:
    run = bench.run_any()
    delivery = await bench.deliver(run)
    if delivery.status and delivery.status < 300 and HEADER_WORKER not in delivery.headers:
        raise Failed(f"a delivery was answered {delivery.status} without {HEADER_WORKER}")
    return str(delivery.headers.get(HEADER_WORKER, delivery.status))


async def _echo(bench: Bench) -> str:
    bench.needs(ECHO)
    deep: Any = "the bottom"
    for level in range(_DEPTH):
        deep = [deep] if level % 2 else {"deeper": deep}
    # what is empty goes alone as well: null, false and "" are what is most easily taken for nothing
    for value in (list(_TEXTS), list(_NUMBERS), _NAMES, deep, list(_EMPTY), *_EMPTY):
        run = bench.run(ECHO, value)
        sent, came = _difference(value, (await bench.deliver(run)).output(run))
        if not same(sent, came):
            raise Failed(f"{_short(sent)} came back as {_short(came)}")
    counts = f"{len(_TEXTS)} texts, {len(_NUMBERS)} numbers, {len(_NAMES)} names, {len(_EMPTY)} empty values"
    return f"{counts}, {_DEPTH} levels"


async def _unknown_members(bench: Bench) -> str:
    bench.needs(ECHO)
    run = bench.run(ECHO, "as ever")
    sent = json.loads(bench.body([run]))
    sent |= MORE
    sent["data"] |= MORE
    sent["data"]["runs"][0] |= MORE
    delivery = await bench.deliver(run, body=json.dumps(sent).encode())
    if delivery.output(run) != "as ever":
        raise Failed("a run with members that the worker does not know had another output than without them")
    return "in the message, its data and its run"


async def _unknown_task(bench: Bench) -> str:
    run = bench.run("conform.no-such-task", None)
    delivery = await bench.deliver(run)
    error = delivery.error(run).get("error")
    found = error.get("type") if isinstance(error, dict) else error
    if found != "unknown_task":
        raise Failed(f"a run of a task that it does not serve failed with the type {found!r}, not 'unknown_task'")
    if delivery.started(run):
        raise Failed("a run of a task that it does not serve was told as started before it failed")
    return "failed with unknown_task"


async def _wrong_target(bench: Bench) -> str:
    url = "https://conform.invalid/another"
    if not bench.serves(ECHO):
        answer = await bench.ask(probe_body(_OTHER_WORKER, url, timestamp()))
        status, told = answer.status, answer.told
    else:
        run = bench.run(ECHO, None)
        delivery = await bench.deliver(run, body=deliver_body(_OTHER_WORKER, url, timestamp(), [run]))
        if delivery.ok:
            error = delivery.result(run).said.get("error")
            if isinstance(error, dict) and error.get("type") == "wrong_target":
                return "failed with wrong_target"
        status, told = delivery.status, delivery.without(run)
    if status == 403:
        return "403"
    if 200 <= status < 300:
        raise Skipped(
            "the worker does not compare data.worker or data.url with its own, which matters only where several "
            "workers share a secret"
        )
    raise Failed(f"a message for another worker: {told}")


async def _twice(bench: Bench) -> str:
    """Send an attempt again while it runs, with another input: if it runs once, both have the first one's output."""
    bench.needs(SLEEP)
    first = bench.run(SLEEP, {"seconds": 0.4})
    again = first._replace(input=json.dumps({"seconds": 0.5}))
    async with bench.delivering([first]) as running:
        await running.until(lambda: running.started(first) or running.accepted, bench.target.patience)
        if not running.streams:
            await soon()
        second = await bench.deliver(again, seconds=1)
        await running.until(lambda: running.results(first), bench.target.patience)
    if not second.results(again) and second.status in (409, 429, 503):
        return f"the second one was refused with {second.status}"
    outputs = running.output(first), second.output(again)
    if outputs[0] != outputs[1]:
        raise Failed(f"both were run: one gave {_short(outputs[0])}, the other {_short(outputs[1])}")
    return "run once, and both deliveries were answered with its result"


async def _again(bench: Bench) -> str:
    """Send an attempt again that has ended, with another input: if it is remembered, it has the first one's output."""
    bench.needs(ECHO)
    first = bench.run(ECHO, "first")
    delivery = await bench.deliver(first)
    output = delivery.output(first)
    if delivery.accepted:
        raise Skipped("the worker answers 202, and need not report twice")
    second = await bench.deliver(first._replace(input='"again"'))
    if not second.results(first) and second.status in (409, 429, 503):
        return f"it was refused with {second.status}"
    if not same(second.output(first), output):
        raise Failed(f"it was run again: at first it gave {_short(output)}, then {_short(second.output(first))}")
    return "answered with the result that it had"


def same(one: Any, other: Any) -> bool:
    """Tell whether two JSON values are the same; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool) or one is None or other is None:
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and bool(one == other)


def _difference(sent: Any, came: Any) -> tuple[Any, Any]:
    """Return the first item of a list that came back as another one; the whole values where they are no such lists."""
    if isinstance(sent, list) and isinstance(came, list) and len(sent) == len(came):
        return next(((a, b) for a, b in zip(sent, came, strict=True) if not same(a, b)), (sent, came))
    return sent, came


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 120 else f"{text[:120]}…"


CHECKS: Final = (
    Check(
        GROUP,
        "result",
        "A delivered run has exactly one result.",
        "Without one the attempt is put back or lost; two, or one for something else, fail it (bad_result).",
        "Answer 200 with one result line for each run of the delivery, with its run_id and its attempt.",
        result,
    ),
    Check(
        GROUP,
        "mark",
        "The answer to a delivery carries the header hurlbat-worker.",
        "Without it a 2xx is a failure (not_a_worker), whatever its body says.",
        "Send hurlbat-worker with the manifest's version on every answer.",
        _mark,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "echo",
        "Inputs and outputs are carried as they are: texts, numbers, empty values, nested ones.",
        "Payloads belong to the caller. What is lost here is lost for good: the server stores what the worker says.",
        "Read and write JSON as UTF-8, tell null, false, 0 and empty values apart, and keep numbers as 64-bit floats.",
        _echo,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "unknown-members",
        "Members of a delivery that the worker does not know are ignored.",
        "Later versions of the server add some; a worker that crashes over them is down from the day of the upgrade.",
        "Read the members that you know and pass over all others.",
        _unknown_members,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "unknown-task",
        "A task that the worker does not serve fails with the type unknown_task, without a started line.",
        "In a rolling deploy an old instance gets runs of new tasks: so the run is put back, uncharged, and a new "
        "instance takes it. Anything else costs an attempt.",
        'Answer {"state": "failed", "error": {"type": "unknown_task", "message": …}} for that run alone.',
        _unknown_task,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "wrong-target",
        "A message for another worker is refused with 403, where the worker compares.",
        "The URL is not signed: where workers share a secret, one's message would be taken by another.",
        "Answer 403 with a problem whose code is wrong_target.",
        _wrong_target,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "twice",
        "The same attempt sent twice at once runs once, or the second is refused.",
        "The server sends an attempt once, but a proxy between may repeat a request: the customer would pay twice.",
        "Remember (run_id, attempt) for ten minutes: attach a repeat to what is running, and repeat the result of what "
        "has ended. Test one instance: others of it do not know what this one has.",
        _twice,
        after=(RESULT,),
    ),
    Check(
        GROUP,
        "again",
        "An attempt that has ended is not run again when it is sent again.",
        "A proxy that has lost the answer may repeat the request just then: the customer would pay twice.",
        "Remember (run_id, attempt) with its result for some minutes after its end, and answer a repeat with it.",
        _again,
        after=(RESULT,),
    ),
)
