"""httpx's transport, on aiohttp's connections.

httpx's own pool is slow with many requests in flight and is poisoned by cancelled ones; the bridge from PyPI maps too
much of what went wrong to one exception. So this is our own: guarded addresses, one phase per step (`Exchange`), exact
causes. It raises `TransportFailure` and knows nothing of what is sent.

The context variable carries the exchange to the places that aiohttp calls without telling for which request: the
resolver, the socket factory and the connection's protocol. All of them run in the request's own context.
"""

import errno
import functools
import io
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any, Final

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from yarl import URL

from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.push.exchange import MAX_HEAD_BYTES, Exchange, Phase, TransportFailure
from hurlbat_dispatcher.push.guard import DestinationBlocked, Guard
from hurlbat_dispatcher.push.resolver import Resolver
from hurlbat_dispatcher.push.room import MAX_CONNECTIONS, Room

EXTENSION: Final = "hurlbat.exchange"
"""The request's extension that holds its `Exchange`."""
IDLE_SECONDS: Final = 2.0
"""A connection that was idle for longer is not used again: servers close theirs, and the reset would be charged."""

_HEADERS_OF_AIOHTTP: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_LARGE_BODY: Final = 1_000_000
_OUT_OF_SOCKETS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL})

_EXCHANGE: ContextVar[Exchange] = ContextVar("hurlbat_exchange")


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends requests to addresses that the guard has judged. Must be made inside a running loop."""

    def __init__(
        self,
        guard: Guard,
        resolver: Resolver,
        *,
        proxy: str | None = None,
        max_connections: int = MAX_CONNECTIONS,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = guard
        self._resolver = resolver
        self._proxy = URL(proxy) if proxy else None
        self._room = Room(max_connections)
        connector = _Connector(
            guard,
            resolver=_GuardedResolver(guard, resolver),
            ssl=_timed(ssl_context or ssl.create_default_context()),
            limit=0,  # the room is ours, shared by need
            keepalive_timeout=IDLE_SECONDS,
            use_dns_cache=False,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            skip_auto_headers=_HEADERS_OF_AIOHTTP,
            auto_decompress=False,
            trust_env=False,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request and return its answer as soon as the head has come. Raises `TransportFailure`."""
        exchange: Exchange = request.extensions[EXTENSION]
        exchange.proxied = self._proxy is not None
        exchange.room = self._room.most
        exchange.enter(Phase.QUEUED)
        worker = str(request.url)
        await self._room.enter(worker)
        leave = functools.partial(self._room.leave, worker)
        try:
            answer = await self._send(request, exchange)
        except BaseException:
            leave()
            raise
        exchange.enter(Phase.READING)
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer, exchange, leave))

    async def _send(self, request: httpx.Request, exchange: Exchange) -> aiohttp.ClientResponse:
        token = _EXCHANGE.set(exchange)
        try:
            if exchange.proxied:
                self._check_literal(request.url, https=exchange.https)
            body = request.content
            answer = await self._session.request(
                request.method,
                _url(str(request.url)),
                headers=request.headers,
                # a BytesIO is written in pieces, which keeps the loop free
                data=io.BytesIO(body) if len(body) > _LARGE_BODY else body,
                allow_redirects=False,
                proxy=self._proxy,
            )
        except (aiohttp.ClientError, DestinationBlocked, OSError, ValueError) as error:
            raise _failure(error, exchange) from error
        finally:
            _EXCHANGE.reset(token)
        if answer.status == 407 and exchange.proxied:
            answer.close()
            raise TransportFailure(
                ErrorCode.PROXY_ERROR, "the proxy wants other credentials (407)", sent=False, local=True
            )
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._resolver.close()

    def _check_literal(self, url: httpx.URL, *, https: bool) -> None:
        """Judge an address in the URL, as the proxy would dial it; names are resolved by the proxy and judged there."""
        host = url.host
        if ":" in host or host.replace(".", "").isdigit():
            self._guard.check_address(host, url.port or (443 if https else 80), https=https)


class _Body(httpx.AsyncByteStream):
    """The answer's body as it comes off the wire, neither decoded nor cut."""

    def __init__(self, answer: aiohttp.ClientResponse, exchange: Exchange, leave: Callable[[], None]) -> None:
        self._answer = answer
        self._exchange = exchange
        self._leave: Callable[[], None] | None = leave

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._answer.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (aiohttp.ClientError, OSError) as error:
            raise _failure(error, self._exchange) from error

    async def aclose(self) -> None:
        self._answer.close()
        if self._leave is not None:
            self._leave()
            self._leave = None


class _Connector(aiohttp.TCPConnector):
    """aiohttp's connector, with our protocol on its connections and every dialled address judged."""

    def __init__(self, guard: Guard, **options: Any) -> None:
        super().__init__(socket_factory=functools.partial(_guarded_socket, guard), **options)
        protocol: type[ResponseHandler] = _Connection
        self._factory = functools.partial(protocol, loop=self._loop)


class _Connection(ResponseHandler):
    """aiohttp's protocol, telling the exchange what happens on the wire and bounding what comes before a head."""

    _exchange: Exchange | None = None

    def set_response_params(self, **params: Any) -> None:
        """Note that a request is about to be written; aiohttp calls this first, without a timer for CONNECT."""
        self._exchange = _EXCHANGE.get()
        if params.get("timer") is None:
            self._exchange.enter(Phase.TUNNELLING)
        elif self._exchange.may_send():
            self._exchange.enter(Phase.SENDING)
        elif self.transport is not None:
            self.transport.abort()  # nothing can be written any more
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """Count what comes, and drop the connection when no head is found in all of it."""
        exchange = self._exchange
        if exchange is not None and data:
            if exchange.phase is not Phase.READING and exchange.received > MAX_HEAD_BYTES:
                if self.transport is not None:
                    self.transport.close()
                message = f"no complete head in {MAX_HEAD_BYTES:,} bytes"
                self.set_exception(HttpProcessingError(code=400, message=message))
                return
            exchange.heard(len(data))
        super().data_received(data)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take the head of an answer; after one that is not HTTP's, the connection is not used again."""
        if not 100 <= data[0].code <= 599:
            self.force_close()
        super().feed_data(data, size)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remember what ended the connection, which aiohttp tells in words only."""
        if self._exchange is not None:
            self._exchange.lost = exc
        super().connection_lost(exc)


class _TimedContext(ssl.SSLContext):
    """A context that tells the exchange when its handshake begins."""

    def wrap_bio(self, *args: Any, **options: Any) -> ssl.SSLObject:
        """Begin a handshake, as the event loop asks for it."""
        exchange = _EXCHANGE.get(None)
        if exchange is not None:
            exchange.enter(Phase.HANDSHAKING)
        return super().wrap_bio(*args, **options)


def _timed(context: ssl.SSLContext) -> ssl.SSLContext:
    context.__class__ = _TimedContext
    return context


class _GuardedResolver(AbstractResolver):
    """Gives aiohttp addresses only if all of them are good: any bad answer blocks the name."""

    def __init__(self, guard: Guard, resolver: Resolver) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return every address of the name, each judged."""
        exchange = _EXCHANGE.get()
        exchange.enter(Phase.RESOLVING)
        addresses = await self._resolver.addresses(host)
        if not addresses:
            raise OSError(f"{host} has no address")
        if not exchange.proxied:
            for address in addresses:
                self._guard.check_address(address, port, https=exchange.https)
        exchange.enter(Phase.CONNECTING)
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        """Do nothing: the resolver belongs to the transport."""


def _guarded_socket(guard: Guard, address: tuple[Any, ...]) -> socket.socket:
    """Make the socket for an address that is dialled next; addresses written in URLs meet no resolver before."""
    family, kind, protocol, _, (host, port, *_) = address
    exchange = _EXCHANGE.get()
    if not exchange.proxied:
        guard.check_address(host, port, https=exchange.https)
    if exchange.phase is Phase.QUEUED:
        exchange.enter(Phase.CONNECTING)
    return socket.socket(family, kind, protocol)


@functools.lru_cache(maxsize=4_096)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


def _failure(error: Exception, exchange: Exchange) -> TransportFailure:
    """Say in our words what went wrong, and whether the worker may have seen the request."""
    if isinstance(error, DestinationBlocked):
        return TransportFailure(ErrorCode.DESTINATION_BLOCKED, str(error), sent=False)
    if exchange.refusal is not None:
        return exchange.refused()
    if exchange.phase < Phase.SENDING:
        return _not_sent(error, exchange)
    heard = exchange.received > 0
    reset = isinstance(exchange.lost, OSError) or isinstance(error, aiohttp.ClientOSError)
    if isinstance(error, aiohttp.ServerDisconnectedError) and not heard:
        return TransportFailure(ErrorCode.CONNECTION_RESET, "the worker closed the connection unanswered", sent=True)
    if reset and not isinstance(error, aiohttp.ClientResponseError):
        message = "the connection broke after sending"
        return TransportFailure(ErrorCode.CONNECTION_RESET, message, sent=True, heard=heard)
    message = f"the answer is not HTTP/1.1: {_words(error)}"
    return TransportFailure(ErrorCode.PROTOCOL_ERROR, message, sent=True, heard=heard)


def _not_sent(error: Exception, exchange: Exchange) -> TransportFailure:
    local = False
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            code, message = ErrorCode.TLS_ERROR, f"TLS failed: {_words(error)}"
        case _ if exchange.proxied:
            code, message, local = ErrorCode.PROXY_ERROR, f"the proxy failed: {_words(error)}", True
        case aiohttp.ClientConnectorDNSError():
            code, message = ErrorCode.DNS_ERROR, f"the name cannot be resolved: {_words(error.os_error)}"
        case aiohttp.ClientConnectorError(os_error=ConnectionResetError() | ConnectionAbortedError()) if exchange.https:
            code, message = ErrorCode.TLS_ERROR, "the connection was closed during the TLS handshake"
        case OSError(errno=number) if number in _OUT_OF_SOCKETS:
            code, message, local = ErrorCode.CONNECT_FAILED, f"this server is out of sockets: {_words(error)}", True
        case OSError(errno=errno.ECONNREFUSED):
            code, message = ErrorCode.CONNECT_REFUSED, "the connection was refused"
        case OSError(errno=errno.ETIMEDOUT):
            code, message = ErrorCode.CONNECT_TIMEOUT, "no connection: the network timed out"
        case _:
            code, message = ErrorCode.CONNECT_FAILED, f"no connection: {_words(error)}"
    return TransportFailure(code, message, sent=False, local=local)


def _words(error: BaseException) -> str:
    text = error.message if isinstance(error, aiohttp.ClientResponseError) else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
