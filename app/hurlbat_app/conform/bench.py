"""The bench on which a worker is looked at: who it is, how it is asked, and what several checks look at together."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Self

from hurlbat.conformance import ECHO, SLEEP
from hurlbat.policy import Manifest
from hurlbat.signing import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, sign
from hurlbat.version import version
from hurlbat.wire import (
    HEADER_WORKER,
    HEARTBEAT_SECONDS,
    JSON_TYPE,
    STREAM_TYPE,
    DeliveredRun,
    deliver_body,
    probe_body,
)
from hurlbat_app.conform.exchange import Delivery, Heard, delivering
from hurlbat_app.conform.loopback import Loopback, Reported
from hurlbat_app.conform.probe import Answer, Probe, Sent
from hurlbat_app.conform.verdicts import Skipped

LEASE_TOKEN: Final = "conform-lease-token-of-no-server"
EXECUTION_TIMEOUT: Final = 60.0
LINGER_SECONDS: Final = 0.5
NAP_SECONDS: Final = 1.0
NAP_HEARTBEAT: Final = 0.2
SLOWER: Final = (1, 4, 6)
"""What is judged by time is looked at again so many times as slowly before it is held against the worker."""


@dataclass(frozen=True, slots=True)
class Target:
    """A worker as it is to be looked at. `keys` are its signing secrets, newest first; `patience` is in seconds."""

    url: str
    keys: tuple[str, ...] = field(repr=False)
    mode: str = "protocol"
    worker: str = "conform"
    task: str | None = None
    """A task of its own for the checks that need any task."""
    input: str = "null"
    """That task's input, raw JSON."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    patience: float = 10.0


@dataclass(frozen=True, slots=True)
class Nap:
    """A delivery of one sleeping run that has ended: how long it slept, and which heartbeat was asked for."""

    delivery: Delivery
    run: DeliveredRun
    seconds: float
    heartbeat: float


class Bench:
    """Asks one worker, in one go from `async with` on."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.probe = Probe(target.url, target.headers, target.patience)
        self.manifest: Manifest | None = None
        """What the worker serves, once it was asked and has given a good answer."""
        self.described: Answer | None = None
        self.reports: list[Reported] = []
        self.scenes: dict[str, Any] = {}
        """What was seen once and is looked at by several checks."""
        self._loopback = Loopback(self._hear)
        self._open: list[Delivery] = []

    async def __aenter__(self) -> Self:
        await self._loopback.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.probe.close()
        await self._loopback.__aexit__()

    # -- requests --------------------------------------------------------------------------------------------------

    @property
    def plain(self) -> bool:
        """Whether it is a plain worker, which gets deliveries alone."""
        return self.target.mode == "plain"

    def unsigned(self, message_id: str) -> dict[str, str | bytes]:
        """Return the headers of a request but for its signature and time."""
        return {
            "user-agent": f"Hurlbat-conform/{version()}",
            "content-type": JSON_TYPE,
            "accept": f"{STREAM_TYPE}, {JSON_TYPE}",
            "accept-encoding": "identity",
            "traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01",
            HEADER_ID: message_id,
        }

    def signed(
        self, body: bytes, *, message_id: str | None = None, ahead: int = 0, keys: Sequence[str] | None = None
    ) -> dict[str, str | bytes]:
        """Return the headers of a request that is signed now, or by a clock that is so many seconds ahead."""
        message_id = message_id or new_id()
        at = int(time.time()) + ahead
        signature = sign(self.target.keys if keys is None else keys, message_id, at, body)
        return {**self.unsigned(message_id), HEADER_TIMESTAMP: str(at), HEADER_SIGNATURE: signature}

    async def ask(self, body: bytes, headers: Sent | None = None, patience: float | None = None) -> Answer:
        """Send a message, signed now unless it has other headers, and return the whole answer. Raises `Trouble`."""
        return await self.probe.post(self.signed(body) if headers is None else headers, body, patience)

    def harmless(self) -> tuple[str, bytes]:
        """Return the id and the body of a message that may be sent at any time.

        It is a probe; a plain worker knows none and gets a run of its task.
        """
        if not self.plain:
            return new_id(), probe_body(self.target.worker, self.target.url, timestamp())
        run = self.run_any()
        return run.run_id, self.body([run])

    # -- deliveries ------------------------------------------------------------------------------------------------

    def run(self, task: str, input: Any, *, run_id: str | None = None, attempt: int = 1) -> DeliveredRun:
        """Return an attempt to deliver; `input` is a value."""
        return self._run(task, json.dumps(input, ensure_ascii=False), run_id or new_id(), attempt)

    def run_any(self) -> DeliveredRun:
        """Return an attempt of the user's own task, else of `conform.echo`. Raises `Skipped` if there is neither."""
        if self.target.task is not None:
            return self._run(self.target.task, self.target.input, new_id(), 1)
        if not self.plain and not self.serves(ECHO):
            raise Skipped(f"the worker's manifest has no {ECHO}, and --task NAME --input JSON names no other task")
        return self.run(ECHO, {"hello": "conform"})

    def needs(self, *tasks: str) -> None:
        """Raise `Skipped` unless the worker serves these tasks."""
        if self.manifest is None:
            raise Skipped(f"without a manifest that can be read nobody knows whether it serves {' and '.join(tasks)}")
        missing = [task for task in tasks if not self.serves(task)]
        if missing:
            raise Skipped(f"the worker's manifest has no {' and no '.join(missing)}")

    def serves(self, task: str) -> bool:
        """Tell whether the manifest has a task."""
        return self.manifest is not None and any(one.name == task for one in self.manifest.tasks)

    @property
    def max_batch(self) -> int:
        """How many runs may be in one delivery."""
        return 1 if self.manifest is None or self.plain else self.manifest.max_batch

    @property
    def says_it_streams(self) -> bool:
        """Whether its answers are streams, as it says itself."""
        return self.manifest is None or self.manifest.streams

    def body(self, runs: Sequence[DeliveredRun], heartbeat: float = HEARTBEAT_SECONDS) -> bytes:
        """Return a delivery."""
        return deliver_body(self.target.worker, self.target.url, timestamp(), runs, heartbeat=heartbeat)

    @asynccontextmanager
    async def delivering(
        self,
        runs: Sequence[DeliveredRun],
        *,
        heartbeat: float = HEARTBEAT_SECONDS,
        body: bytes | None = None,
        patience: float | None = None,
    ) -> AsyncIterator[Delivery]:
        """Send a delivery and give what comes of it, while it comes; what is reported of its runs as well."""
        body = self.body(runs, heartbeat) if body is None else body
        headers = self.signed(body, message_id=runs[0].run_id if self.plain else new_id())
        async with delivering(self.probe, headers, body, runs, patience or self.target.patience) as delivery:
            self._open.append(delivery)
            try:
                yield delivery
            finally:
                self._open.remove(delivery)

    async def deliver(
        self,
        *runs: DeliveredRun,
        heartbeat: float = HEARTBEAT_SECONDS,
        body: bytes | None = None,
        seconds: float = 0.0,
        linger: float = LINGER_SECONDS,
    ) -> Delivery:
        """Send a delivery that takes so many seconds, and return it when it has ended or nothing comes.

        When all its runs have results it gets so many seconds of `linger` to end.
        """
        patience = self.target.patience + seconds
        async with self.delivering(runs, heartbeat=heartbeat, body=body, patience=patience) as delivery:
            await delivery.until(lambda: all(delivery.results(run) for run in runs), patience)
            if not delivery.accepted:
                await delivery.until(lambda: delivery.ended_at is not None, linger)
        return delivery

    async def nap(self, slowness: int = 1) -> Nap:
        """Deliver one sleeping run and return what came of it; the same one to all who ask. Raises `Skipped`."""
        self.needs(SLEEP)
        name = f"nap {slowness}"
        if name not in self.scenes:
            seconds, heartbeat = NAP_SECONDS * slowness, NAP_HEARTBEAT * slowness
            run = self.run(SLEEP, {"seconds": seconds})
            delivery = await self.deliver(run, heartbeat=heartbeat, seconds=seconds)
            self.scenes[name] = Nap(delivery, run, seconds, heartbeat)
        found: Nap = self.scenes[name]
        return found

    def heard_of(self, run: DeliveredRun) -> list[Reported]:
        """Return what was reported of an attempt."""
        return [one for one in self.reports if (one.run_id, one.attempt) == (run.run_id, run.attempt)]

    # -- inside ----------------------------------------------------------------------------------------------------

    def _run(self, task: str, input: str, run_id: str, attempt: int) -> DeliveredRun:
        url = self._loopback.report_url(run_id, attempt)
        return DeliveredRun(run_id, task, attempt, 1_000, input, "{}", EXECUTION_TIMEOUT, LEASE_TOKEN, url)

    def _hear(self, report: Reported) -> None:
        self.reports.append(report)
        if not report.final:
            return
        for delivery in self._open:
            if any((run.run_id, run.attempt) == (report.run_id, report.attempt) for run in delivery.runs):
                delivery.hear(Heard(report.at, "", report.line, wrong=report.wrong))


def new_id() -> str:
    """Return a fresh id."""
    return str(uuid.uuid4())


def timestamp() -> str:
    """Return now, as messages say it."""
    now = datetime.now(UTC)
    return f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1_000:03d}Z"


def marked(answer: Answer) -> bool:
    """Tell whether an answer has the worker's mark."""
    return HEADER_WORKER in answer.headers


async def soon() -> None:
    """Give a worker that does not say when it has begun the time to begin."""
    await asyncio.sleep(0.3)
