"""The worker's door on AWS Lambda: an event that is an HTTP request in, an answer in one piece out.

Reads what function URLs and API Gateway send (payloads 2.0 and 1.0), and load balancers. Nothing runs between two
invocations, so every attempt ends within the one that brought it.
"""

import asyncio
import base64
import binascii
import concurrent.futures
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hurlbat.background import Background
from hurlbat.errors import ConfigError
from hurlbat.handler import Handler, Limit, problem
from hurlbat.outbox import ASGIMessage
from hurlbat.reading import BodyRefused
from hurlbat.wire import HEADER_WORKER, PROBLEM_TYPE

MARGIN_SECONDS = 1.0
"""What is left of an invocation's time when its attempts are ended, for telling what came of them."""
LAST_SECONDS = 0.5
"""What is left of it when an answer is given even though an attempt holds the event loop."""
GATEWAY_SECONDS = 29.0
"""How long an attempt may take behind an HTTP API, which waits 30 s for an answer."""

logger = logging.getLogger("hurlbat")


@dataclass(frozen=True, slots=True)
class Request:
    """What an event says of an HTTP request. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | BodyRefused
    waits: float | None = None
    """Seconds that the sender of the event waits, where these are fewer than the function may take."""
    many_valued: bool = False
    """Whether the answer's headers must be lists of values, as a load balancer may want it."""


class LambdaHandler:
    """A Lambda function's handler for a worker's URL. Use `Hurlbat.aws_lambda()` to make one."""

    def __init__(self, handler: Handler, background: Background) -> None:
        self._handler = handler
        self._background = background

    def __call__(self, event: Any, context: Any = None) -> dict[str, Any]:
        """Answer one event. Raises `ConfigError` where it is no HTTP request.

        Attempts that have not ended a second before the time of the invocation is over fail, and may be repeated.
        """
        request = read_event(event)
        left = _seconds_left(context)
        limit = _limit(left, request.waits)
        work = asyncio.run_coroutine_threadsafe(self._answer(request, limit), self._background.loop())
        patience = None if limit is None else _patience(limit, left)
        try:
            status, headers, body = work.result(patience)
        except concurrent.futures.TimeoutError:
            work.cancel()
            status, headers, body = self._blocked()
        told = {name: value for name, value in headers.items() if name not in ("connection", "content-length")}
        answer: dict[str, Any] = {"statusCode": status, "body": body, "isBase64Encoded": False}
        if request.many_valued:
            return answer | {"multiValueHeaders": {name: [value] for name, value in told.items()}}
        return answer | {"headers": told}

    async def _answer(self, request: Request, limit: Limit | None) -> tuple[int, dict[str, str], str]:
        parts: list[ASGIMessage] = []
        bodies = [request.body]

        async def receive() -> ASGIMessage:
            if not bodies:
                await asyncio.Event().wait()  # who invokes a function does not tell that he is gone
            body = bodies.pop()
            if isinstance(body, BodyRefused):
                raise body
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: ASGIMessage) -> None:
            parts.append(message)

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "headers": [_header(*pair) for pair in request.headers.items()],
            "extensions": {} if limit is None else {"hurlbat": limit},
        }
        await self._handler(scope, receive, send)
        head = parts[0]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head["headers"]}
        return head["status"], headers, b"".join(part.get("body", b"") for part in parts[1:]).decode()

    def _blocked(self) -> tuple[int, dict[str, str], str]:
        place = self._background.blocked(LAST_SECONDS / 5)
        said = "the invocation's time is over, and an attempt has not ended though it was told to"
        if place is not None:
            said = (
                f"the invocation's time is over, and the event loop is blocked at {place}: an async task must not "
                "block; make it a sync task (def), or await"
            )
        logger.error("%s", said)
        headers = {HEADER_WORKER: self._handler.mark(), "content-type": PROBLEM_TYPE}
        return 500, headers, problem(500, "loop_blocked", said).decode()


def read_event(event: Any) -> Request:
    """Return what an event says. Raises `ConfigError` with a sentence where it is no HTTP request."""
    if not isinstance(event, dict):
        raise ConfigError(f"the event is {type(event).__name__}, and no HTTP request. {_KNOWN}")
    context = event.get("requestContext")
    context = context if isinstance(context, dict) else {}
    http = context.get("http")
    if isinstance(http, dict) and isinstance(http.get("method"), str):  # payload 2.0
        method, path = http["method"], event.get("rawPath")
        waits = None if ".lambda-url." in str(context.get("domainName")) else GATEWAY_SECONDS
    elif isinstance(event.get("httpMethod"), str):  # payload 1.0, and load balancers
        method, path, waits = event["httpMethod"], event.get("path"), None
    else:
        named = ", ".join(sorted(str(name) for name in event)[:8]) or "no members"
        raise ConfigError(f"the event has {named}, and is no HTTP request. {_KNOWN}")
    headers, many_valued = _headers(event)
    return Request(method.upper(), str(path or "/"), headers, _body(event), waits, many_valued)


_KNOWN = (
    "hurlbat.aws_lambda() answers those of a function URL, of API Gateway and of a load balancer; give queues, "
    "schedules and tests of the console a function of their own"
)


def _headers(event: dict[str, Any]) -> tuple[dict[str, str], bool]:
    single, many = event.get("headers"), event.get("multiValueHeaders")
    found: dict[str, str] = {}
    if isinstance(many, dict):
        found = {str(name).lower(): ",".join(map(str, values)) for name, values in many.items() if values}
    if isinstance(single, dict):
        found |= {str(name).lower(): str(value) for name, value in single.items() if value is not None}
    return found, isinstance(many, dict) and not isinstance(single, dict)


def _header(name: str, value: str) -> tuple[bytes, bytes]:
    """Return a header as ASGI has it: what no HTTP header can hold comes from no server, and is in no signature."""
    return name.encode("latin-1", "replace"), value.encode("latin-1", "replace")


def _body(event: dict[str, Any]) -> bytes | BodyRefused:
    body = event.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return BodyRefused(400, "bad_event", f"the event's body is {type(body).__name__}, and must be a text or null")
    if not event.get("isBase64Encoded"):
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        return BodyRefused(400, "bad_event", f"the event's body is said to be in base64 and is not: {error}")


def _seconds_left(context: Any) -> float | None:
    ask: Callable[[], float] | None = getattr(context, "get_remaining_time_in_millis", None)
    return None if ask is None else ask() / 1000


def _patience(limit: Limit, left: float | None) -> float:
    """Return how long an answer is waited for: past the end of its attempts, and not to the end of the invocation."""
    rest = MARGIN_SECONDS - LAST_SECONDS
    return limit.seconds + (rest if left is None else min(rest, (left - limit.seconds) / 2))


def _limit(left: float | None, waits: float | None) -> Limit | None:
    if waits is not None and (left is None or waits < left - MARGIN_SECONDS):
        reason = (
            f"API Gateway waits 30 s for an answer, so an attempt may take {waits:g} s here: use a function URL for "
            "longer tasks, or give the task an execution_timeout of less"
        )
        return Limit(waits, reason)
    if left is None:
        return None
    seconds = max(left - MARGIN_SECONDS, left / 2)
    reason = (
        f"the Lambda function had {left:.1f} s left for this attempt, and ends attempts a second before its time is "
        "over: raise the function's timeout, or give the task an execution_timeout of less"
    )
    return Limit(seconds, reason)
