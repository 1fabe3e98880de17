"""The far side of the engine in memory: workers that do what the test tells them, and remember what came."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from hurlbat import signing
from hurlbat.errors import SignatureError
from hurlbat.wire import (
    HEADER_WORKER,
    STREAM_TYPE,
    CancelledLine,
    CompletedLine,
    FailedLine,
    Line,
    LogLine,
    ProgressLine,
    StartedLine,
    write_line,
)

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
MARK = {HEADER_WORKER: "manifest-1"}

Output = str | FailedLine | CancelledLine
Chunks = AsyncIterator[bytes]


class Call(NamedTuple):
    """One attempt as the worker got it; `input` is parsed."""

    run_id: str
    task: str
    attempt: int
    max_attempts: int
    input: Any
    lease_token: str
    report_url: str
    body: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        """The attempt."""
        return self.run_id, self.attempt

    def started(self) -> StartedLine:
        """Say that it begins."""
        return StartedLine(*self.key)

    def completed(self, output: str = "null") -> CompletedLine:
        """Say that it succeeded."""
        return CompletedLine(*self.key, output)

    def failed(self, message: str = "boom", *, type: str = "ValueError", **more: Any) -> FailedLine:
        """Say that it failed."""
        return FailedLine(*self.key, type, message, **more)

    def logged(self, message: str) -> LogLine:
        """Say something."""
        return LogLine(*self.key, "info", message)

    def progressed(self, value: float, message: str | None = None) -> ProgressLine:
        """Say how far it is."""
        return ProgressLine(*self.key, value, message)


Work = Callable[[Call], Awaitable[Output]]
"""What a task does: its output as raw JSON, or how it failed."""
Answer = Callable[[list[Call]], Awaitable[httpx.Response]]
"""What a worker answers to a whole delivery."""


class Body(httpx.AsyncByteStream):
    """A body that is made while it is read; whoever makes it is closed when the reader leaves."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        """Tell the maker that nobody reads any more."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


def streaming(chunks: Chunks) -> httpx.Response:
    """Answer with a stream of lines that are made on the way."""
    return httpx.Response(200, headers={"content-type": STREAM_TYPE} | MARK, stream=Body(chunks))


def said(*lines: Line) -> bytes:
    """Write lines as they travel."""
    return "".join(write_line(line) + "\n" for line in lines).encode()


def lines(*spoken: Line) -> httpx.Response:
    """Answer with these lines and the end of the stream."""
    return httpx.Response(200, headers={"content-type": STREAM_TYPE} | MARK, content=said(*spoken))


def marked(status: int, content: bytes = b"", **headers: str) -> httpx.Response:
    """Answer with the worker's mark and a status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named | MARK, content=content)


def accepted() -> httpx.Response:
    """Answer that the worker will report."""
    return marked(202)


async def broken(*pieces: bytes, error: Exception | None = None) -> Chunks:
    """Say this much and break off: with an error, or by an early end."""
    for piece in pieces:
        yield piece
    if error is not None:
        raise error


@dataclass
class FakeWorker:
    """A worker in memory. `work` is what its tasks do; `answer` takes the place of the whole answer where it is set."""

    name: str
    tasks: list[dict[str, Any]]
    plain: bool = False
    max_batch: int = 16
    work: Work | None = None
    answer: Answer | None = None
    stops: bool = True
    """Whether it says of a cancelled attempt that it stopped."""
    keys: list[str] = field(default_factory=lambda: [SECRET])
    """The signing secrets that it knows."""
    away: Exception | None = None
    """What every request to it fails with, before a byte is sent."""
    calls: list[Call] = field(default_factory=list)
    deliveries: list[list[Call]] = field(default_factory=list)
    cancels: list[tuple[str, int, str]] = field(default_factory=list)
    headers: list[httpx.Headers] = field(default_factory=list)
    open: dict[tuple[str, int], asyncio.Event] = field(default_factory=dict)
    """Attempts that run now, each with the flag that tells them to stop."""
    peak: int = 0
    """The most attempts that ever ran at once."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """What `held` waits for."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://{self.name}.example.com/hurlbat/"

    def seen(self, run_id: str) -> list[int]:
        """Return the attempts of a run that came, in order."""
        return [call.attempt for call in self.calls if call.run_id == run_id]

    async def held(self, call: Call) -> Output:
        """Work until the test opens the gate, or the attempt is cancelled."""
        stop = self.open.setdefault(call.key, asyncio.Event())
        waits = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(self.gate.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return json.dumps(call.input)

    async def receive(self, request: httpx.Request) -> httpx.Response:
        """Take one request."""
        if self.away is not None:
            raise self.away
        body = await request.aread()
        try:
            signing.verify(self.keys, dict(request.headers), body, time.time())
        except SignatureError as error:
            return marked(401, str(error).encode())
        message = json.loads(body)
        data = message["data"]
        assert (data["worker"], data["url"]) == (self.name, self.url)
        match message["type"]:
            case "describe":
                manifest = {"tasks": self.tasks, "max_batch": self.max_batch, "version": MARK[HEADER_WORKER]}
                return marked(200, json.dumps(manifest).encode())
            case "probe":
                return marked(200)
            case "cancel":
                return self._cancel(data["runs"])
            case "deliver":
                self.headers.append(request.headers)
                return await self._deliver(data["runs"])
        raise AssertionError(f"an unknown message: {message['type']}")

    def _cancel(self, runs: list[dict[str, Any]]) -> httpx.Response:
        told = []
        for run in runs:
            key = run["run_id"], run["attempt"]
            self.cancels.append((*key, run["reason"]))
            stop = self.open.get(key)
            if stop is not None and self.stops:
                stop.set()
            status = "stopped" if self.stops else "unknown"
            told.append({"run_id": key[0], "attempt": key[1], "status": status})
        return marked(200, json.dumps({"runs": told}).encode())

    async def _deliver(self, runs: list[dict[str, Any]]) -> httpx.Response:
        fields = [name for name in Call._fields if name != "body"]
        calls = [Call(**{name: run[name] for name in fields}, body=run) for run in runs]
        assert len(calls) <= (1 if self.plain else self.max_batch)
        self.deliveries.append(calls)
        self.calls += calls
        if self.answer is not None:
            return await self.answer(calls)
        if not self.plain:
            return streaming(self._stream(calls))
        with self._running(calls):
            output = await self._do(calls[0])
        if not isinstance(output, str):
            return httpx.Response(500, text=output.message if isinstance(output, FailedLine) else output.reason)
        return httpx.Response(200, content=output.encode())

    async def _do(self, call: Call) -> Output:
        return await self.work(call) if self.work is not None else json.dumps(call.input)

    def _running(self, calls: list[Call]) -> "_Running":
        return _Running(self, calls)

    async def _stream(self, calls: list[Call]) -> Chunks:
        ready: asyncio.Queue[bytes] = asyncio.Queue()

        async def one(call: Call) -> None:
            with self._running([call]):
                output = await self._do(call)
            line = call.completed(output) if isinstance(output, str) else output
            ready.put_nowait(said(line))

        with self._running(calls):
            yield said(*(call.started() for call in calls))
            tasks = [asyncio.create_task(one(call)) for call in calls]
            try:
                for _ in calls:
                    yield await ready.get()
            finally:
                for task in tasks:
                    task.cancel()


@dataclass
class _Running:
    worker: FakeWorker
    calls: list[Call]

    def __enter__(self) -> None:
        for call in self.calls:
            self.worker.open.setdefault(call.key, asyncio.Event())
        self.worker.peak = max(self.worker.peak, len(self.worker.open))

    def __exit__(self, *_: object) -> None:
        for call in self.calls:
            self.worker.open.pop(call.key, None)


class Network:
    """Brings requests to the workers by the host in their URL."""

    def __init__(self) -> None:
        self.workers: dict[str, FakeWorker] = {}

    def transport(self) -> httpx.AsyncBaseTransport:
        """Return a transport for one engine."""
        return _Route(self.workers)


class _Route(httpx.AsyncBaseTransport):
    def __init__(self, workers: Mapping[str, FakeWorker]) -> None:
        self._workers = workers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._workers[request.url.host.partition(".")[0]].receive(request)
