"""Keeps outgoing requests away from where they must not go (server-side request forgery).

A worker's URL is judged twice: its text when it is registered, without a look at the network, and every address that
it resolves to each time a connection is made. What the operator lists in `HURLBAT_ALLOWED_NETWORKS` is open, and only
there may http without TLS be spoken.
"""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from hurlbat_dispatcher.domain.destination import (
    FORBIDDEN_PORTS,
    Address,
    Destination,
    DestinationRefused,
    is_local_name,
    is_localhost,
    is_metadata_name,
    is_neighbour_name,
    read_url,
    why_forbidden,
)
from hurlbat_dispatcher.errors import Invalid

Networks = tuple[IPv4Network | IPv6Network, ...]

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 8_192
_LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_LOCALHOST: Final = (ip_address("127.0.0.1"), ip_address("::1"))
_NOBODYS: Final = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}
"""Where these can be bound, the machine binds to any address (`ip_nonlocal_bind`), and that tells nothing."""
_OWN_HEADERS: Final = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host"),
        *("keep-alive", "proxy-authorization", "proxy-connection", "te", "traceparent", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
_OWN_PREFIXES: Final = ("webhook-", "hurlbat-")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class DestinationBlocked(Exception):
    """A connection was about to be made to an address that must not be called."""


@dataclass(frozen=True, slots=True)
class Guard:
    """Judges destinations. `own` holds the (address, port) pairs where this server itself listens."""

    allowed: Networks = ()
    own: frozenset[tuple[str, int]] = frozenset()

    def check_url(self, url: str) -> Destination:
        """Return the URL's parts, or raise `Invalid` (field `url`) with what is wrong. Asks nothing of the network."""
        try:
            destination = read_url(url)
            self._check(destination)
        except DestinationRefused as refused:
            raise Invalid(refused.code, refused.sentence, field="url") from refused
        return destination

    def check_address(self, address: str, port: int, *, https: bool) -> None:
        """Raise `DestinationBlocked` unless this very address may be dialled."""
        try:
            parsed = ip_address(address)
        except ValueError as error:
            raise DestinationBlocked(f"{address} is not an address") from error
        if self._is_own(parsed, port):
            raise DestinationBlocked(f"{address} port {port} is this server itself")
        if self._is_allowed(parsed):
            return
        why = why_forbidden(parsed)
        if why is not None:
            raise DestinationBlocked(f"{address} may not be called ({why}); it is not in HURLBAT_ALLOWED_NETWORKS")
        if port in FORBIDDEN_PORTS:
            raise DestinationBlocked(f"{address} port {port} belongs to another service")
        if not https:
            raise DestinationBlocked(f"{address} may only be called by https; it is not in HURLBAT_ALLOWED_NETWORKS")

    def _check(self, at: Destination) -> None:
        if (at.host, at.port) in self.own or (at.literal is not None and self._is_own(at.literal, at.port)):
            raise DestinationRefused("destination_self", "the URL is this server's own address")
        if at.literal is not None:
            if self._is_allowed(at.literal):
                return
            why = why_forbidden(at.literal)
            if why is not None:
                raise DestinationRefused(
                    "destination_blocked",
                    f"{at.host} may not be called ({why}); name its network in HURLBAT_ALLOWED_NETWORKS to allow it",
                )
        elif is_metadata_name(at.host):
            raise DestinationRefused("destination_blocked", f"{at.host} is a cloud's own service and is never called")
        elif is_local_name(at.host):
            self._check_local_name(at)
        # a name of the neighbourhood may be in an allowed network, which is judged when it is dialled
        if self.allowed and at.literal is None and is_neighbour_name(at.host):
            return
        if at.port in FORBIDDEN_PORTS:
            raise DestinationRefused("url_port", f"port {at.port} belongs to another service and is not called")
        if at.scheme == "http":
            raise DestinationRefused(
                "url_https_required", "the URL must start with https://; http is for HURLBAT_ALLOWED_NETWORKS only"
            )

    def _check_local_name(self, at: Destination) -> None:
        if not self.allowed or (is_localhost(at.host) and not self._allows_loopback()):
            raise DestinationRefused(
                "destination_blocked",
                f"{at.host} is a name of this machine or its neighbours; "
                "name its network in HURLBAT_ALLOWED_NETWORKS to allow it",
            )
        if is_localhost(at.host) and any(self._is_own(address, at.port) for address in _LOCALHOST):
            raise DestinationRefused("destination_self", "the URL is this server's own address")

    def _is_allowed(self, address: Address) -> bool:
        return any(network.version == address.version and address in network for network in self.allowed)

    def _allows_loopback(self) -> bool:
        return any(
            network.version == loopback.version and network.overlaps(loopback)
            for network in self.allowed
            for loopback in _LOOPBACK
        )

    def _is_own(self, address: Address, port: int) -> bool:
        if (str(address), port) in self.own:
            return True
        everywhere = ("0.0.0.0", port) in self.own or ("::", port) in self.own
        return everywhere and (address.is_loopback or address.is_unspecified or _is_of_this_machine(address))


def own_destinations(host: str, port: int, external_url: str) -> frozenset[tuple[str, int]]:
    """Return the pairs for `Guard.own` of a server that listens at `host` and `port` and is reached by a URL."""
    bound = {(_plain(host), port)}
    if is_localhost(_plain(host)):
        bound |= {(str(address), port) for address in _LOCALHOST}
    external = urlsplit(external_url)
    if external.hostname:
        bound.add((_plain(external.hostname), external.port or (443 if external.scheme == "https" else 80)))
    return frozenset(bound)


def _plain(host: str) -> str:
    """Return a host as `Destination.host` has it."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        return str(ip_address(name))
    except ValueError:
        return name


def _is_of_this_machine(address: Address) -> bool:
    """Tell whether this machine has the address, which is when a socket can be bound to it. Sends nothing."""
    return _can_bind(address) and not _can_bind(_NOBODYS[address.version])


def _can_bind(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


def parse_networks(text: str) -> Networks:
    """Read a list of networks such as `10.0.0.0/8, fd00::/8`. Raises `ValueError` with a sentence."""
    networks = []
    for part in re.split(r"[\s,]+", text.strip()):
        if not part:
            continue
        try:
            networks.append(ip_network(part))
        except ValueError as error:
            raise ValueError(f"{part} is not a network such as 10.0.0.0/8 or fd00::/8: {error}") from error
    return tuple(networks)


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a worker's extra headers with names in lower case, or raise `Invalid` (field `headers`)."""
    if len(headers) > MAX_HEADERS:
        message = f"a worker has at most {MAX_HEADERS} headers"
        raise Invalid("header_invalid", message, field="headers", limit=MAX_HEADERS)
    checked: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise Invalid("header_invalid", f"{name[:80]!r} is not a header name", field="headers")
        if lower in _OWN_HEADERS or lower.startswith(_OWN_PREFIXES):
            raise Invalid("header_forbidden", f"the header {lower} is set by Hurlbat itself", field="headers")
        if lower in checked:
            raise Invalid("header_invalid", f"the header {lower} is given twice", field="headers")
        if not _VALUE.fullmatch(value):
            raise Invalid("header_invalid", f"the value of {lower} must be printable ASCII", field="headers")
        checked[lower] = value
    if sum(len(name) + len(value) + 4 for name, value in checked.items()) > MAX_HEADER_BYTES:
        raise Invalid(
            "header_invalid",
            f"a worker's headers have at most {MAX_HEADER_BYTES:,} bytes together",
            field="headers",
            limit=MAX_HEADER_BYTES,
        )
    return checked
