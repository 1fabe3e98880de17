"""The worker's door: a plain ASGI application that answers the dispatcher's signed requests.

It needs no framework and runs under any: mounted, as a route, behind a prefix. It looks at nothing but the method, the
three webhook headers and the body; who may ask is decided by the signature over the raw bytes alone.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from hurlbat import outside
from hurlbat.errors import SignatureError, TaskInvalid
from hurlbat.messages import BadMessage, Message, read_message
from hurlbat.outbox import Outbox, Receive, Send, StreamBroken
from hurlbat.reading import MAX_DELIVERY_BYTES, BodyRefused, read_body
from hurlbat.refusal import Refusals
from hurlbat.settings import Settings
from hurlbat.signing import verify
from hurlbat.terms import digest_of
from hurlbat.wire import HEADER_WORKER, JSON_TYPE, MAX_BATCH, PROBLEM_TYPE, MessageType
from hurlbat.workbench import Workbench

if TYPE_CHECKING:
    from hurlbat.policy import Manifest

Scope = MutableMapping[str, Any]
Headers = list[tuple[bytes, bytes]]

logger = logging.getLogger("hurlbat")


@dataclass(frozen=True, slots=True)
class Limit:
    """How many seconds a delivery may take where something ends it; `hurlbat` among the extensions of a scope.

    Then its runs go on without it and report, or with a `reason` they fail with that, and may be repeated.
    """

    seconds: float
    reason: str | None = None


class Host(Protocol):
    """What the handler serves."""

    @property
    def settings(self) -> Settings:
        """Who this worker is and which keys it trusts."""
        ...

    @property
    def workbench(self) -> Workbench:
        """Where attempts are executed."""
        ...

    def manifest(self) -> "Manifest":
        """Return what this worker serves. Raises `TaskInvalid`."""
        ...

    def mark(self) -> str:
        """Return what tells this from what it served before. Raises `TaskInvalid`."""
        ...


class Handler:
    """An ASGI application for a worker's URL. Use `Hurlbat.asgi()` to make one.

    Without `streams` a delivery is answered in one piece; the manifest says so, and how many attempts one may have.
    """

    def __init__(
        self,
        host: Host,
        lifespan: Callable[[Receive, Send], Awaitable[None]],
        *,
        max_body_bytes: int = MAX_DELIVERY_BYTES,
        streams: bool = True,
        max_batch: int = MAX_BATCH,
        clock: Callable[[], float] = outside.time,
    ) -> None:
        self.max_body_bytes = max_body_bytes
        self._host = host
        self._lifespan = lifespan
        self._streams = streams
        self._max_batch = max_batch
        self._clock = clock
        self._told: set[str] = set()
        self._refusals = Refusals()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        match scope["type"]:
            case "http":
                await self._answer(scope, receive, send)
            case "lifespan":
                await self._lifespan(receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1008})

    def manifest(self) -> "Manifest":
        """Return what the app serves, as it is answered here. Raises `TaskInvalid`."""
        declared = self._host.manifest()
        most = min(self._max_batch, declared.max_batch)
        return declared.answered(streams=self._streams, max_batch=most, version=self.mark())

    def mark(self) -> str:
        """Return what tells this manifest from others: every answer carries it. Raises `TaskInvalid`."""
        mark = self._host.mark()
        if self._streams and self._max_batch == MAX_BATCH:
            return mark
        return digest_of([mark, str(self._streams), str(self._max_batch)])

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"]
        if method in ("GET", "HEAD"):  # for anybody who looks, so it names nothing
            await _send_json(send, 200, {"status": "ok"})
            return
        mark = self._mark()
        if method != "POST":
            allow = [*mark, (b"allow", b"GET, HEAD, POST")]
            await _send_problem(send, 405, "method_refused", f"{method} is not served here; POST is", allow)
            return
        # lower-case by the specification, which not everybody keeps who calls an application
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await read_body(headers, receive, self.max_body_bytes)
        except BodyRefused as refused:
            self._tell_once(refused.code, refused)
            closing = [*mark, (b"connection", b"close")]
            with suppress(Exception):  # a server's own, where the client is gone, as this may mean
                await _send_problem(send, refused.status, refused.code, str(refused), closing)
            return
        except StreamBroken:
            return
        try:
            self._verify(headers, body)
        except SignatureError as error:
            told = self._refusals.members(error, headers, body, self._clock(), self._host.settings.keys)
            await _send(send, 401, PROBLEM_TYPE, problem(401, "signature_refused", **told), mark)
            return
        limit: Limit | None = scope.get("extensions", {}).get("hurlbat")
        await self._answer_signed(body, receive, send, mark, limit)

    def _described(self) -> bytes:
        return self.manifest().model_dump_json().encode()

    def _mark(self) -> Headers:
        """Return the header that every answer carries, so that nobody takes something else for a worker."""
        try:
            return [(HEADER_WORKER.encode(), self.mark().encode())]
        except TaskInvalid:  # told to whoever proves who he is
            return []

    def _verify(self, headers: dict[str, str], body: bytes) -> None:
        keys = self._host.settings.keys
        if not keys:
            self._tell_once("no secret", "set HURLBAT_SIGNING_SECRET to the worker's secret")
            raise SignatureError("this worker has no signing secret yet; set HURLBAT_SIGNING_SECRET")
        verify(keys, headers, body, self._clock())

    def _tell_once(self, what: str, sentence: object) -> None:
        """Log why requests are refused; once, as anybody may send some."""
        if what not in self._told:
            self._told.add(what)
            logger.error("this worker refuses requests: %s", sentence)

    async def _answer_signed(
        self, body: bytes, receive: Receive, send: Send, mark: Headers, limit: Limit | None
    ) -> None:
        try:
            self.mark()
            message = read_message(body)
            described = self._described() if message.type is MessageType.DESCRIBE else b""
        except TaskInvalid as error:  # where no lifespan has told before
            logger.error("this worker serves nothing: %s", error)
            await _send_problem(send, 500, "task_invalid", str(error))
            return
        except BadMessage as error:
            await _send_problem(send, 400, "bad_message", f"the signed body is not a message: {error}", mark)
            return
        wrong = self._wrong_target(message)
        if wrong is not None:
            await _send_problem(send, 403, "wrong_target", wrong, mark)
            return
        match message.type:
            case MessageType.DELIVER:
                await self._deliver(message, receive, send, mark, limit)
            case MessageType.CANCEL:
                outcome = await self._host.workbench.cancel(message.cancellations)
                await _send_json(send, 200, {"runs": outcome}, mark)
            case MessageType.DESCRIBE:
                await _send(send, 200, JSON_TYPE, described, mark)
            case MessageType.PROBE:
                await _send_json(send, 200, {"ok": True}, mark)

    def _wrong_target(self, message: Message) -> str | None:
        settings = self._host.settings
        if settings.worker is not None and message.worker != settings.worker:
            return f"this is for worker {message.worker!r}, but HURLBAT_WORKER here is {settings.worker!r}"
        if settings.public_url is not None and message.url.rstrip("/") != settings.public_url.rstrip("/"):
            return f"this is for {message.url!r}, but HURLBAT_PUBLIC_URL here is {settings.public_url!r}"
        return None

    async def _deliver(
        self, message: Message, receive: Receive, send: Send, mark: Headers, limit: Limit | None
    ) -> None:
        workbench = self._host.workbench
        if workbench.draining:
            later = [*mark, (b"retry-after", b"1"), (b"connection", b"close")]
            await _send_problem(send, 503, "draining", "this worker is about to stop", later)
            return
        if not workbench.around.opening.is_open and not await self._opened(send, mark):
            return
        # the same attempt twice in one message is one attempt
        deliveries = list({delivered.key: delivered for delivered in message.deliveries}.values())
        outbox = Outbox(len(deliveries))
        complete = False
        workbench.streaming(outbox.close)
        alarm = None
        if limit is not None:
            end = outbox.close if limit.reason is None else partial(workbench.give_back, deliveries, limit.reason)
            alarm = asyncio.get_running_loop().call_later(limit.seconds, end)
        try:
            for delivered in deliveries:
                workbench.begin(delivered, outbox)
            if self._streams:
                await outbox.stream(receive, send, mark, min(workbench.heartbeat, message.heartbeat))
            else:
                await outbox.answer(receive, send, mark)
            complete = True
        except StreamBroken:
            logger.info("the answer to a delivery ended early; its runs go on and report by themselves")
        finally:  # also when the server cancels this request
            workbench.streamed(outbox.close)
            if alarm is not None:
                alarm.cancel()
            if not complete:
                workbench.let_go(deliveries, outbox, message.heartbeat, all_of_them=outbox.accepted)

    async def _opened(self, send: Send, mark: Headers) -> bool:
        """Open what the tasks share, where no lifespan has; answer that the worker is busy where that fails."""
        try:
            await self._host.workbench.around.opening.enter()
        except Exception as error:  # the user's own; nothing has started, so nothing is charged
            logger.exception("a delivery is refused: the lifespan of the tasks failed")
            said = f"what the tasks share could not be opened: {type(error).__name__}: {error}"
            await _send_problem(send, 503, "lifespan_failed", said, [*mark, (b"retry-after", b"1")])
            return False
        return True


async def _send(send: Send, status: int, content_type: str, body: bytes, headers: Headers) -> None:
    length = (b"content-length", str(len(body)).encode())
    listed = [*headers, (b"content-type", content_type.encode()), length]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


async def _send_json(send: Send, status: int, value: Any, headers: Headers | None = None) -> None:
    await _send(send, status, JSON_TYPE, json.dumps(value).encode(), headers or [])


async def _send_problem(send: Send, status: int, code: str, detail: str, headers: Headers | None = None) -> None:
    await _send(send, status, PROBLEM_TYPE, problem(status, code, detail), headers or [])


def problem(status: int, code: str, detail: str, **more: Any) -> bytes:
    """Return the body of an answer of an error, by RFC 9457, with `more` members."""
    named = {"type": f"urn:hurlbat:problem:{code}", "title": code.replace("_", " ").capitalize()}
    return json.dumps(named | {"status": status, "code": code, "detail": detail} | more).encode()
