"""What is remembered of one delivery: what was sent, what came back, and how long each step took.

A record is made with the request and filled by whoever does the work, so it tells as much as is known whatever goes
wrong. What could open a door is not kept: the signature, and the values of headers that the worker was registered with.
Nor is it where the answer repeats it, as pages do on which a framework explains an error, but for what is very short.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hurlbat.signing import HEADER_SIGNATURE
from hurlbat.wire import HEADER_KEY_IDS
from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.push.exchange import MAX_KEPT_BYTES, Exchange, Phase

KEPT_OF_SUCCESS: Final = 1_024
"""Bytes that are kept of an answer that was as it should be, as what came of the runs is stored with them.

Of others `MAX_KEPT_BYTES` are.
"""
KEPT_HEADERS: Final = 40
KEPT_OF_HEADER: Final = 300
HIDDEN: Final = "…"
"""Stands for what is not kept."""
SHORTEST_SECRET: Final = 8
"""Characters of a value that is looked for in answers; what is shorter would be found in any text."""

_OURS: Final = frozenset(
    {
        "user-agent",
        "content-type",
        "accept",
        "accept-encoding",
        "traceparent",
        "webhook-id",
        "webhook-timestamp",
        HEADER_KEY_IDS,
    }
)
"""Headers of a request that are kept with their values."""
_SECRET: Final = frozenset({"set-cookie", "authorization", "proxy-authorization", "cookie"})


@dataclass(slots=True)
class Record:
    """One delivery. `at` is when it was made (ms), `size` how long its body is, `runs` how many attempts it carried."""

    id: str
    worker: str
    mode: Mode
    url: str
    at: int
    headers: Mapping[str, str] = field(repr=False)
    size: int
    digest: str
    runs: int
    tokens: tuple[str, ...] = field(default=(), repr=False)
    """The lease tokens that it carried."""
    exchange: Exchange | None = None
    status: int | None = None
    answer: Iterable[tuple[str, str]] = ()
    trouble: str | None = "it was closed from here, as nothing of it was wanted any more"
    """What went wrong with the delivery, in a sentence; None where it went as it should."""

    @property
    def clean(self) -> bool:
        """Whether it was answered as deliveries are that go well."""
        return self.trouble is None and self.status is not None and 200 <= self.status < 300

    def as_json(self) -> str:
        """Return the record as it is stored."""
        return json.dumps(
            {
                "request": {
                    "url": self.url,
                    "mode": self.mode,
                    "headers": {name: value if name in _OURS else HIDDEN for name, value in self.headers.items()},
                    "bytes": self.size,
                    "sha256": self.digest,
                    "runs": self.runs,
                },
                "response": self._answer(),
                "timings": self._timings(),
                "trouble": self.trouble,
            }
        )

    def _answer(self) -> dict[str, Any] | None:
        if self.status is None or self.exchange is None:
            return None
        most = KEPT_OF_SUCCESS if self.clean else MAX_KEPT_BYTES
        kept = bytes(self.exchange.kept[:most])
        cut = self.exchange.body_bytes > len(kept)
        secrets = self._secrets()
        shown: dict[str, str] = {}
        for name, value in self.answer:
            if len(shown) == KEPT_HEADERS and name.lower() not in shown:
                break
            name = name.lower()[:KEPT_OF_HEADER]
            said = HIDDEN if name in _SECRET else without(secrets, value)[:KEPT_OF_HEADER]
            shown[name] = f"{shown[name]}, {said}"[:KEPT_OF_HEADER] if name in shown else said
        return {
            "status": self.status,
            "headers": shown,
            "body": without(secrets, kept.decode("utf-8", "replace").replace("\0", "\ufffd"), cut=cut),
            "bytes": self.exchange.body_bytes,
            "cut": cut,
        }

    def _secrets(self) -> list[str]:
        """Return what must not be kept of an answer, the longest first."""
        given = [value for name, value in self.headers.items() if name not in _OURS]
        signatures = [one.partition(",")[2] for one in self.headers.get(HEADER_SIGNATURE, "").split()]
        bearer = self.headers.get("authorization", "").split()[-1:]
        return worth_hiding((*given, *signatures, *bearer, *self.tokens))

    def _timings(self) -> dict[str, Any] | None:
        exchange = self.exchange
        if exchange is None:
            return None
        return timings(exchange.began, exchange.marks, exchange.first_byte, exchange.ended)


def worth_hiding(values: Iterable[str]) -> list[str]:
    """Return those of these values that are looked for in answers, the longest first."""
    return sorted({value for value in values if len(value) >= SHORTEST_SECRET}, key=len, reverse=True)


def without(secrets: Sequence[str], text: str, *, cut: bool = False) -> str:
    """Return a text without these, nor with the beginning of one at its end where it was cut there."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
        if (
            cut
            and (begun := text.rfind(secret[:SHORTEST_SECRET], -len(secret))) >= 0
            and secret.startswith(text[begun:])
        ):
            text = text[:begun] + HIDDEN
    return text


def timings(
    began: float, marks: Mapping[Phase, float], first_byte: float | None, ended: float | None
) -> dict[str, Any]:
    """Return how many seconds each step took, None for one that was not reached or not needed.

    `first_byte` counts from sending, `total` from the beginning. A connection that was used again has no name to look
    up, no connection to make and no handshake.
    """
    sending = marks.get(Phase.SENDING)
    connecting = marks.get(Phase.CONNECTING)
    handshake = marks.get(Phase.HANDSHAKING)
    return {
        "dns": _between(marks.get(Phase.RESOLVING), connecting),
        "connect": _between(connecting, handshake if handshake is not None else sending),
        "tls": _between(handshake, sending),
        "first_byte": _between(sending, first_byte if first_byte is not None else marks.get(Phase.READING)),
        "total": _between(began, ended),
        "reused": sending is not None and connecting is None,
    }


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round(max(0.0, end - start), 6)
