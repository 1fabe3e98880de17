"""The one way out: posts a request and hands its answer over piece by piece, bounded in time and size.

Any `httpx.AsyncBaseTransport` can take the network's place (respx, a simulator); all that goes wrong comes out as
`TransportFailure`. Redirects are not followed, proxy variables are not read, nothing is decompressed.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache

import httpx

from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.connections import EXTENSION, GuardedTransport
from hurlbat_dispatcher.push.exchange import Exchange, LastLook, Limits, Phase, TransportFailure
from hurlbat_dispatcher.push.guard import Guard
from hurlbat_dispatcher.push.record import Record
from hurlbat_dispatcher.push.resolver import Lookup, Resolver
from hurlbat_dispatcher.push.room import MAX_CONNECTIONS

Network = httpx.AsyncBaseTransport
"""What can take the network's place; named here so that nobody else needs httpx."""


class Response:
    """An answer whose head has come. Its body can be read once, by `chunks`, `read` or `beginning`."""

    def __init__(self, response: httpx.Response, exchange: Exchange) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._exchange = exchange

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes. Raises `TransportFailure`, also for encodings that were not offered."""
        self._check_encoding()
        left = self._exchange.limits.size
        stream = self._response.stream
        assert isinstance(stream, httpx.AsyncByteStream)
        async for chunk in stream:
            left -= len(chunk)
            if left < 0:
                size = self._exchange.limits.size
                message = f"the answer is larger than {size:,} bytes"
                raise TransportFailure(ErrorCode.RESPONSE_TOO_LARGE, message, sent=True, heard=True)
            self._exchange.heard_chunk(chunk)
            yield chunk

    async def read(self) -> bytes:
        """Return the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def beginning(self, size: int) -> bytes:
        """Return the first bytes of the body, and what came with them; nothing if it cannot be read."""
        found = b""
        try:
            async with aclosing(self.chunks()) as chunks:
                async for chunk in chunks:
                    found += chunk
                    if len(found) >= size:
                        break
        except TransportFailure:
            return found[:size]
        return found[:size]

    def go_on(self) -> None:
        """Let the body take as long as it likes: from now on only `silence` bounds it, and no longer `total`."""
        self._exchange.go_on()

    def finish(self, within: float) -> None:
        """Give the body so many seconds to end; then whoever reads is woken, and `post` ends as if it had."""
        self._exchange.finish(within)

    def _check_encoding(self) -> None:
        for name, fine in (("content-encoding", "identity"), ("transfer-encoding", "chunked")):
            given = self.headers.get(name, fine).strip().lower()
            if given not in (fine, ""):
                message = f"the answer came with {name}: {given[:80]}, which was not offered"
                if name == "content-encoding":
                    message += "; a middleware or a proxy in front of the worker compresses: exempt the worker's path"
                raise TransportFailure(ErrorCode.BAD_ENCODING, message, sent=True, heard=True)


class Transport:
    """Posts requests. `transport` takes the place of the network, `lookup` that of the system's resolver."""

    def __init__(
        self,
        guard: Guard,
        *,
        transport: Network | None = None,
        proxy: str | None = None,
        max_connections: int = MAX_CONNECTIONS,
        ssl_context: ssl.SSLContext | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._guard = guard
        self._given = transport
        self._proxy = proxy
        self._max_connections = max_connections
        self._ssl_context = ssl_context
        self._lookup = lookup
        self._network: GuardedTransport | None = None

    async def start(self) -> None:
        """Get ready to post."""
        if self._given is None:
            self._network = GuardedTransport(
                self._guard,
                Resolver(self._lookup),
                proxy=self._proxy,
                max_connections=self._max_connections,
                ssl_context=self._ssl_context,
            )

    async def aclose(self) -> None:
        """Close every connection; requests on their way fail."""
        if self._network is not None:
            network, self._network = self._network, None
            await network.aclose()

    @asynccontextmanager
    async def post(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        limits: Limits,
        last_look: LastLook | None = None,
        record: Record | None = None,
    ) -> AsyncIterator[Response]:
        """Post the body and yield the answer once its head has come. Raises `TransportFailure`.

        Leaving the block early closes the connection. `last_look` may forbid the first byte, `record` is filled.
        """
        transport = self._given or self._network
        if transport is None:
            raise RuntimeError("the transport was not started")
        parsed = _url(url)
        exchange = Exchange(limits, https=parsed.scheme == "https", last_look=last_look)
        if record is not None:
            record.exchange = exchange
        request = httpx.Request("POST", parsed, headers=headers, content=body, extensions={EXTENSION: exchange})
        try:
            async with exchange.timer:
                if self._given is not None:
                    if not exchange.may_send():
                        raise exchange.refused()
                    exchange.enter(Phase.SENDING)
                response = await transport.handle_async_request(request)
                try:
                    if self._given is not None:
                        exchange.enter(Phase.READING)
                    if record is not None:
                        record.status, record.answer = response.status_code, response.headers.multi_items()
                    _check_status(response)
                    yield Response(response, exchange)
                finally:
                    await response.aclose()
        except TimeoutError as error:
            if not exchange.timer.expired():
                raise
            if not exchange.finishing:
                raise exchange.timed_out() from error
        except httpx.HTTPError as error:
            raise _translate(error) from error
        finally:
            exchange.over()


@lru_cache(maxsize=4_096)
def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


def _check_status(response: httpx.Response) -> None:
    if not 200 <= response.status_code <= 599:
        message = f"the answer is not HTTP/1.1: status {response.status_code}"
        raise TransportFailure(ErrorCode.PROTOCOL_ERROR, message, sent=True, heard=True)


def _translate(error: httpx.HTTPError) -> TransportFailure:
    """Put what other transports raise into our words."""
    message = str(error) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return TransportFailure(ErrorCode.CONNECT_TIMEOUT, message, sent=False)
        case httpx.PoolTimeout():
            return TransportFailure(ErrorCode.CONNECT_FAILED, message, sent=False, local=True)
        case httpx.ProxyError():
            return TransportFailure(ErrorCode.PROXY_ERROR, message, sent=False, local=True)
        case httpx.ConnectError():
            code = ErrorCode.CONNECT_REFUSED if "refused" in message.lower() else ErrorCode.CONNECT_FAILED
            return TransportFailure(code, message, sent=False)
        case httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return TransportFailure(ErrorCode.CONNECT_FAILED, message, sent=False)
        case httpx.TimeoutException():
            return TransportFailure(ErrorCode.ATTEMPT_TIMEOUT, message, sent=True)
        case httpx.RemoteProtocolError():
            return TransportFailure(ErrorCode.PROTOCOL_ERROR, message, sent=True)
        case httpx.DecodingError():
            return TransportFailure(ErrorCode.BAD_ENCODING, message, sent=True)
    return TransportFailure(ErrorCode.CONNECTION_RESET, message, sent=True)
