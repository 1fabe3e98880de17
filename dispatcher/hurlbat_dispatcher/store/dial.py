"""Connect to PostgreSQL: to that of its hosts which takes writes, so that silence is noticed and commits are synced.

A lease is 15 s and renewed every 5 s. So that a server whose database went away without a word (a host without power, a
network that drops everything) finds the one that took its place before its lease is over, silence is noticed within
5 s, and all hosts are tried within 6 s. A statement that takes long is no silence: its host still answers for TCP.
"""

import asyncio
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import asyncpg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from hurlbat_dispatcher.store.database import CannotOpen, DatabaseTrouble

CONNECT_SECONDS = 6.0
"""For all hosts together; each has its share, and at least a second."""
SILENCE_SECONDS: Final = 5
"""After which a connection is given up whose other end does not even acknowledge what it gets."""
REST_SECONDS = 0.25
"""How long nobody is asked after all have refused: many who want to read are no storm on a database that starts."""

_HOSTS: Final = re.compile(r"(?P<head>[\w+]+://(?:[^:/]*(?::[^@]*)?@)?)(?P<hosts>[^/?]*)(?P<tail>.*)", re.DOTALL)
_KEPT_ALIVE: Final = (
    ("TCP_KEEPIDLE", 3),
    ("TCP_KEEPINTVL", 1),
    ("TCP_KEEPCNT", SILENCE_SECONDS - 3),
    ("TCP_USER_TIMEOUT", SILENCE_SECONDS * 1000),  # ms
)
_SYNCED: Final = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
)
"""Whatever the server's default is: what is acknowledged is on disk."""
_REFUSALS: Final = (
    OSError,
    UnicodeError,  # of a name that no host can have
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Host(NamedTuple):
    """One host of the URL: its name for people, and what asyncpg takes."""

    name: str
    dsn: str


class Dial:
    """The way to a database. Raises `CannotOpen` for a URL that cannot be read."""

    def __init__(self, url: str) -> None:
        try:
            each = list(_each(url))
        except (ArgumentError, ValueError) as error:
            raise CannotOpen(f"the URL of the database cannot be read: {error}") from error
        self._hosts = [_host(one) for one in each]
        self._refused = ""
        self._rests_until = 0.0
        self._wanted = None if "target_session_attrs" in each[0].query else "read-write"

    async def connect(self, settings: Mapping[str, str]) -> asyncpg.Connection:
        """Return a connection to the first host that takes writes. Raises `DatabaseTrouble`, `CannotOpen`."""
        clock = asyncio.get_running_loop().time
        if clock() < self._rests_until:
            raise DatabaseTrouble(self._refused)
        refusals = []
        for host in self._hosts:
            try:
                connection = await self._connect(host, settings)
            except asyncpg.exceptions.ClientConfigurationError as error:
                raise CannotOpen(f"the URL of the database cannot be used: {error}") from error
            except _REFUSALS as error:
                refusals.append((_refusal(host.name, error), error))
            else:
                self._rests_until = 0.0
                return connection
        self._refused = "; ".join(said for said, _ in refusals)
        self._rests_until = clock() + REST_SECONDS
        raise DatabaseTrouble(self._refused) from refusals[-1][1]

    async def _connect(self, host: Host, settings: Mapping[str, str]) -> asyncpg.Connection:
        async with asyncio.timeout(max(1.0, CONNECT_SECONDS / len(self._hosts))):
            connection = await asyncpg.connect(
                host.dsn, server_settings=dict(settings), target_session_attrs=self._wanted
            )
            try:
                _notice_silence(connection)
                await connection.execute(_SYNCED)
                await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")
            except BaseException:
                connection.terminate()
                raise
        return connection


def _each(url: str) -> Iterator[URL]:
    """Return the URL once for each of its hosts, which stand with commas where one stands, or in the query."""
    found = _HOSTS.fullmatch(url)
    if found and "," in found["hosts"]:
        for host in found["hosts"].split(","):
            yield make_url(f"{found['head']}{host}{found['tail']}")
        return
    one = make_url(url)
    listed = _values(one, "host")
    if not listed:
        yield one
        return
    ports = _values(one, "port")
    for at, host in enumerate(listed):
        port = ports[min(at, len(ports) - 1)] if ports else ""
        more = {"host": host} | ({"port": port} if port else {})
        yield one.difference_update_query(["host", "port"]).update_query_dict(more)


def _values(url: URL, name: str) -> list[str]:
    found = url.query.get(name, ())
    return [value for item in ((found,) if isinstance(found, str) else found) for value in item.split(",")]


def _host(url: URL) -> Host:
    asked = url.query.get("host")
    name = asked if isinstance(asked, str) else url.host or "its socket"
    return Host(name, url.set(drivername="postgresql").render_as_string(hide_password=False))


def _refusal(host: str, error: Exception) -> str:
    match error:
        case TimeoutError():
            return f"PostgreSQL at {host} cannot be reached: it does not answer"
        case asyncpg.exceptions.TargetServerAttributeNotMatched():
            return f"PostgreSQL at {host} is read-only"
        case OSError() | UnicodeError():
            return f"PostgreSQL at {host} cannot be reached: {error}"
        case asyncpg.PostgresError():
            return f"PostgreSQL at {host} refuses the connection: {error}"
        case _:
            return f"what answers at {host} does not speak as PostgreSQL does: {error}"


def _notice_silence(connection: asyncpg.Connection) -> None:
    # asyncpg offers no public way to the socket
    ours: Any = connection._transport.get_extra_info("socket")
    if ours is None or ours.family not in (socket.AF_INET, socket.AF_INET6):
        return
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEPT_ALIVE:
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            ours.setsockopt(socket.IPPROTO_TCP, option, value)
