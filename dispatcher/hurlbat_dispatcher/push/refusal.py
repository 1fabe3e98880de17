"""Says of a 401 what this side knows and the worker does not: what was sent, and which keys signed it.

A worker that finds no good signature can only guess whether its secret or the body is wrong. It tells the length and
the digest of the body that came (`body_bytes`, `body_sha256`), and here they are held against what was sent.
"""

import hashlib
from dataclasses import replace

from hurlbat_dispatcher.domain.answers import Words
from hurlbat_dispatcher.domain.workers import SigningKey
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.telling import rfc3339

_LONG_AGO_MS = 30 * 86_400_000
"""After so long nobody is told of a key that has ended."""


def explained(words: Words, target: Target, body: bytes, now: int) -> Words:
    """Return a 401's words with what is known here of the request with this body, at this time (ms)."""
    return replace(words, beside="".join(f"; {said}" for said in (_compared(words, body), *_keys(target, now)) if said))


def _compared(words: Words, body: bytes) -> str | None:
    """Say whether the body came as it was sent, where the worker tells enough of it."""
    came = words.body_bytes
    if came is not None and came != len(body):
        said = f"the worker received {came} bytes where {len(body)} were sent"
        return f"{said}: something on the way changed the body"
    if words.body_sha256 is None:
        return None
    if words.body_sha256.lower() != hashlib.sha256(body).hexdigest():
        return f"the worker received other bytes than the {len(body)} sent: something on the way changed the body"
    return "the body came as it was sent"


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
