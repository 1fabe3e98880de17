"""What every request passes: who may come in, and how a refusal is said.

    Gate      foreign origins are refused, every exception becomes an RFC 9457 problem, the unexpected is logged once
    Resource  one path: its methods, and whether the API token is needed for them (unless it says otherwise, it is)

A page of another origin cannot have a token, but it can have a browser send what the browser knows by itself. What
other people's servers send to `/webhooks/{name}` proves itself, and may come from anywhere.

Both are plain ASGI and do as little as they can: they stand in the way of every submit.
"""

import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum, auto
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from hurlbat_app.api.answers import problem_response
from hurlbat_app.api.bodies import BODY_READ, ROOM, TooSlow, rooms
from hurlbat_dispatcher import Engine, Forbidden, MethodRefused, NotFound, Problem, Unauthorized

Endpoint = Callable[[Request], Awaitable[Response]]

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_FROM_ANYWHERE: Final = re.compile(r"/webhooks/[^/]+")
"""Paths that take a POST from servers of any origin."""
_log = logging.getLogger("hurlbat.api")


class Access(Enum):
    """What a request must show."""

    OPEN = auto()
    TOKEN = auto()
    """The API token."""
    LEASE = auto()
    """The lease token of an attempt, which the endpoint gives to the engine."""
    SENDER = auto()
    """Whatever the sender of a webhook proves itself by, which the endpoint gives to the engine."""


class Unexpected(Problem):
    """A fault of ours; the log has the rest."""


class Gate:
    """Answer for everything that is raised behind it."""

    def __init__(self, app: ASGIApp, own_url: str, largest_body: int) -> None:
        self._app = app
        self._own = urlsplit(own_url).netloc.lower()
        self._room, self._room_of_strangers = rooms(largest_body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, and answer for what it raises."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope[ROOM] = self._room
            if _is_webhook(scope):
                scope[ROOM] = self._room_of_strangers
            elif scope["method"] not in _SAFE:
                self._refuse_foreign(scope["headers"])
            await self._app(scope, receive, send)
        except TooSlow as problem:
            await problem_response(problem, {"connection": "close"})(scope, receive, send)
        except Problem as problem:
            await problem_response(problem, _closing(scope))(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception:
            _log.exception("unexpected error in %s %s", scope["method"], scope["path"])
            fault = Unexpected("internal_error", "something went wrong here; the server's log says what")
            await problem_response(fault, _closing(scope))(scope, receive, send)

    def _refuse_foreign(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        origin = host = b""
        for name, value in headers:
            if name == b"origin":
                origin = value
            elif name == b"host":
                host = value
        if origin:
            netloc = origin.decode("latin-1").partition("://")[2].lower()
            if netloc != host.decode("latin-1").lower() and netloc != self._own:
                raise Forbidden("origin_forbidden", "requests from pages of another origin are refused")


class Resource:
    """One path with an endpoint for each of its methods. `but` names the methods of another access than the rest."""

    def __init__(
        self,
        engine: Engine,
        *,
        access: Access = Access.TOKEN,
        but: Mapping[str, Access] | None = None,
        **endpoints: Endpoint,
    ) -> None:
        if "GET" in endpoints:
            endpoints["HEAD"] = endpoints["GET"]
        self.endpoints = endpoints
        self.access = dict.fromkeys(endpoints, access) | dict(but or {})
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer by the endpoint of the method."""
        method = scope["method"]
        endpoint = self.endpoints.get(method)
        if endpoint is None:
            allowed = sorted(self.endpoints)
            raise MethodRefused("method_not_allowed", f"this path takes {', '.join(allowed)}", allow=allowed)
        request = Request(scope, receive)
        if self.access[method] is Access.TOKEN:
            self._engine.authenticate(bearer_token(request))
        response = await endpoint(request)
        await response(scope, receive, send)


async def nowhere(scope: Scope, _receive: Receive, _send: Send) -> None:
    """Say that the path leads nowhere."""
    raise NotFound("path_not_found", f"there is nothing at {scope['path'][:256]}")


def bearer_token(request: Request) -> str:
    """Return the token of the `Authorization: Bearer` header. Raises `Unauthorized`."""
    value = request.headers.get("authorization")
    if value is None:
        raise Unauthorized(
            "token_missing",
            "send the token in the header Authorization: Bearer …; apps and commands take it from HURLBAT_TOKEN",
        )
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("token_invalid", "the Authorization header must be Bearer, a space and the token")
    return token.strip()


def _is_webhook(scope: Scope) -> bool:
    return scope["method"] == "POST" and _FROM_ANYWHERE.fullmatch(scope["path"]) is not None


def _closing(scope: Scope) -> dict[str, str]:
    """Close the connection rather than read what may be a lot, left of a refused request."""
    if BODY_READ in scope:
        return {}
    for name, value in scope["headers"]:
        if name == b"transfer-encoding" or (name == b"content-length" and len(value) > len(b"99999")):
            return {"connection": "close"}
    return {}
