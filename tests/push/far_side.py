"""The far side of a push for tests: servers that misbehave byte by byte, and certificates for them."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hurlbat_dispatcher.push.exchange import Limits, TransportFailure
from hurlbat_dispatcher.push.guard import Guard, parse_networks
from hurlbat_dispatcher.push.transport import Transport

LOOPBACK = Guard(parse_networks("127.0.0.0/8"))
LONG = 120.0
"""Seconds that no exchange of a test takes, however long its machine stands still."""
PATIENT = Limits(total=LONG, connect=LONG, head=LONG)
FOREVER = 3600.0

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> tuple[bytes, bytes]:
        """Read one request: its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        return head, await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop raises a bare RuntimeError then
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, pause: float) -> None:
        """Say it one byte at a time."""
        for byte in data:
            await self.say(bytes([byte]))
            await asyncio.sleep(pause)

    def reset(self) -> None:
        """Close the connection with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Script = Callable[[Talk], Awaitable[None]]


@dataclass
class Server:
    """A listening server; `connections` counts what was accepted."""

    port: int = 0
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/hook", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def listening(script: Script, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """Serve each connection by the script, then close it."""
    found = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found.connections += 1
        task = asyncio.current_task()
        assert task is not None
        found.tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, asyncio.CancelledError):
                await script(Talk(reader, writer))
        finally:
            found.tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=ssl_context)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in list(found.tasks):
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
        await server.wait_closed()


def answering(*parts: bytes, then: Callable[[Talk], Awaitable[None]] | None = None) -> Script:
    """Return a script that answers one request with these bytes, part by part, and then does what `then` says."""

    async def script(talk: Talk) -> None:
        await talk.request()
        for part in parts:
            await talk.say(part)
        if then is not None:
            await then(talk)

    return script


async def hang(_: Talk) -> None:
    """Say nothing more."""
    await asyncio.sleep(FOREVER)


async def polite(talk: Talk) -> None:
    """Answer every request as it should be."""
    while True:
        await talk.request()
        await talk.say(OK)


@asynccontextmanager
async def transporting(transport: Transport | None = None) -> AsyncIterator[Transport]:
    """Run a transport that may speak to loopback addresses."""
    transport = transport or Transport(LOOPBACK)
    await transport.start()
    try:
        yield transport
    finally:
        await transport.aclose()


async def fetch(transport: Transport, url: str, limits: Limits = PATIENT, body: bytes = b"{}") -> tuple[int, bytes]:
    """Post and read the whole answer."""
    async with transport.post(url, headers={"accept-encoding": "identity"}, body=body, limits=limits) as response:
        return response.status, await response.read()


async def failure_of(transport: Transport, url: str, limits: Limits = PATIENT) -> TransportFailure:
    """Post, and return how that failed."""
    try:
        answer = await fetch(transport, url, limits)
    except TransportFailure as failure:
        return failure
    raise AssertionError(f"no failure but {answer!r}")


@dataclass(frozen=True)
class Authority:
    """A certificate authority that only the test trusts."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def trust(self) -> ssl.SSLContext:
        """Return a client's context that trusts this authority alone."""
        text = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        return ssl.create_default_context(cadata=text)

    def serve(self, *, host: str = "127.0.0.1", days: int = 1) -> ssl.SSLContext:
        """Return a server's context with a certificate for the host that ends in so many days."""
        return _server_context(self.folder, self.key, self.certificate.subject, host, days)


def make_authority(folder: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(folder, key, certificate)


def _server_context(
    folder: Path, issuer_key: ec.EllipticCurvePrivateKey, issuer: x509.Name, host: str, days: int
) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        name = x509.DNSName(host)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - datetime.timedelta(days=1, hours=1))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    path = folder / f"{certificate.serial_number}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def localhost(host: str) -> Sequence[str]:
    """Take the place of the system's resolver: every name is this machine."""
    return ["127.0.0.1"]
