"""Read the body of a request, byte for byte as it was sent, and say so where that is not to be had.

A signature is over the raw bytes. A middleware or a framework that reads a request's body takes them away: ASGI gives
them once. What comes here then is nothing, or something that was written anew; the signature alone would call that a
wrong secret.
"""

import asyncio
from collections.abc import Mapping

from hurlbat.outbox import ASGIMessage, Receive, StreamBroken
from hurlbat.signing import HEADER_SIGNATURE

MAX_DELIVERY_BYTES = 16 * 1_048_576
FIRST_BYTE_SECONDS = 10.0
"""How long a body that was announced may take to begin: it travels with its head, unless somebody has taken it."""

CONSUMED = "body_consumed"
CHANGED = "body_changed"
LATE = "body_late"
_OUTSIDE = 'Put Hurlbat outside of it: app = hurlbat.mount(app, "/hurlbat")'


class BodyRefused(Exception):
    """The body is not to be had as it was sent: what to answer, and in a sentence why."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


async def read_body(
    headers: Mapping[str, str], receive: Receive, limit: int, patience: float = FIRST_BYTE_SECONDS
) -> bytes:
    """Return the whole body. Raises `BodyRefused`, or `StreamBroken` where the other side is gone.

    `headers` has lower-case names; a body has at most `limit` bytes, and begins within so many seconds of `patience`.
    """
    declared = _declared(headers)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    message = await _first(receive, declared, patience)
    chunks: list[bytes] = []
    size = 0
    while message["type"] != "http.disconnect":
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            _check(headers, declared, size)
            return b"".join(chunks)
        message = await receive()
    if declared and not size:
        raise _consumed(declared)
    raise StreamBroken


async def _first(receive: Receive, declared: int | None, patience: float) -> ASGIMessage:
    try:
        async with asyncio.timeout(patience):
            return await receive()
    except TimeoutError:
        announced = "the body" if declared is None else f"the body of {declared:,} bytes"
        raise BodyRefused(
            408,
            LATE,
            f"nothing of {announced} came within {patience:g} s: the sender is stuck, or the body was read before it "
            f"came here, by a middleware or by the framework. {_OUTSIDE}",
        ) from None


def _check(headers: Mapping[str, str], declared: int | None, size: int) -> None:
    if declared is None:
        if size == 0 and HEADER_SIGNATURE in headers:
            raise _consumed(None)
    elif size == 0 < declared:
        raise _consumed(declared)
    elif size != declared:
        raise BodyRefused(
            401,
            CHANGED,
            f"the body was changed before it came here: content-length says {declared:,} bytes, and {size:,} came, so "
            f"no signature can match. A middleware or the framework has parsed it and written it anew. {_OUTSIDE}",
        )


def _consumed(declared: int | None) -> BodyRefused:
    told = "the request is signed" if declared is None else f"content-length says {declared:,} bytes"
    return BodyRefused(
        401,
        CONSUMED,
        f"the body was read before it came here: {told}, and nothing came. A middleware or the framework has read it. "
        + _OUTSIDE,
    )


def _too_large(limit: int) -> BodyRefused:
    return BodyRefused(413, "too_large", f"the body has more than {limit:,} bytes")


def _declared(headers: Mapping[str, str]) -> int | None:
    said = headers.get("content-length", "")
    return int(said[:20]) if said.isascii() and said.isdigit() else None
