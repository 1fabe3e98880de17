"""Says of a 401 what this side knows and the worker does not: what was sent, and which keys signed it.

A worker that finds no good signature can only guess whether its secret or the body is wrong. It tells the length and
the digest of the body that came (`body_bytes`, `body_sha256`), and here they are held against what was sent.
"""

import hashlib
from dataclasses import replace

from hurlbat.signing import TOLERANCE_SECONDS
from hurlbat_dispatcher.domain.answers import Received, Words
from hurlbat_dispatcher.domain.workers import SigningKey
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.telling import rfc3339

_LONG_AGO_MS = 30 * 86_400_000
"""After so long nobody is told of a key that has ended."""
_CLOSE_SECONDS = 30.0
"""Clocks that differ by less refuse nothing, and each time by another fraction: that is not told."""


def explained(words: Words, target: Target, body: bytes, now: int) -> Words:
    """Return a 401's words with what is known here of the request with this body, at this time (ms).

    Where the worker tells what it received, a sentence of ours takes the place of its own, which had to guess.
    """
    beside = "".join(f"; {said}" for said in _keys(target, now))
    detail = words.detail if words.received is None else _found(words.received, body)
    return replace(words, detail=detail, beside=beside)


def _found(received: Received, body: bytes) -> str:
    """Say what is wrong, of what this side and that side know together."""
    if received.bytes != len(body):
        came = f"the worker received {received.bytes} bytes where {len(body)} were sent"
        return f"{came}: something on the way changed the body"
    if received.sha256 != hashlib.sha256(body).hexdigest():
        return f"the worker received other bytes than the {len(body)} sent: something on the way changed the body"
    if not received.signed:
        return "the worker received no signature: something on the way dropped the webhook headers"
    skew = _skew(received.skew)
    if received.skew is not None and abs(received.skew) > TOLERANCE_SECONDS:
        return f"one of the two clocks is wrong, which may differ by {TOLERANCE_SECONDS} s{skew}"
    count = "" if received.known is None else f" (it knows {received.known})"
    hint = "" if received.hint is None else f"; {received.hint}"
    return f"the body came as it was sent, so the worker has another secret{count}{hint}{skew}"


def _skew(seconds: float | None) -> str:
    if seconds is None or abs(seconds) < _CLOSE_SECONDS:
        return ""
    return f"; clock skew {seconds:+.0f} s (the worker's clock minus this server's)"


def _keys(target: Target, now: int) -> list[str]:
    """Say which keys signed, and which did until not long ago."""
    told = {key.id: key for key in target.told}
    signed = " and ".join(_told(one, told.get(one)) for one in target.key_ids)
    said = [f"signed with {signed}"]
    if len(target.key_ids) > 1:
        said[0] += ": the worker must know one of them, and the first when the others end"
    said += [
        f"key {key.id} was replaced, and signs no more since {rfc3339(key.until)}"
        for key in target.told
        if key.id not in target.key_ids and key.until is not None and now - key.until < _LONG_AGO_MS
    ]
    return said


def _told(name: str, key: SigningKey | None) -> str:
    if key is None:
        return f"key {name}"
    since = "" if key.created_at is None else f" since {rfc3339(key.created_at)}"
    until = "" if key.until is None else f" until {rfc3339(key.until)}"
    return f"key {name} ({key.algorithm}{since}{until})"
