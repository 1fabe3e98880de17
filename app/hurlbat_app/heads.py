"""uvicorn's HTTP, with bounds for what comes before a request is one: its head, or nothing at all.

uvicorn waits for a head for as long as its connection lives, and reads one of any size. Whoever can reach the port
could keep all connections that this process may have, or fill its memory, without a token.
"""

import asyncio
from typing import Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hurlbat_app.api.bodies import BODY_HERE

HEAD_SECONDS: Final = 30.0
"""How long a connection may be without a request: from its beginning, or from the first byte after an answer."""
HEAD_BYTES: Final = 65_536
"""How large a head may be, about."""


class BoundedHttp(HttpToolsProtocol):
    """A connection whose heads have a time and a size. While a request is answered there is no bound here."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._until: asyncio.TimerHandle | None = None
        self._head: int | None = None
        """Bytes of a head that has begun."""
        self._asked = False
        """Whether there was a request on this connection; the last one is `cycle`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._wait_no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes in, and wait for a head where they leave us without a request."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                said = f"the head of the request is larger than the limit of {HEAD_BYTES} bytes"
                self._refuse(431, "Request header fields too large", "head_too_large", said, limit=HEAD_BYTES)
                return
        if self._answered and self.timeout_keep_alive_task is None:
            self._wait()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head is there."""
        self._head = None
        self._asked = True
        self._wait_no_longer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is there."""
        self.scope[BODY_HERE] = True  # type: ignore[typeddict-unknown-key]  # for those who know of it
        super().on_message_complete()

    @property
    def _answered(self) -> bool:
        return not self._asked or self.cycle.response_complete

    def _wait(self) -> None:
        if self._until is None:
            self._until = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _wait_no_longer(self) -> None:
        if self._until is not None:
            self._until.cancel()
            self._until = None

    def _too_slow(self) -> None:
        self._until = None
        if self._head is None:  # nobody has asked for anything, so nobody waits for an answer
            self.transport.close()
        else:
            said = f"the head of the request was not there after {HEAD_SECONDS:g} s"
            self._refuse(408, "Request timeout", "head_too_slow", said, seconds=HEAD_SECONDS)

    def _refuse(self, status: int, title: str, code: str, detail: str, **more: float) -> None:
        """Answer with a problem, unless another answer is under way, and close."""
        if self._answered:
            problem = {"type": f"urn:hurlbat:problem:{code}", "title": title, "status": status, "code": code}
            body = orjson.dumps({**problem, "detail": detail, **more})
            head = [
                f"HTTP/1.1 {status} {title}",
                "content-type: application/problem+json",
                f"content-length: {len(body)}",
                "connection: close",
            ]
            self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.transport.close()
