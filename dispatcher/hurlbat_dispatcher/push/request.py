"""Makes requests to workers, signed or on purpose not, and reads what the head and the words of an answer say."""

import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.signing import key_id, sign
from hurlbat.wire import (
    HEADER_ASYNC,
    HEADER_KEY_IDS,
    HEADER_RATE_LIMIT_KEY,
    HEADER_RETRY,
    HEADER_WORKER,
    JSON_TYPE,
    PROBLEM_TYPE,
    STREAM_TYPE,
    is_rate_limit_key,
)
from hurlbat_dispatcher.clock import Clock, Ids
from hurlbat_dispatcher.domain.answers import Head, Received, Words
from hurlbat_dispatcher.domain.retry_after import read_retry_after
from hurlbat_dispatcher.domain.workers import Mode, SigningKey
from hurlbat_dispatcher.push.exchange import LastLook, Limits
from hurlbat_dispatcher.push.record import Record, without, worth_hiding
from hurlbat_dispatcher.push.transport import Response, Transport

MAX_SKEW: Final = 1e12
MAX_HINT: Final = 200
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """A worker as it is called. `keys` are its signing secrets, newest first, `headers` its extra headers."""

    worker: str
    url: str
    mode: Mode
    keys: tuple[str, ...] = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    streams: bool = True
    """Whether its answers begin before they are complete."""
    told: tuple[SigningKey, ...] = ()
    """What may be told of its keys, and of some that sign no more."""
    key_ids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_ids", tuple(map(key_id, self.keys)))


class Requests:
    """Makes requests and posts them."""

    def __init__(
        self, transport: Transport, clock: Clock, *, ids: Ids, connect_timeout: float, user_agent: str
    ) -> None:
        self.clock = clock
        self.ids = ids
        self.connect_timeout = connect_timeout
        self._transport = transport
        self._user_agent = user_agent

    def post(
        self,
        target: Target,
        headers: Mapping[str, str],
        body: bytes,
        limits: Limits,
        last_look: LastLook | None = None,
        record: Record | None = None,
    ) -> AbstractAsyncContextManager[Response]:
        """Post a body to a worker, as `Transport.post` does."""
        return self._transport.post(
            target.url, headers=headers, body=body, limits=limits, last_look=last_look, record=record
        )

    def timestamp(self) -> str:
        """Return now, as messages say it."""
        now = datetime.fromtimestamp(self.clock.now_ms() / 1_000, UTC)
        return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1_000:03d}Z"

    def headers(self, target: Target, message_id: str, body: bytes) -> dict[str, str]:
        """Return the headers of a request that is signed now."""
        seconds = self.clock.now_ms() // 1_000
        return self.unsigned_headers(target, message_id) | {
            "webhook-timestamp": str(seconds),
            "webhook-signature": sign(target.keys, message_id, seconds, body),
            HEADER_KEY_IDS: " ".join(target.key_ids),
        }

    def unsigned_headers(self, target: Target, message_id: str) -> dict[str, str]:
        """Return the headers of a request but for its signature and time."""
        trace = message_id.replace("-", "")
        span = self.ids.new().replace("-", "")[16:]
        return (
            {"user-agent": self._user_agent}
            | dict(target.headers)
            | {
                "content-type": JSON_TYPE,
                "accept": f"{STREAM_TYPE}, {JSON_TYPE}",
                "accept-encoding": "identity",
                "traceparent": f"00-{trace}-{span}-01",
                "webhook-id": message_id,
            }
        )


def head_of(response: Response, now_ms: int) -> Head:
    """Return what of a response's head matters."""
    headers = response.headers
    return Head(
        response.status,
        marked=HEADER_WORKER in headers,
        will_report=headers.get(HEADER_ASYNC) == "1",
        no_retry=headers.get(HEADER_RETRY, "").lower() == "no",
        retry_after=read_retry_after(headers.get_list("retry-after"), now_ms),
        location=headers.get("location"),
        rate_limit_key=_rate_limit_key(headers.get(HEADER_RATE_LIMIT_KEY)),
    )


def media_type(response: Response) -> str:
    """Return the response's media type without its parameters."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


async def words_of(response: Response, target: Target) -> Words:
    """Return what the body of an error says, as far as it can be read, but for what the worker's own headers hold."""
    text = (await response.beginning(16_384)).decode("utf-8", "replace").replace("\0", "\ufffd").strip()
    text = without(worth_hiding(target.headers.values()), text)
    if media_type(response) != PROBLEM_TYPE:
        return Words(text)
    try:
        problem = parse(text)
    except JsonTextError:
        return Words(text)
    if not isinstance(problem, dict):
        return Words(text)
    code, detail = problem.get("code"), problem.get("detail")
    return Words(
        text,
        detail.replace("\0", "\ufffd") if isinstance(detail, str) else None,
        code if isinstance(code, str) else None,
        problem.get("retryable") is not False,
        _rate_limit_key(problem.get("rate_limit_key")),
        _received(problem),
    )


def _whole(said: object) -> int | None:
    return said if type(said) is int and 0 <= said < 1 << 53 else None


def _received(problem: Mapping[str, Any]) -> Received | None:
    """Return what the members of a 401 tell of what came; each that has another shape is ignored."""
    size, digest = _whole(problem.get("body_bytes")), problem.get("body_sha256")
    if size is None or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        return None
    skew, hint = problem.get("clock_skew"), problem.get("hint")
    return Received(
        size,
        digest.lower(),
        skew if isinstance(skew, int | float) and abs(skew) < MAX_SKEW else None,
        problem.get("signature_versions") != [],
        _whole(problem.get("known_keys")),
        hint[:MAX_HINT].replace("\0", "\ufffd") if isinstance(hint, str) else None,
    )


def _rate_limit_key(said: object) -> str | None:
    """Return the key where it can be one; what cannot is ignored, as an unreadable `Retry-After` is."""
    return said if isinstance(said, str) and is_rate_limit_key(said) else None
