"""Whether a worker sees through signatures that are nearly good, and requests that can be read in two ways."""

import base64
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from hurlbat.conformance import ECHO
from hurlbat.signing import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, new_secret
from hurlbat.wire import cancel_body, describe_body
from hurlbat_app.conform.bench import Bench, new_id, timestamp
from hurlbat_app.conform.checks import BOTH, PROTOCOL, Check
from hurlbat_app.conform.probe import Sent, Trouble
from hurlbat_app.conform.signatures import GROUP, TEN_MINUTES, refuses
from hurlbat_app.conform.verdicts import Failed


async def _part(bench: Bench) -> str:
    for what, forge in _FORGERIES:
        message_id, body = bench.harmless()
        headers = bench.signed(body, message_id=message_id)
        kind, good = _first(headers)
        headers[HEADER_SIGNATURE] = f"{kind},{forge(good)}"
        await _refused(bench, body, headers, f"a request whose signature {what}")
    return f"{len(_FORGERIES)} kinds of it were refused"


def _but(at: int) -> Callable[[str], str]:
    """Return what spoils one byte of a signature."""

    def forge(good: str) -> str:
        raw = bytearray(base64.b64decode(good))
        raw[at] ^= 1
        return base64.b64encode(raw).decode()

    return forge


def _half(first: bool) -> Callable[[str], str]:
    """Return what keeps one half of a signature, and makes up the other."""

    def forge(good: str) -> str:
        raw = base64.b64decode(good)
        half, made_up = len(raw) // 2, secrets.token_bytes(len(raw) // 2)
        return base64.b64encode(raw[:half] + made_up if first else made_up + raw[half:]).decode()

    return forge


_FORGERIES: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("is good but for its first byte", _but(0)),
    ("is good but for its last byte", _but(-1)),
    ("is good but for a byte in the middle", _but(15)),
    ("is good in its first half alone", _half(True)),
    ("is good in its second half alone", _half(False)),
    ("is the first half of the good one", lambda good: good[: len(good) // 2 // 4 * 4]),
    ("is the second half of the good one", lambda good: good[len(good) // 2 // 4 * 4 :]),
    ("is the good one's beginning and padding", lambda good: f"{good[:6]}=="),
    ("is the good one's beginning, padding and noise", lambda good: f"{good[:6]}==" + "A" * (len(good) - 8)),
    ("is the good one's beginning and what is no base64", lambda good: good[:8] + "!" * (len(good) - 8)),
    ("is the good one's beginning, a tab and noise", lambda good: f"{good[:8]}\t" + "A" * (len(good) - 9)),
    ("is the good one with more behind", lambda good: base64.b64encode(base64.b64decode(good) + b"more").decode()),
    ("is the good one with more before", lambda good: base64.b64encode(b"more" + base64.b64decode(good)).decode()),
    ("is the good one in letters of the other case", str.swapcase),
    ("has the good one's length and nothing of it", lambda good: "A" * (len(good) - 2) + good[-2:]),
)


async def _other_kind(bench: Bench) -> str:
    message_id, body = bench.harmless()
    kind, _ = _first(bench.signed(body, message_id=message_id))
    for name in (f"{'v1a' if kind == 'v1' else 'v1'},", "v2,", "v,", ",", ""):
        message_id, body = bench.harmless()
        headers = bench.signed(body, message_id=message_id)
        headers[HEADER_SIGNATURE] = name + _first(headers)[1]
        await _refused(bench, body, headers, f"a request whose {kind} signature is called {name!r}")
    return "5 kinds of it were refused"


async def _in_two_ways(bench: Bench) -> str:
    for fresh_first in (True, False):
        message_id, body = bench.harmless()
        old = bench.signed(body, message_id=message_id, ahead=-TEN_MINUTES)
        signed_at, now = old.pop(HEADER_TIMESTAMP), str(int(time.time()))
        first, second = (now, signed_at) if fresh_first else (signed_at, now)
        # two lines of the head with one name: it has no case for whoever reads them
        headers = {**old, HEADER_TIMESTAMP: first, HEADER_TIMESTAMP.title(): second}
        order = "behind a fresh one" if fresh_first else "and a fresh one behind it"
        await _refused(bench, body, headers, f"a request that was signed ten minutes ago, {order}", (400,))
    for name, other in ((HEADER_ID, new_id()), (HEADER_SIGNATURE, "v1,AAAA")):
        message_id, body = bench.harmless()
        headers = {**bench.signed(body, message_id=message_id), name.title(): other}
        answer = await bench.ask(body, headers)
        if answer.status >= 500:
            raise Failed(f"a request with a second {name} was answered {answer.told}")
    return "none was let in by its second value"


async def _every_message(bench: Bench) -> str:
    for kind, body in _messages(bench):
        unsigned = await bench.ask(body, bench.unsigned(new_id()))
        refuses(bench, unsigned, f"an unsigned {kind}")
        refuses(bench, await bench.ask(body, bench.signed(body, keys=[new_secret()])), f"a wrongly signed {kind}")
    return "describe, cancel and deliver, unsigned and wrongly signed"


def _messages(bench: Bench) -> Iterator[tuple[str, bytes]]:
    worker, url, now = bench.target.worker, bench.target.url, timestamp()
    yield "describe", describe_body(worker, url, now)
    yield "cancel", cancel_body(worker, url, now, [(new_id(), 1, "conform")])
    yield "deliver", bench.body([bench.run(ECHO if bench.serves(ECHO) else "conform.no-such-task", None)])


async def _refused(bench: Bench, body: bytes, headers: Sent, what: str, also: Collection[int] = ()) -> None:
    try:
        answer = await bench.ask(body, headers)
    except Trouble as trouble:
        raise Failed(f"{what} got no answer: {trouble}") from trouble
    if answer.status not in also:
        refuses(bench, answer, what)


def _first(headers: Sent) -> tuple[str, str]:
    kind, _, good = str(headers[HEADER_SIGNATURE]).split(" ")[0].partition(",")
    return kind, good


CHECKS: Final = (
    Check(
        GROUP,
        "part",
        "A signature of which only a part is right is refused with 401.",
        "Of a part there are few enough to try them all; of what is compared only as far as it has come, one byte.",
        "Compare the whole signature and its length, in constant time (timingSafeEqual, hmac.Equal, compare_digest), "
        "and answer 401 also where the length is another.",
        _part,
        BOTH,
    ),
    Check(
        GROUP,
        "other-kind",
        "A good signature under the name of another kind is refused with 401.",
        "The name says how a signature was made. Where it is passed over, one kind can be passed off as another.",
        "Compare only what is called v1 (or v1a, if your key is a public one), and pass over all else.",
        _other_kind,
        BOTH,
    ),
    Check(
        GROUP,
        "two-values",
        "A request with a second webhook-timestamp is not let in by it.",
        "Who looks at one of them for the age and at the other for the signature lets in whatever was ever recorded.",
        "Read each of the three headers once, and go by that value in all that you do.",
        _in_two_ways,
        BOTH,
    ),
    Check(
        GROUP,
        "every-message",
        "Messages of every type are refused with 401 if they are unsigned or wrongly signed.",
        "Who verifies probes alone is let through by the server's proof, and runs and stops what anybody asks for.",
        "Verify the request before you look at its type.",
        _every_message,
        PROTOCOL,
    ),
)
