"""Whether a worker takes what is signed by who it trusts, and nothing else."""

import base64
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from hurlbat.signing import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, new_secret, sign
from hurlbat_app.conform.bench import Bench, marked, new_id
from hurlbat_app.conform.checks import BOTH, Check
from hurlbat_app.conform.probe import Answer, Trouble
from hurlbat_app.conform.verdicts import Failed, Hopeless

GROUP: Final = "signatures"
TEN_MINUTES: Final = 600
TWO_MINUTES: Final = 120
_VERIFY: Final = (
    "Verify webhook-signature over id.timestamp.body, with the raw bytes of the body, before anything else."
)

_GARBAGE: Final[dict[str, tuple[str | bytes, ...]]] = {
    HEADER_ID: ("", "a.b", "x" * 4_000, b"\xff\xfe"),
    HEADER_TIMESTAMP: ("", "soon", "-1", "1e9", "1e999", "12.5", "nan", "0x7fffffff", "9" * 400, b"\xd9\xa1\xd9\xa2"),
    HEADER_SIGNATURE: ("", "v1", "v1,", ",", "v1,!!!", "v1,\t,", "v1a,AAAA", "v1,=" * 500, b"v1,\xff\xfe"),
}
_LETTERS: Final = "Grüße, Ω, 日本語, 👩‍👩‍👧"


async def good(bench: Bench) -> str:
    """Send what is well signed."""
    message_id, body = bench.harmless()
    answer = await bench.ask(body, bench.signed(body, message_id=message_id))
    if answer.ok:
        return str(answer.status)
    said = f"a well signed request was answered {answer.told}"
    if answer.status == 401:
        raise Hopeless(said)
    if answer.status == 403:
        raise Hopeless(
            said,
            "It checks for whom a request is meant: give its name by --worker, and start it with this very URL as its "
            "public one, or with none.",
        )
    if bench.plain and 400 <= answer.status < 500:
        raise Hopeless(said, "If it does not know the task, name one that it takes: --task NAME --input JSON.")
    if not bench.plain and not marked(answer):
        fix = (
            "It does not look like a Hurlbat worker, as its answer has no hurlbat-worker: check the URL, then its log."
        )
        raise Hopeless(said, fix)
    raise Hopeless(said, "Look into the worker's log.")


def refuses(bench: Bench, answer: Answer, what: str) -> str:
    """Return what was seen if an answer refuses as it must. Raises `Failed`."""
    if answer.status == 401 or (bench.plain and answer.status in range(400, 500)):
        return str(answer.status)
    if answer.ok:
        raise Failed(f"{what} was let in: it was answered {answer.status}")
    if answer.status >= 500:
        raise Failed(
            f"{what} was answered {answer.told}",
            "Answer 401 to whatever cannot be verified; a header that cannot be read is no reason to crash.",
        )
    raise Failed(f"{what} was answered {answer.told}", "Answer 401; only that is taken as a refusal of the signature.")


async def _unsigned(bench: Bench) -> str:
    message_id, body = bench.harmless()
    return refuses(bench, await bench.ask(body, bench.unsigned(message_id)), "an unsigned request")


async def _wrong_key(bench: Bench) -> str:
    message_id, body = bench.harmless()
    headers = bench.signed(body, message_id=message_id, keys=[new_secret()])
    return refuses(bench, await bench.ask(body, headers), "a request that is signed by another key")


async def _changed_body(bench: Bench) -> str:
    message_id, body = bench.harmless()
    headers = bench.signed(body, message_id=message_id)
    changed = body.replace(b'"data":{', b'"data": {', 1)  # the same JSON, one byte longer
    return refuses(bench, await bench.ask(changed, headers), "a body that has one byte more than what was signed")


def _timed(ahead: int, what: str) -> Callable[[Bench], Awaitable[str]]:
    async def look(bench: Bench) -> str:
        message_id, body = bench.harmless()
        return refuses(bench, await bench.ask(body, bench.signed(body, message_id=message_id, ahead=ahead)), what)

    return look


async def _skewed(bench: Bench) -> str:
    for ahead, side in ((-TWO_MINUTES, "ago"), (TWO_MINUTES, "ahead")):
        message_id, body = bench.harmless()
        answer = await bench.ask(body, bench.signed(body, message_id=message_id, ahead=ahead))
        if not answer.ok:
            raise Failed(f"a request that was signed two minutes {side} was answered {answer.told}")
    return "two minutes in either direction"


async def _other_letters(bench: Bench) -> str:
    message_id, body = bench.harmless()
    body = body.replace(b'"data":{', f'"data":{{"padding":"{_LETTERS}",'.encode(), 1)
    answer = await bench.ask(body, bench.signed(body, message_id=message_id))
    if answer.status in (401, 403):  # what else it may dislike is told by other checks
        raise Failed(f"a good request with {_LETTERS} in its body was answered {answer.told}")
    return str(answer.status)


def _garbage(header: str) -> Callable[[Bench], Awaitable[str]]:
    async def look(bench: Bench) -> str:
        for value in _GARBAGE[header]:
            message_id, body = bench.harmless()
            headers = {**bench.signed(body, message_id=message_id), header: value}
            written = value if isinstance(value, str) else value.decode("latin-1")
            what = f"a request with {header}: {written[:24]!r}{'…' if len(written) > 24 else ''}"
            try:
                answer = await bench.ask(body, headers)
            except Trouble as trouble:
                raise Failed(f"{what} got no answer: {trouble}") from trouble
            # what is no text, or too long for any header, may be refused by the HTTP server before the worker sees it
            if not (answer.status in (400, 431) and (isinstance(value, bytes) or len(value) > 1_000)):
                refuses(bench, answer, what)
        return f"{len(_GARBAGE[header])} kinds of it were refused"

    return look


async def _other_id(bench: Bench) -> str:
    message_id, body = bench.harmless()
    headers = {**bench.signed(body, message_id=message_id), HEADER_ID: new_id()}
    return refuses(bench, await bench.ask(body, headers), "a request whose webhook-id was changed after signing")


async def _other_message(bench: Bench) -> str:
    _, other = bench.harmless()
    message_id, body = bench.harmless()
    body = body.replace(b'"data":{', b'"data":{"more":1,', 1)
    headers = bench.signed(other, message_id=message_id)
    return refuses(bench, await bench.ask(body, headers), "a request with the signature of another message")


async def _header_case(bench: Bench) -> str:
    message_id, body = bench.harmless()
    written = {HEADER_ID: "WEBHOOK-ID", HEADER_TIMESTAMP: "Webhook-Timestamp", HEADER_SIGNATURE: "wEbHoOk-SiGnAtUrE"}
    headers = {written.get(name, name): value for name, value in bench.signed(body, message_id=message_id).items()}
    answer = await bench.ask(body, headers)
    if not answer.ok:
        raise Failed(f"with {', '.join(written.values())} a good request was answered {answer.told}")
    return str(answer.status)


async def _among_bad(bench: Bench) -> str:
    message_id, body = bench.harmless()
    headers = bench.signed(body, message_id=message_id)
    at, good_one = int(headers[HEADER_TIMESTAMP]), str(headers[HEADER_SIGNATURE])
    foreign = sign([new_secret()], message_id, at, body)
    noise = base64.b64encode(secrets.token_bytes(32)).decode()
    headers[HEADER_SIGNATURE] = f"v1,{noise} v1,not-base64 {foreign} {good_one} v9,{noise} {foreign}"
    answer = await bench.ask(body, headers)
    if not answer.ok:
        raise Failed(f"one good signature among five bad ones was answered {answer.told}")
    return str(answer.status)


def _refused(name: str, says: str, why: str, fix: str, look: Callable[[Bench], Awaitable[str]]) -> Check:
    return Check(GROUP, name, says, why, fix, look, BOTH)


CHECKS: Final = (
    Check(
        GROUP,
        "good",
        "A well signed request is taken.",
        "A worker that refuses the server gets no runs: it is rejected, and its runs wait.",
        "Give the secret that the worker has (--secret, or HURLBAT_SIGNING_SECRET), and compare the two clocks.",
        good,
        BOTH,
    ),
    _refused(
        "unsigned",
        "An unsigned request is refused with 401.",
        "Whoever finds the URL could run your tasks.",
        _VERIFY,
        _unsigned,
    ),
    _refused(
        "wrong-key",
        "A request that is signed by another key is refused with 401.",
        "A signature that is not compared with the secret proves nothing: anybody can sign with a key of his own.",
        _VERIFY,
        _wrong_key,
    ),
    _refused(
        "changed-body",
        "A body that was changed by one byte is refused with 401.",
        "Else whoever sits between could change what is run. A worker that verifies JSON which it has parsed and "
        "written again shows here.",
        "Compute the signature over the raw bytes as they came, not over JSON that was written again.",
        _changed_body,
    ),
    _refused(
        "old",
        "A request that was signed ten minutes ago is refused with 401.",
        "Whoever has recorded a request, in a log or on the way, could send it again for ever.",
        "Refuse a webhook-timestamp that is more than five minutes from your clock.",
        _timed(-TEN_MINUTES, "a request that was signed ten minutes ago"),
    ),
    _refused(
        "ahead",
        "A request that was signed ten minutes ahead is refused with 401.",
        "A request for later could be kept and sent when its time has come.",
        "Refuse a webhook-timestamp that is more than five minutes from your clock, in either direction.",
        _timed(TEN_MINUTES, "a request that was signed ten minutes ahead"),
    ),
    Check(
        GROUP,
        "skew",
        "A request that was signed two minutes ago, or two minutes ahead, is taken.",
        "Clocks differ. A worker that allows for nothing answers 401 when one of them is a little off: it is rejected, "
        "and its runs wait.",
        "Allow for five minutes between webhook-timestamp and your clock, in either direction.",
        _skewed,
        BOTH,
    ),
    _refused(
        "garbage-id",
        "Garbage in webhook-id is refused with 401.",
        "Anybody can send it; a crash is an error page, an alarm, and now and then a way in.",
        "Verify what is there as bytes, and answer 401 to all that does not fit.",
        _garbage(HEADER_ID),
    ),
    _refused(
        "garbage-timestamp",
        "Garbage in webhook-timestamp is refused with 401.",
        "Anybody can send it, and it is read as a number before the signature is known to be good.",
        "Take one to twelve ASCII digits and answer 401 to all else.",
        _garbage(HEADER_TIMESTAMP),
    ),
    _refused(
        "garbage-signature",
        "Garbage in webhook-signature is refused with 401.",
        "Anybody can send it; what is not base64 must not crash the comparison.",
        "Pass over every signature that cannot be read, and answer 401 if none is left that is good.",
        _garbage(HEADER_SIGNATURE),
    ),
    _refused(
        "other-id",
        "A webhook-id that was changed after signing is refused with 401.",
        "The id is how repeats are known; if it is not signed, a recorded request passes as a new one.",
        "Compute the signature over id.timestamp.body, all three.",
        _other_id,
    ),
    _refused(
        "other-message",
        "The signature of another message is refused with 401.",
        "One recorded signature would open the door for any message.",
        _VERIFY,
        _other_message,
    ),
    Check(
        GROUP,
        "other-letters",
        "A body with other letters than ASCII is taken.",
        "Who verifies text in another encoding answers 401 to the first input with an umlaut: the worker is rejected, "
        "and all its runs wait.",
        "Compute the signature over the bytes of the body as they came, before anything makes text of them.",
        _other_letters,
        BOTH,
    ),
    Check(
        GROUP,
        "header-case",
        "The names of the headers may be written in any case.",
        "HTTP has no case in them, and proxies write them as they like.",
        "Look headers up without regard to case.",
        _header_case,
        BOTH,
    ),
    Check(
        GROUP,
        "good-among-bad",
        "One good signature among bad ones is enough.",
        "While a secret rotates there are several, and later versions may add kinds that you do not know.",
        "Split webhook-signature at spaces and compare each; take the message if one is good.",
        _among_bad,
        BOTH,
    ),
)
