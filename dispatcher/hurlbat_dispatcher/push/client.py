"""Speaks to workers: one signed request each time, and what comes back turned into what it means for every run."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, Literal

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.policy import Manifest
from hurlbat.wire import (
    HEADER_WORKER,
    MAX_BODY_BYTES,
    MAX_LINE_CHARS,
    STREAM_TYPE,
    DeliveredRun,
    cancel_body,
    deliver_body,
)
from hurlbat_dispatcher.clock import Clock, Ids
from hurlbat_dispatcher.domain.answers import SIGNALS, Meaning, Signal, answer_of, meaning_of, signal_of
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed, NotSent, PushedBack, Succeeded
from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.push import proof
from hurlbat_dispatcher.push.exchange import LastLook, Limits, TransportFailure
from hurlbat_dispatcher.push.heard import Delivery, Hear
from hurlbat_dispatcher.push.lines import LineSplitter
from hurlbat_dispatcher.push.output import plain_output
from hurlbat_dispatcher.push.record import Record
from hurlbat_dispatcher.push.refusal import explained
from hurlbat_dispatcher.push.request import Requests, Target, head_of, media_type, words_of
from hurlbat_dispatcher.push.transcript import Transcript
from hurlbat_dispatcher.push.transport import Response, Transport

HEARTBEATS_MISSED: Final = 3
GRACE_SECONDS: Final = 30.0
"""What a protocol worker's answer in one piece may take beyond the longest execution timeout.

A stream has no such end: a run may wait for its worker's turn, and its time counts from its `started` line.
"""
AFTERMATH_SECONDS: Final = 2.0
"""How long a stream may stay open after its last result; one that ends in time leaves its connection for the next."""
CANCEL_SECONDS: Final = 10.0
UNAUTHORIZED: Final = 401

CancelStatus = Literal["stopped", "unknown"]


class PushClient:
    """Delivers attempts and cancellations. `heartbeat` is how often (seconds) workers show signs of life."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        ids: Ids,
        heartbeat: float = 5.0,
        connect_timeout: float = 5.0,
        head_timeout: float = 30.0,
        max_output: int = MAX_BODY_BYTES,
        user_agent: str = "Hurlbat/0.1",
        keep: Callable[[Record], None] | None = None,
    ) -> None:
        self._requests = Requests(transport, clock, ids=ids, connect_timeout=connect_timeout, user_agent=user_agent)
        self._heartbeat = heartbeat
        self._silence = heartbeat * HEARTBEATS_MISSED
        self._head = head_timeout
        self._max_output = max_output
        self._keep = keep

    def delivery_id(self, target: Target, runs: Sequence[DeliveredRun]) -> str:
        """Return a name for a delivery that is about to be made, up to 48 characters.

        It is the delivery's `webhook-id`, but for plain workers, where that is the run's on every attempt.
        """
        return f"{runs[0].run_id}.{runs[0].attempt}" if target.mode is Mode.PLAIN else self._requests.ids.new()

    async def deliver(
        self,
        target: Target,
        runs: Sequence[DeliveredRun],
        hear: Hear,
        *,
        delivery_id: str | None = None,
        last_look: LastLook | None = None,
        on_accepted: Callable[[], None] | None = None,
    ) -> Delivery:
        """Send one delivery and stay with it to its end; a plain worker takes one run at a time.

        `hear` is told as things happen, and of every run exactly one `Ended` or `Detached`, unless this is cancelled.
        `last_look` may forbid the first byte; `on_accepted` is called when the head of an answer has come.
        """
        transcript = Transcript(runs, hear)
        body = deliver_body(target.worker, target.url, self._requests.timestamp(), runs, heartbeat=self._heartbeat)
        reading = _Reading(transcript, target, body, self._max_output)
        delivery_id = delivery_id or self.delivery_id(target, runs)
        message_id = runs[0].run_id if target.mode is Mode.PLAIN else delivery_id
        headers = self._requests.headers(target, message_id, body)
        record = self._record(delivery_id, target, headers, body, runs)
        try:
            limits = self._limits(target, runs)
            async with self._requests.post(target, headers, body, limits, last_look, record) as response:
                if on_accepted is not None:
                    on_accepted()
                await reading.read(response, self._requests.clock.now_ms())
            reading.finish()
            if record is not None:
                record.trouble = reading.delivery.sentence
        except TransportFailure as failure:
            reading.fail(failure)
            if record is not None:
                record.trouble = failure.message
        finally:
            transcript.close()
            if record is not None and self._keep is not None:
                self._keep(record)
        return reading.delivery

    async def cancel(self, target: Target, runs: Sequence[tuple[str, int, str]]) -> dict[tuple[str, int], CancelStatus]:
        """Tell a worker to stop (run id, attempt, reason), unless it is plain; what cannot be learned is unknown."""
        found: dict[tuple[str, int], CancelStatus] = {(run_id, attempt): "unknown" for run_id, attempt, _ in runs}
        if target.mode is Mode.PLAIN:
            return found
        body = cancel_body(target.worker, target.url, self._requests.timestamp(), runs)
        headers = self._requests.headers(target, self._requests.ids.new(), body)
        limits = Limits(total=CANCEL_SECONDS, connect=self._requests.connect_timeout)
        try:
            async with self._requests.post(target, headers, body, limits) as response:
                said = await response.read() if response.status == 200 and HEADER_WORKER in response.headers else b""
            for run_id, attempt in _stopped(said):
                if (run_id, attempt) in found:
                    found[run_id, attempt] = "stopped"
        except TransportFailure:
            return found
        return found

    async def describe(self, target: Target) -> Manifest:
        """Return a worker's manifest. Raises `ProofFailed`."""
        return await proof.describe(self._requests, target)

    async def prove(self, target: Target) -> Manifest:
        """Return the manifest of a worker that refuses what it must refuse. Raises `ProofFailed`."""
        return await proof.prove(self._requests, target)

    def _record(
        self, delivery_id: str, target: Target, headers: Mapping[str, str], body: bytes, runs: Sequence[DeliveredRun]
    ) -> Record | None:
        if self._keep is None:
            return None
        return Record(
            delivery_id,
            target.worker,
            target.mode,
            target.url,
            self._requests.clock.now_ms(),
            headers,
            len(body),
            hashlib.sha256(body).hexdigest(),
            len(runs),
            tuple(run.lease_token for run in runs),
        )

    def _limits(self, target: Target, runs: Sequence[DeliveredRun]) -> Limits:
        longest = max(run.execution_timeout for run in runs)
        if target.mode is Mode.PLAIN:
            return Limits(total=longest, connect=self._requests.connect_timeout, head=longest, size=self._max_output)
        return Limits(
            total=longest + GRACE_SECONDS,
            connect=self._requests.connect_timeout,
            head=self._head if target.streams else longest + GRACE_SECONDS,
            silence=self._silence,
            size=MAX_LINE_CHARS * (2 * len(runs) + 1),
        )


class _Reading:
    """The answer of one delivery, from its head to its end."""

    def __init__(self, transcript: Transcript, target: Target, body: bytes, max_output: int) -> None:
        self._transcript = transcript
        self._target = target
        self._body = body
        self._max_output = max_output
        self._manifest: str | None = None
        self._streaming = False
        self.delivery = Delivery(Signal.OK)

    async def read(self, response: Response, now_ms: int) -> None:
        """Read the head, and the body where it matters."""
        head = head_of(response, now_ms)
        meaning = meaning_of(head, self._target.mode)
        self._manifest = response.headers.get(HEADER_WORKER)
        self.delivery = Delivery(SIGNALS[meaning], self._manifest)
        if meaning is Meaning.ACCEPTED:
            self._transcript.detach_all("the worker accepted the run and will report")
        elif meaning is not Meaning.RESULTS:
            words = await words_of(response, self._target)
            if head.status == UNAUTHORIZED:
                words = explained(words, self._target, self._body, now_ms)
            answer = answer_of(meaning, head, words, self._target.url)
            signal = signal_of(meaning, answer)
            if signal is not Signal.OK:
                wait = answer.retry_after if isinstance(answer, PushedBack) else None
                self.delivery = Delivery(signal, self._manifest, answer.message, wait)
            else:
                self.delivery = Delivery(signal, self._manifest)
            self._transcript.end_all(answer)
        elif self._target.mode is Mode.PLAIN:
            self._transcript.end_all(Succeeded(plain_output(await response.read())))
        elif media_type(response) == STREAM_TYPE:
            await self._read_stream(response)
        else:
            self._transcript.read_whole(await response.read())

    def finish(self) -> None:
        """End a delivery whose answer came to its end."""
        if self._transcript.done:
            return
        if not self._transcript.results and not self._transcript.all_begun:
            sentence = "the worker ended its answer without a result"
            self.delivery = Delivery(Signal.TROUBLE, self._manifest, sentence)
        self._transcript.break_off("the worker ended its answer early")

    def fail(self, failure: TransportFailure) -> None:
        """End a delivery that broke."""
        if not failure.sent:
            signal = Signal.LOCAL if failure.local else Signal.UNREACHABLE
            self.delivery = Delivery(signal, None, failure.message)
            self._transcript.end_all(NotSent(failure.code, failure.message))
            return
        if self._transcript.done:
            return
        self.delivery = Delivery(Signal.TROUBLE, self._manifest, failure.message)
        code = failure.code
        if self._streaming and code not in (ErrorCode.RESPONSE_TOO_LARGE, ErrorCode.BAD_ENCODING):
            self._transcript.break_off(failure.message)
            return
        if code is ErrorCode.ATTEMPT_TIMEOUT and self._target.mode is Mode.PLAIN and not failure.heard:
            code = ErrorCode.EXECUTION_TIMEOUT
        self._transcript.end_all(Failed(code, failure.message))

    async def _read_stream(self, response: Response) -> None:
        self._streaming = True
        response.go_on()
        self._transcript.when_done = lambda: response.finish(AFTERMATH_SECONDS)
        splitter = LineSplitter()
        try:
            async with aclosing(response.chunks()) as chunks:
                async for chunk in chunks:
                    self._transcript.read_lines(splitter.feed(chunk))
            self._transcript.read_lines(splitter.end())
        finally:
            self._transcript.when_done = None


def _stopped(body: bytes) -> list[tuple[str, int]]:
    """Read the answer to a cancel message: `{"runs": [{"run_id": …, "attempt": …, "status": "stopped"}, …]}`."""
    try:
        said: Any = parse(body)
    except JsonTextError:
        return []
    listed = said.get("runs") if isinstance(said, dict) else None
    return [
        (run["run_id"], run["attempt"])
        for run in (listed if isinstance(listed, list) else [])
        if isinstance(run, dict)
        and run.get("status") == "stopped"
        and isinstance(run.get("run_id"), str)
        and isinstance(run.get("attempt"), int)
    ]
