"""Proves that a worker is what it says: it knows the secret, and it refuses whoever does not.

A signed `describe` must be answered with the manifest. Then an unsigned, a wrongly signed and a ten-minute-old `probe`
must each be refused with 401; a worker that takes any of them would take work from anyone.
"""

from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.policy import Manifest
from hurlbat.reading import CHANGED, CONSUMED
from hurlbat.signing import algorithm_of, new_key_pair, sign
from hurlbat.wire import HEADER_WORKER, MAX_BODY_BYTES, describe_body, probe_body
from hurlbat_dispatcher.domain.answers import redirect_words
from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.exchange import Limits, TransportFailure
from hurlbat_dispatcher.push.refusal import explained
from hurlbat_dispatcher.push.request import Requests, Target, head_of, words_of
from hurlbat_dispatcher.push.transport import Response

PROOF_SECONDS: Final = 15.0
OLD_SECONDS: Final = 600
MAX_MANIFEST_BYTES: Final = 4 * MAX_BODY_BYTES
"""A task takes about a thousand, with its schemas."""

_WRONG_KEY: Final = "whsec_dGhpcyBpcyBub3QgdGhlIHNlY3JldCBvZiBhbnlvbmU="
_BROKEN: Final = frozenset({ErrorCode.ATTEMPT_TIMEOUT, ErrorCode.CONNECTION_RESET})
_NOT_NOW: Final = frozenset({429, 502, 503, 504})


class ProofFailed(Exception):
    """The worker did not prove itself; `sentence` says what to fix.

    `transient`: it could not be reached or was busy, so that it is worth trying again as things are.
    """

    def __init__(self, code: ErrorCode, sentence: str, *, transient: bool = False) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.transient = transient


async def describe(requests: Requests, target: Target) -> Manifest:
    """Return the worker's manifest. Raises `ProofFailed`."""
    body = describe_body(target.worker, target.url, requests.timestamp())
    headers = requests.headers(target, requests.ids.new(), body)
    try:
        async with requests.post(target, headers, body, _limits(requests, MAX_MANIFEST_BYTES)) as answer:
            if answer.status != 200:
                raise await _refused(answer, target, body, requests.clock.now_ms())
            if HEADER_WORKER not in answer.headers:
                sentence = f"{target.url} answered 200 without the hurlbat-worker header: something else is there"
                raise ProofFailed(ErrorCode.NOT_A_WORKER, sentence)
            said = await answer.read()
    except TransportFailure as failure:
        raise _unreached(failure) from failure
    return _manifest(said)


async def prove(requests: Requests, target: Target) -> Manifest:
    """Return the manifest of a worker that refuses what it must refuse. Raises `ProofFailed`."""
    manifest = await describe(requests, target)
    body = probe_body(target.worker, target.url, requests.timestamp())
    now = requests.clock.now_ms() // 1_000
    # one after the other: the sentence then names the first that was let in
    for what, timestamp, keys in (
        ("an unsigned request", now, ()),
        ("a wrongly signed request", now, _wrong_keys(target)),
        ("a ten-minute-old request", now - OLD_SECONDS, target.keys),
    ):
        message_id = requests.ids.new()
        headers = requests.unsigned_headers(target, message_id) | {"webhook-timestamp": str(timestamp)}
        if keys:
            headers["webhook-signature"] = sign(keys, message_id, timestamp, body)
        await _must_refuse(requests, target, what, headers, body)
    return manifest


def _wrong_keys(target: Target) -> tuple[str, ...]:
    """Return keys of nobody: for a worker that checks Ed25519, one of that kind as well."""
    ours = {algorithm_of(key) for key in target.keys}
    return (_WRONG_KEY, new_key_pair()[0]) if "v1a" in ours else (_WRONG_KEY,)


async def _must_refuse(requests: Requests, target: Target, what: str, headers: Mapping[str, str], body: bytes) -> None:
    try:
        async with requests.post(target, headers, body, _limits(requests)) as answer:
            status = answer.status
    except TransportFailure as failure:
        raise _unreached(failure) from failure
    if status != 401:
        sentence = f"the worker answered {what} with {status}; it must refuse it with 401"
        raise ProofFailed(ErrorCode.WORKER_UNAUTHORIZED, sentence, transient=status in _NOT_NOW)


async def _refused(answer: Response, target: Target, body: bytes, now_ms: int) -> ProofFailed:
    head = head_of(answer, now_ms)
    words = await words_of(answer, target)
    said = f": {words.for_people}" if words.for_people else ""
    status = f"the worker answered {head.status}"
    match head.status:
        case redirect if 300 <= redirect < 400:
            return ProofFailed(ErrorCode.REDIRECT_REFUSED, f"{status}; {redirect_words(head, target.url)}")
        case 401:
            known = words.received is not None or words.code in (CONSUMED, CHANGED)
            guess = "" if known else "; its secret or its clock is wrong"
            words = explained(words, target, body, now_ms)
            said = f": {words.for_people}" if words.for_people else ""
            sentence = f"{status} to a signed request{guess}{said}{words.beside}"
            return ProofFailed(ErrorCode.WORKER_UNAUTHORIZED, sentence)
        case 403:
            code = ErrorCode.WRONG_TARGET if words.code == ErrorCode.WRONG_TARGET else ErrorCode.WORKER_UNAUTHORIZED
            return ProofFailed(code, f"{status} to a signed request{said}")
        case 404 | 405:
            sentence = f"{status} at {target.url}; register the URL where hurlbat.asgi() is mounted{said}"
            return ProofFailed(ErrorCode.NOT_A_WORKER, sentence)
        case 410:
            return ProofFailed(ErrorCode.WORKER_GONE, f"{status}: it says that it is gone for good")
    return ProofFailed(ErrorCode.HTTP_ERROR, f"{status}{said}", transient=head.status in _NOT_NOW)


def _limits(requests: Requests, size: int = MAX_BODY_BYTES) -> Limits:
    return Limits(total=PROOF_SECONDS, connect=requests.connect_timeout, size=size)


def _unreached(failure: TransportFailure) -> ProofFailed:
    blocked = failure.code is ErrorCode.DESTINATION_BLOCKED
    transient = not blocked and (not failure.sent or failure.code in _BROKEN)
    trouble = "its answer cannot be read" if failure.code is ErrorCode.BAD_ENCODING else "the worker cannot be reached"
    return ProofFailed(failure.code, f"{trouble}: {failure.message}", transient=transient)


def _manifest(body: bytes) -> Manifest:
    try:
        parse(body)  # stricter than pydantic: no NaN, no depth without end
        return Manifest.read(body)
    except JsonTextError as error:
        raise ProofFailed(ErrorCode.BAD_RESULT, f"the manifest is not JSON: {error.message}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        said = first["msg"].removeprefix("Value error, ")
        raise ProofFailed(ErrorCode.BAD_RESULT, f"the manifest is wrong at {where}: {said}") from error
