"""Whether a worker answers at that address, and can be told from something else that does."""

from typing import Final

from hurlbat.policy import Manifest
from hurlbat.wire import HEADER_WORKER, describe_body
from hurlbat_app.conform.bench import Bench, marked, timestamp
from hurlbat_app.conform.checks import BOTH, Check
from hurlbat_app.conform.probe import Answer, Unreachable, shown
from hurlbat_app.conform.verdicts import Failed, Hopeless

GROUP: Final = "reachable"
_NO_WORKER: Final = "Give the URL at which the worker's handler is mounted, with its path and its last slash."


async def answers(bench: Bench) -> str:
    """Ask for the manifest (a plain worker: for a GET) and keep the answer for others to look at."""
    try:
        answer = await bench.probe.get() if bench.plain else await _described(bench)
    except Unreachable as trouble:
        raise Hopeless(f"there is no connection to {bench.target.url}: {trouble}") from trouble
    if answer.ok or bench.plain:
        return f"{answer.status} after {answer.seconds * 1000:.0f} ms"
    match answer.status:
        case 404 | 405:
            raise Hopeless(f"a signed POST was answered {answer.told}", _NO_WORKER)
        case 502 | 503 | 504 if not marked(answer):
            raise Hopeless(f"a proxy answered {answer.told}", "Start the worker behind it, or give its own URL.")
    return f"{answer.status} after {answer.seconds * 1000:.0f} ms"


async def not_elsewhere(bench: Bench) -> str:
    """Look for a redirect."""
    if bench.plain:
        message_id, body = bench.harmless()
        answer = await bench.ask(body, bench.signed(body, message_id=message_id))
    else:
        answer = await _described(bench)
    if 300 <= answer.status < 400:
        location = answer.headers.get("location", "nowhere")
        raise Hopeless(f"it answers {answer.status} and sends on to {location}", f"Give {location} instead.")
    return "no redirect"


async def is_a_worker(bench: Bench) -> str:
    """Look for the mark on good answers."""
    answer = await _described(bench)
    if answer.ok and not marked(answer) and not _looks_like_one(answer):
        raise Hopeless(
            f"it answered {answer.status} without {HEADER_WORKER} and with no manifest: {shown(answer.body)}",
            _NO_WORKER,
        )
    if answer.ok and not marked(answer):
        raise Failed(f"a signed describe was answered {answer.status} without {HEADER_WORKER}")
    message_id, body = bench.harmless()
    probed = await bench.ask(body, bench.signed(body, message_id=message_id))
    if probed.ok and not marked(probed):
        raise Failed(f"a signed probe was answered {probed.status} without {HEADER_WORKER}")
    return f"{HEADER_WORKER}: {answer.headers.get(HEADER_WORKER, probed.headers.get(HEADER_WORKER, ''))}"


async def marks_errors(bench: Bench) -> str:
    """Look for the mark on the answer to an unsigned request."""
    message_id, body = bench.harmless()
    answer = await bench.ask(body, bench.unsigned(message_id))
    if answer.status >= 400 and not marked(answer):
        raise Failed(f"an unsigned request was answered {answer.status} without {HEADER_WORKER}")
    return f"{answer.status} with {HEADER_WORKER}"


async def bears_a_get(bench: Bench) -> str:
    """Ask by GET, as health checks, scanners and people do."""
    answer = await bench.probe.get()
    if answer.status >= 500 and answer.status != 501:  # which says that it knows no GET
        raise Failed(f"GET was answered {answer.told}")
    return f"{answer.status}"


async def _described(bench: Bench) -> Answer:
    if bench.described is None:
        body = describe_body(bench.target.worker, bench.target.url, timestamp())
        bench.described = await bench.ask(body)
        bench.manifest = _manifest(bench.described)
    return bench.described


def _manifest(answer: Answer) -> Manifest | None:
    try:
        return Manifest.read(answer.body) if answer.ok else None
    except ValueError:  # what is wrong with it is told by the checks of the manifest
        return None


def _looks_like_one(answer: Answer) -> bool:
    return answer.body.lstrip().startswith(b"{") and b'"tasks"' in answer.body


CHECKS: Final = (
    Check(
        GROUP,
        "answers",
        "Something answers HTTP at this address.",
        "The server delivers by POST to this very URL.",
        "Start the worker, and give the URL by which this machine reaches it.",
        answers,
        BOTH,
    ),
    Check(
        GROUP,
        "no-redirect",
        "It is not a redirect.",
        "Redirects are not followed: what is signed for one address must not be sent to another.",
        "Give the address that it redirects to.",
        not_elsewhere,
        BOTH,
    ),
    Check(
        GROUP,
        "mark",
        "Good answers carry the header hurlbat-worker.",
        "It tells a worker from whatever else answers 200, such as the login page of a proxy: a 2xx without it fails "
        "the attempt (not_a_worker).",
        "Send hurlbat-worker with the manifest's version on every answer, and let no proxy strip it.",
        is_a_worker,
    ),
    Check(
        GROUP,
        "mark-on-errors",
        "Errors carry the header hurlbat-worker as well.",
        "With it a 429 or 503 is the worker's own word that it is busy, and costs the run nothing; without it the "
        "attempt is charged.",
        "Send hurlbat-worker with errors, too, also with the 401.",
        marks_errors,
    ),
    Check(
        GROUP,
        "get",
        "A GET does no harm.",
        "Health checks, scanners and people who paste the URL into a browser send one.",
        "Answer GET with anything below 500, such as 200 or 405, and do nothing.",
        bears_a_get,
        BOTH,
    ),
)
