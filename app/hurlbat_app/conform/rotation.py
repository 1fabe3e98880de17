"""Whether a worker gets through the rotation of its secret: the message is then signed by several keys."""

from collections.abc import Awaitable, Callable
from typing import Final

from hurlbat.signing import HEADER_SIGNATURE, HEADER_TIMESTAMP, new_secret, sign
from hurlbat_app.conform.bench import Bench
from hurlbat_app.conform.checks import BOTH, Check
from hurlbat_app.conform.signatures import refuses
from hurlbat_app.conform.verdicts import Failed, Skipped

GROUP: Final = "rotation"
_UNKNOWN: Final = "v1a,3cbp0l0BLV4Xw7DZXgGZQmSS5JbVcT2p9Zc3o1C0UqVb6m6p2hGk1m0j8gU3mC0q2m3v7bYw9rVw0l2c5y8vAA=="
_EACH: Final = "Split webhook-signature at spaces and compare every part; one good one is enough."


def _with(order: str, what: str) -> Callable[[Bench], Awaitable[str]]:
    async def look(bench: Bench) -> str:
        message_id, body = bench.harmless()
        headers = bench.signed(body, message_id=message_id)
        at, own = int(headers[HEADER_TIMESTAMP]), str(headers[HEADER_SIGNATURE])
        foreign = sign([new_secret()], message_id, at, body)
        headers[HEADER_SIGNATURE] = order.format(own=own, foreign=foreign, unknown=_UNKNOWN)
        answer = await bench.ask(body, headers)
        if not answer.ok:
            raise Failed(f"with {what} a good request was answered {answer.told}")
        return str(answer.status)

    return look


async def _foreign(bench: Bench) -> str:
    message_id, body = bench.harmless()
    headers = bench.signed(body, message_id=message_id, keys=[new_secret(), new_secret()])
    return refuses(bench, await bench.ask(body, headers), "a request that is signed by two foreign keys")


async def _each(bench: Bench) -> str:
    keys = bench.target.keys
    if len(keys) < 2:
        raise Skipped("only one secret was given")
    for position, key in enumerate(keys, 1):
        message_id, body = bench.harmless()
        answer = await bench.ask(body, bench.signed(body, message_id=message_id, keys=[key]))
        if not answer.ok:
            raise Failed(f"signed by secret {position} of the {len(keys)} alone a request was answered {answer.told}")
    return f"each of {len(keys)} is taken alone"


CHECKS: Final = (
    Check(
        GROUP,
        "first",
        "The worker's own key may be the first of several.",
        "While a secret rotates every message has a signature by each of them, the newest first: so it is for a worker "
        "that has the new one.",
        _EACH,
        _with("{own} {foreign}", "its key's signature first"),
        BOTH,
    ),
    Check(
        GROUP,
        "last",
        "The worker's own key may be the last of several.",
        "So it is for a worker that still has the old one: it would refuse everything from the moment of the rotation.",
        _EACH,
        _with("{foreign} {own}", "its key's signature last"),
        BOTH,
    ),
    Check(
        GROUP,
        "after-unknown",
        "A signature of a kind that is not known may stand before.",
        "A server that changes to Ed25519 (v1a) signs both ways while it does.",
        "Pass over signatures whose prefix you do not know.",
        _with("{unknown} {own}", "a v1a signature before its own"),
        BOTH,
    ),
    Check(
        GROUP,
        "foreign",
        "A message that is signed by foreign keys alone is refused with 401.",
        "Several signatures are several chances to be good, not a reason to believe them.",
        _EACH,
        _foreign,
        BOTH,
    ),
    Check(
        GROUP,
        "each",
        "Each of the secrets that were given is good alone.",
        "When the rotation is over, messages are signed by one of them.",
        "Give the worker all of them: HURLBAT_SIGNING_SECRETS, newest first.",
        _each,
        BOTH,
    ),
)
