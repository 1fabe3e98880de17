"""Where a request may go: the rules of a worker's URL and the table of addresses that are never called.

Pure rules without I/O; what an installation allows on top of them is the guard's business. A URL is read by one strict
grammar of our own, narrower than RFC 3986, so that no two parsers behind it can disagree about the host: ASCII only, no
user info, no backslash, no fragment, IPv4 in its canonical form.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

MAX_URL_BYTES: Final = 2_048

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

FORBIDDEN_NETWORKS: Final[tuple[tuple[Network, str], ...]] = tuple(
    (ip_network(network), why)
    for network, why in (
        ("0.0.0.0/8", "this host"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared by carriers"),
        ("127.0.0.0/8", "loopback"),
        ("168.63.129.16/32", "a cloud's own service"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarks"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::1/128", "loopback"),
        ("::/96", "this host, or IPv4 in disguise"),
        ("::ffff:0:0/96", "IPv4 in disguise"),
        ("::ffff:0:0:0/96", "IPv4 in disguise"),
        ("64:ff9b::/96", "IPv4 in disguise"),
        ("64:ff9b:1::/48", "IPv4 in disguise"),
        ("100::/64", "a black hole"),
        ("2001::/23", "reserved, with Teredo"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "IPv4 in disguise"),
        ("3fff::/20", "documentation"),
        ("5f00::/16", "segment routing"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
"""IANA's special-purpose registries and clouds, written out: `ipaddress.is_global` calls several of these global."""

_WEB_FORBIDS: Final = (
    "1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 "
    "119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 "
    "636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 "
    "6697 10080"
)
_SERVICES: Final = "445 1433 1521 2375 2376 2379 2380 3306 3389 5432 5672 5900 6379 9042 9092 9200 11211 27017"
FORBIDDEN_PORTS: Final = frozenset(map(int, f"{_WEB_FORBIDS} {_SERVICES}".split()))
"""The ports that the Fetch standard blocks, and those of databases, caches, brokers and remote control."""

_LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain")
_NEIGHBOURS: Final = (".localhost", ".local", ".internal", ".localdomain", ".svc", ".lan", ".home.arpa")
"""What private networks and clusters name their members; `.cluster.local` is one of `.local`."""
_METADATA_NAMES: Final = frozenset(
    {
        *("metadata.google.internal", "metadata.goog", "metadata", "metadata.azure.internal", "instance-data"),
        *("instance-data.ec2.internal", "metadata.tencentyun.com", "metadata.packet.net"),
        "metadata.platformequinix.com",
    }
)
"""Where clouds hand out credentials to whoever asks from inside."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_URL = re.compile(r"https?://(?P<authority>[^/?]*)(?P<rest>[/?].*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]*))?")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_REST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%|\[\]{}^-]*")


class DestinationRefused(ValueError):
    """The URL or address may not be called; `code` is for programs, the message for whoever registers it."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL's parts: `host` in lower case without brackets or a trailing dot, `literal` where it is an address."""

    url: str
    scheme: str
    host: str
    port: int
    literal: Address | None


def read_url(url: str) -> Destination:
    """Take a worker's URL apart. Raises `DestinationRefused` for what is not a plain http(s) URL in canonical form."""
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
        raise DestinationRefused("url_invalid", "the URL must not hold spaces or control characters")
    if "\\" in url:
        raise DestinationRefused("url_invalid", "the URL must not hold a backslash")
    if len(url.encode("utf-8", "replace")) > MAX_URL_BYTES:
        raise DestinationRefused("url_too_long", f"the URL must not be longer than {MAX_URL_BYTES:,} bytes")
    scheme = _SCHEME.match(url)
    if scheme is None or scheme[1].lower() not in ("http", "https"):
        raise DestinationRefused("url_scheme", "the URL must start with https:// (or http:// in an allowed network)")
    whole = _URL.fullmatch(url.partition("#")[0])
    if whole is None:
        raise DestinationRefused("url_invalid", f"the URL must go on with // after {scheme[1]}:")
    if "@" in whole["authority"]:
        raise DestinationRefused(
            "url_userinfo", "the URL must not hold a user or password; put credentials into the worker's headers"
        )
    if "#" in url:
        raise DestinationRefused("url_invalid", "the URL must not have a fragment (#…)")
    authority = _AUTHORITY.fullmatch(whole["authority"])
    if authority is None or not authority["host"]:
        raise DestinationRefused("url_invalid", "the URL names no host")
    host, literal = _host(authority["host"].lower())
    if not _REST.fullmatch(whole["rest"] or ""):
        raise DestinationRefused("url_invalid", "the path and query must be ASCII; percent-encode everything else")
    name = scheme[1].lower()
    return Destination(url, name, host, _port(authority["port"], 443 if name == "https" else 80), literal)


def is_local_name(host: str) -> bool:
    """Say whether the name is one that stands for this machine or its private neighbourhood."""
    return host.rpartition(".")[2] in _LOCAL_NAMES


def is_neighbour_name(host: str) -> bool:
    """Say whether the name can only be one of a private network: a single label, or below a domain for such."""
    return "." not in host or host.endswith(_NEIGHBOURS)


def is_metadata_name(host: str) -> bool:
    """Say whether the name is that of a cloud's metadata service."""
    return host in _METADATA_NAMES


def is_localhost(host: str) -> bool:
    """Say whether the name is `localhost` or below it (RFC 6761)."""
    return host.rpartition(".")[2] == "localhost"


def why_forbidden(address: Address) -> str | None:
    """Return what the address is reserved for, or None where anyone may be called there."""
    for network, why in FORBIDDEN_NETWORKS:
        if network.version == address.version and address in network:
            return why
    return None


def _port(text: str | None, default: int) -> int:
    if not text:
        return default
    port = int(text) if len(text) <= 5 else 0
    if not 0 < port < 65_536:
        raise DestinationRefused("url_port", "the port must be between 1 and 65535")
    return port


def _host(text: str) -> tuple[str, Address | None]:
    if text.startswith("["):
        bare, zone, _ = text[1:-1].partition("%")
        try:
            literal = IPv6Address(bare)
        except ValueError as error:
            raise DestinationRefused("url_invalid", f"{text} is not an IPv6 address") from error
        if zone:
            raise DestinationRefused("destination_blocked", "an address with a zone is link-local and cannot be called")
        return str(literal), literal
    if not text.isascii():
        raise DestinationRefused("url_invalid", "the host must be ASCII; write an international name as xn--…")
    host = text.removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) and _is_idna(label) for label in labels):
        raise DestinationRefused("url_invalid", f"{text[:80]} is not a host name")
    if not _NUMERIC_LABEL.fullmatch(labels[-1]):
        return host, None
    try:
        address = ip_address(text)
    except ValueError as error:
        raise DestinationRefused(
            "destination_blocked", f"{text[:80]} is an address in disguise; write IPv4 as four decimal numbers"
        ) from error
    return str(address), address


def _is_idna(label: str) -> bool:
    if not label.startswith("xn--"):
        return True
    try:
        decoded = label[4:].encode("ascii").decode("punycode")
    except UnicodeError:
        return False
    return bool(decoded) and not decoded.isascii()
