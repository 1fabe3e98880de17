"""One delivery under way: its lines with the times at which they came, whichever way the worker answers.

It is read leniently, as far as it can be read at all, so that what is wrong with an answer fails the one check that is
about it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.wire import STREAM_TYPE, BadLine, DeliveredRun, Line, read_line, read_results
from hurlbat_app.conform.probe import Piece, Probe, Sent, Trouble, shown
from hurlbat_app.conform.verdicts import Failed

ACCEPTED: Final = 202
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Heard:
    """One line as it came: when, its text, what it says if that can be read, and else what is wrong with it."""

    at: float
    text: str
    said: dict[str, Any]
    line: Line | None = None
    wrong: str | None = None

    @property
    def key(self) -> Key | None:
        """The attempt that it names."""
        run_id, attempt = self.said.get("run_id"), self.said.get("attempt")
        return (run_id, attempt) if isinstance(run_id, str) and type(attempt) is int else None

    @property
    def type(self) -> Any:
        """What kind of line it is."""
        return self.said.get("type")


@dataclass(slots=True)
class Delivery:
    """What has come of a delivery so far; times are seconds of the monotonic clock."""

    runs: Sequence[DeliveredRun]
    sent_at: float = field(default_factory=time.monotonic)
    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    lines: list[Heard] = field(default_factory=list)
    rest: bytes = b""
    """What came behind the last end of a line; the whole of an answer in one piece, or of an error."""
    ended_at: float | None = None
    trouble: Trouble | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ok(self) -> bool:
        """Whether it was answered 200."""
        return self.status == 200

    @property
    def accepted(self) -> bool:
        """Whether it was answered 202, so that results come as reports."""
        return self.status == ACCEPTED

    @property
    def streams(self) -> bool:
        """Whether the answer is a stream of lines."""
        return self.ok and self.media_type == STREAM_TYPE

    @property
    def media_type(self) -> str:
        """The media type of the answer without its parameters."""
        return str(self.headers.get("content-type", "")).partition(";")[0].strip().lower()

    def of(self, run: DeliveredRun, kind: str) -> list[Heard]:
        """Return the lines of a kind that name this run's attempt."""
        return [heard for heard in self.lines if heard.type == kind and heard.key == (run.run_id, run.attempt)]

    def started(self, run: DeliveredRun) -> Heard | None:
        """Return the run's first `started` line."""
        return next(iter(self.of(run, "started")), None)

    def results(self, run: DeliveredRun) -> list[Heard]:
        """Return the run's results."""
        return self.of(run, "result")

    def result(self, run: DeliveredRun) -> Heard:
        """Return the run's first result. Raises `Failed` where there is none."""
        for heard in self.results(run):
            return heard
        raise Failed(self.without(run))

    def output(self, run: DeliveredRun) -> Any:
        """Return the output of a run that is completed. Raises `Failed`."""
        said = self.result(run).said
        if said.get("state") == "completed":
            return said.get("output")
        raise Failed(f"{run.task} should have completed, and {ending(said)}")

    def error(self, run: DeliveredRun) -> dict[str, Any]:
        """Return the result of a run that has failed. Raises `Failed`."""
        said = self.result(run).said
        if said.get("state") == "failed":
            return said
        raise Failed(f"{run.task} should have failed, and {ending(said)}")

    def without(self, run: DeliveredRun) -> str:
        """Say why there is no result of a run."""
        if not self.status:
            return str(self.trouble or "the delivery was not answered")
        if not (self.ok or self.accepted):
            words = shown(self.rest)
            return f"the delivery was answered {self.status}" + (f": {words}" if words else "")
        if self.accepted:
            return "the delivery was answered 202, and no result was reported in time"
        if self.trouble:
            return f"there is no result for {run.task}: {self.trouble}"
        wrong = next((heard.wrong for heard in self.lines if heard.wrong), None)
        return f"the answer ended without a result for {run.task}" + (f": {wrong}" if wrong else "")

    async def until(self, true: Callable[[], Any], seconds: float) -> bool:
        """Wait until something is true, for as long as more may come; return whether it is."""
        try:
            async with asyncio.timeout(seconds):
                while not true() and (self.ended_at is None or self.accepted):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return bool(true())

    def hear(self, heard: Heard) -> None:
        """Take a line."""
        self.lines.append(heard)
        self._news.set()

    def take(self, piece: Piece) -> None:
        """Take a piece of the answer."""
        if not self.streams:
            self.rest += piece.data
            return
        *whole, self.rest = (self.rest + piece.data).split(b"\n")
        for line in whole:
            if line.strip():
                self.hear(read(piece.at, line))

    def end(self, trouble: Trouble | None = None) -> None:
        """Note that no more will come."""
        self.ended_at = time.monotonic()
        self.trouble = trouble
        if self.streams and self.rest.strip():
            self.hear(read(self.ended_at, self.rest))
        elif self.ok and not self.streams:
            self.lines += _whole(self.ended_at, self.rest)
        self._news.set()


@asynccontextmanager
async def delivering(
    probe: Probe, headers: Sent, body: bytes, runs: Sequence[DeliveredRun], patience: float
) -> AsyncIterator[Delivery]:
    """Send a delivery and give what comes of it, while it comes. The head may take so many seconds.

    What has not come when the block is left is given up.
    """
    delivery = Delivery(runs)
    reading = asyncio.create_task(_read(delivery, probe, headers, body, patience))
    try:
        yield delivery
    finally:
        reading.cancel()
        await asyncio.wait([reading])


async def _read(delivery: Delivery, probe: Probe, headers: Sent, body: bytes, patience: float) -> None:
    try:
        async with probe.open(headers, body, patience) as head:
            delivery.status, delivery.headers = head.status, head.headers
            async for piece in head.pieces():
                delivery.take(piece)
        delivery.end()
    except Trouble as trouble:
        delivery.end(trouble)


def read(at: float, text: bytes) -> Heard:
    """Read a line; what is wrong with it is told and not raised."""
    try:
        words = text.decode()
    except UnicodeDecodeError:
        return Heard(at, shown(text), {}, wrong="a line is not UTF-8")
    try:
        found = parse(words)
    except JsonTextError as error:
        return Heard(at, words, {}, wrong=f"a line is not JSON ({error.message}): {shown(text)}")
    if not isinstance(found, dict):
        return Heard(at, words, {}, wrong=f"a line is no JSON object: {shown(text)}")
    try:
        return Heard(at, words, found, read_line(words))
    except BadLine as error:
        return Heard(at, words, found, wrong=f"{error}: {shown(text)}")


def _whole(at: float, body: bytes) -> list[Heard]:
    """Read an answer in one piece as the lines that it stands for."""
    try:
        text = body.decode()
        parsed = parse(text)
    except (UnicodeDecodeError, JsonTextError) as error:
        return [Heard(at, shown(body), {}, wrong=f"the answer is not JSON ({error}): {shown(body)}")]
    listed = parsed.get("results", [parsed]) if isinstance(parsed, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        return [Heard(at, shown(body), {}, wrong=f'the answer is not {{"results": [result, …]}}: {shown(body)}')]
    wrong = None
    try:
        results = read_results(text)
    except BadLine as error:
        results, wrong = [], f"{error}: {shown(body)}"
    lines = [*results, *[None] * (len(listed) - len(results))]
    return [Heard(at, text, {**said, "type": "result"}, line, wrong) for said, line in zip(listed, lines, strict=True)]


def ending(said: dict[str, Any]) -> str:
    """Say in words how a result ends its run."""
    match said.get("state"):
        case "completed":
            return "has completed"
        case "cancelled":
            return "was cancelled"
        case "failed":
            error = said.get("error")
            words = f"{error.get('type')}: {error.get('message')}" if isinstance(error, dict) else str(error)
            return f"has failed: {words[:300]}"
        case other:
            return f"has the state {other!r}"
