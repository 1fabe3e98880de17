"""The HTTP side: one request at a time, exactly the bytes that are wanted, and when each piece of an answer came.

Nothing is followed, retried by policy or taken from proxies, as a server does it. An answer that is compressed although
it must not be is read all the same, so that one check tells of it and the others of what is inside.
"""

import asyncio
import json
import os
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx

CONNECT_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 2.0
"""A connection that was idle for longer is not used again, as a server does it."""
MAX_ANSWER_BYTES: Final = 32 * 1_048_576
SHOWN_CHARS: Final = 200

Sent = Mapping[str, str | bytes]
"""Headers to send; their names go out as they are written."""


class Trouble(Exception):
    """There is no (whole) answer; the message is a sentence without its end."""


class Unreachable(Trouble):
    """Nothing was sent: there is no connection."""


class Broken(Trouble):
    """The connection broke before the answer was complete."""


class Silent(Trouble):
    """There is no answer in time."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of an answer, and when they came (seconds of the monotonic clock)."""

    at: float
    data: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and how long it took in seconds."""

    status: int
    headers: httpx.Headers
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300

    @property
    def told(self) -> str:
        """The status, and the beginning of what the body says, for people."""
        words = _words(self.body)
        return f"{self.status}: {words}" if words else str(self.status)


class Head:
    """An answer whose head is there; `pieces` gives its body as it comes."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._decode = _decoder(response.headers.get("content-encoding", ""))

    async def pieces(self) -> AsyncIterator[Piece]:
        """Give what comes, the moment it comes. Raises `Broken`."""
        left = MAX_ANSWER_BYTES
        try:
            async for data in self._response.aiter_raw():
                plain = self._decode.decompress(data, left + 1) if self._decode else data
                left -= len(plain)
                if left < 0:
                    raise Broken(f"the answer has more than {MAX_ANSWER_BYTES:,} bytes")
                if plain:
                    yield Piece(time.monotonic(), plain)
        except zlib.error as error:
            raise Broken("the answer says that it is compressed, and cannot be read as that") from error
        except httpx.HTTPError as error:
            raise trouble_of(error) from error


class Probe:
    """Sends requests to one URL, with the extra headers that the worker wants."""

    def __init__(self, url: str, headers: Mapping[str, str], patience: float) -> None:
        self.url = url
        self.patience = patience
        self._extra = dict(headers)
        self._client = httpx.AsyncClient(
            follow_redirects=False,
            trust_env=False,
            verify=ssl.create_default_context(),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=IDLE_SECONDS),
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._client.aclose()

    async def get(self) -> Answer:
        """Ask by GET, unsigned."""
        return await self._whole("GET", {"accept-encoding": "identity"}, None, self.patience)

    async def post(self, headers: Sent, body: bytes, patience: float | None = None) -> Answer:
        """Post a body and return the whole answer. Raises `Trouble`."""
        return await self._whole("POST", headers, body, patience or self.patience)

    @asynccontextmanager
    async def open(self, headers: Sent, body: bytes, patience: float) -> AsyncIterator[Head]:
        """Post a body and give the answer as soon as its head is there; that may take so many seconds.

        Raises `Trouble`.
        """
        response = await self._send("POST", headers, body, patience)
        try:
            yield Head(response)
        finally:
            await response.aclose()

    async def _whole(self, method: str, headers: Sent, body: bytes | None, patience: float) -> Answer:
        began = time.monotonic()
        try:
            async with asyncio.timeout(patience):
                response = await self._send(method, headers, body, patience)
                try:
                    parts = [piece.data async for piece in Head(response).pieces()]
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise Silent(f"there was no whole answer within {patience:g} s") from error
        return Answer(response.status_code, response.headers, b"".join(parts), time.monotonic() - began)

    async def _send(self, method: str, headers: Sent, body: bytes | None, patience: float) -> httpx.Response:
        try:
            return await self._once(method, headers, body, patience)
        except Broken:
            # it may have been an idle connection that the other side was just closing; a worker that breaks connections
            # breaks the next one as well
            return await self._once(method, headers, body, patience)

    async def _once(self, method: str, headers: Sent, body: bytes | None, patience: float) -> httpx.Response:
        listed = [(name.encode(), _bytes(value)) for name, value in {**self._extra, **headers}.items()]
        request = self._client.build_request(method, self.url, headers=listed, content=body)
        try:
            async with asyncio.timeout(patience):
                return await self._client.send(request, stream=True)
        except TimeoutError as error:
            raise Silent(f"there was no answer within {patience:g} s") from error
        except httpx.HTTPError as error:
            raise trouble_of(error) from error


def shown(body: bytes) -> str:
    """Return the beginning of a body as one line for people."""
    words = " ".join(body[: SHOWN_CHARS * 4].decode("utf-8", "replace").split())
    return words if len(words) <= SHOWN_CHARS else f"{words[:SHOWN_CHARS]}…"


def _words(body: bytes) -> str:
    """Return what an answer says for people: the detail of a problem (RFC 9457), else how it begins."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return shown(body)
    detail = said.get("detail") if isinstance(said, dict) else None
    return shown(detail.encode("utf-8", "replace")) if isinstance(detail, str) else shown(body)


def trouble_of(error: httpx.HTTPError) -> Trouble:
    """Return what went wrong, in words."""
    match error:
        case httpx.ConnectTimeout():
            return Unreachable(f"there was no connection within {CONNECT_SECONDS:g} s")
        case httpx.ConnectError():
            return Unreachable(_reason(error))
        case httpx.RemoteProtocolError() if "without sending" in str(error) or "incomplete" in str(error):
            return Broken("the connection was closed before the answer was complete")
        case httpx.RemoteProtocolError():
            return Broken(f"the answer is not good HTTP: {error}")
        case httpx.ReadError() | httpx.WriteError() | httpx.CloseError():
            return Broken("the connection was reset")
    return Broken(str(error) or type(error).__name__)


def _reason(error: BaseException) -> str:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if isinstance(found, ssl.SSLError):
            if found.reason == "WRONG_VERSION_NUMBER":
                return "the port does not speak TLS, so its URL begins with http://"
            return f"TLS failed: {getattr(found, 'verify_message', '') or found.reason or found}"
        if isinstance(found, socket.gaierror):
            return f"its name cannot be resolved: {found.strerror}"
        if isinstance(found, OSError) and found.errno:
            return os.strerror(found.errno).lower()
        found = found.__cause__ or found.__context__
    return str(error) or "the connection failed"


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1")


def _decoder(encoding: str) -> "zlib._Decompress | None":
    match encoding.strip().lower():
        case "gzip" | "x-gzip":
            return zlib.decompressobj(16 + zlib.MAX_WBITS)
        case "deflate":
            return zlib.decompressobj()
    return None
