"""Whether a worker that answers 202 reports what it has promised."""

from typing import Final
from urllib.parse import urlsplit

from hurlbat.conformance import SLEEP
from hurlbat.wire import HEADER_ASYNC, LEASE_SECONDS, DeliveredRun
from hurlbat_app.conform.bench import LEASE_TOKEN, NAP_HEARTBEAT, NAP_SECONDS, SLOWER, Bench
from hurlbat_app.conform.checks import BOTH, Check
from hurlbat_app.conform.exchange import Delivery
from hurlbat_app.conform.loopback import Reported
from hurlbat_app.conform.verdicts import Failed, Skipped

GROUP: Final = "reports"
COMPLETE: Final = f"{GROUP}.complete"


async def _complete(bench: Bench) -> str:
    run, delivery = await _accepted(bench)
    if not delivery.results(run):
        raise _nothing(bench, run)
    result = delivery.result(run)
    if result.wrong:
        raise Failed(f"the final report cannot be read: {result.wrong}")
    return f"reported after {result.at - delivery.sent_at:.2f} s: {result.said['state']}"


async def _token(bench: Bench) -> str:
    run, _ = await _accepted(bench)
    reports = bench.heard_of(run)
    wrong = next((one for one in reports if one.authorization != f"Bearer {LEASE_TOKEN}"), None)
    if wrong:
        found = wrong.authorization.partition(" ")[0] or "nothing"
        raise Failed(f"the report {wrong.what} came with {found} as its authorization, and not with the lease token")
    return f"{len(reports)} reports with it"


async def _heartbeats(bench: Bench) -> str:
    await _accepted(bench)
    if not bench.plain:
        bench.needs(SLEEP)
    for slowness in SLOWER:
        seconds, heartbeat = NAP_SECONDS * slowness, NAP_HEARTBEAT * slowness
        run = bench.run(SLEEP, {"seconds": seconds})
        delivery = await bench.deliver(run, heartbeat=heartbeat, seconds=seconds)
        beats = [one for one in bench.heard_of(run) if one.what == "heartbeat"]
        if beats:
            return f"{len(beats)} in {seconds:g} s"
        if not delivery.accepted:
            raise Skipped(f"{SLEEP} was answered {delivery.status} and not 202")
    raise Failed(
        f"a run that slept {seconds:g} s sent no heartbeat, and {heartbeat:g} s were asked for in data.heartbeat"
    )


async def _over(bench: Bench) -> str:
    run, _ = await _accepted(bench)
    final: Reported | None = None
    for one in bench.heard_of(run):
        if final and not (one.final and (one.what, one.body) == (final.what, final.body)):
            raise Failed(f"after the report {final.what}, which was answered 200, came {one.what}")
        final = final or (one if one.final else None)
    return "nothing came after the final report"


async def _accepted(bench: Bench) -> tuple[DeliveredRun, Delivery]:
    """Deliver a run to a worker that answers 202, once for all who look at it. Raises `Skipped` where it does not."""
    if "accepted" not in bench.scenes:
        run = bench.run_any()
        bench.scenes["accepted"] = run, await bench.deliver(run)
    run, delivery = bench.scenes["accepted"]
    if not delivery.accepted:
        raise Skipped(f"the worker answers {delivery.status or 'nothing'}, and reports only what it answers 202")
    if bench.plain and delivery.headers.get(HEADER_ASYNC) != "1":
        raise Skipped(f"the worker answers 202 without {HEADER_ASYNC}: 1, which completes the run")
    return run, delivery


def _nothing(bench: Bench, run: DeliveredRun) -> Failed | Skipped:
    host = urlsplit(bench.target.url).hostname or ""
    if host not in ("localhost", "::1") and not host.startswith("127."):
        return Skipped("the worker is on another machine, from where reports to this one's loopback do not come")
    others = [one.what for one in bench.heard_of(run)]
    heard = f"only {', '.join(others)}" if others else "nothing"
    return Failed(f"it answered 202, and {heard} was reported within {bench.target.patience:g} s")


CHECKS: Final = (
    Check(
        GROUP,
        "complete",
        "What was answered 202 is reported when it has ended.",
        "The server waits on a lease and takes a silent attempt for lost: it is charged and tried again.",
        "POST to {report_url}/complete or /fail, with the run's lease_token as bearer token.",
        _complete,
        BOTH,
    ),
    Check(
        GROUP,
        "token",
        "Reports carry the attempt's lease token.",
        "It is all that a report is believed by: without it the server answers 401.",
        "Send `Authorization: Bearer {lease_token}` with every report.",
        _token,
        BOTH,
        after=(COMPLETE,),
    ),
    Check(
        GROUP,
        "heartbeats",
        "While it runs, heartbeats are reported.",
        f"A lease lasts {LEASE_SECONDS:g} seconds; what does not renew it is taken for lost and tried again, beside "
        "the one that still runs.",
        "POST to {report_url}/heartbeat every data.heartbeat seconds, and stop if the answer says cancelled.",
        _heartbeats,
        BOTH,
        after=(COMPLETE,),
    ),
    Check(
        GROUP,
        "over",
        "After the final report nothing more is said of the attempt.",
        "All of it is answered with 409, and a heartbeat that goes on tells of work that goes on.",
        "Stop the heartbeats when the final report was answered.",
        _over,
        BOTH,
        after=(COMPLETE,),
    ),
)
