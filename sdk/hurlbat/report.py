"""Report an attempt to the server by itself, after the stream that would have carried its result broke.

The server keeps such an attempt on a lease of its own, which every heartbeat renews; its reply also tells of a
cancellation. The result is offered again and again until it was taken, refused, or the lease must have run out.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hurlbat import outside
from hurlbat.execution import CANCELLED
from hurlbat.messages import Delivered
from hurlbat.wire import CancelledLine, CompletedLine, FailedLine, Line, LogLine, ProgressLine, Result, write_line

if TYPE_CHECKING:
    import httpx

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
MAX_ENTRIES = 100
"""Log lines in one request, and kept while the server is away."""

logger = logging.getLogger("hurlbat")


class Reporter:
    """Carries one attempt's lines to its `report_url`. `stop` is called when the server does not want it any more."""

    def __init__(
        self,
        delivered: Delivered,
        http: "Callable[[], httpx.AsyncClient]",
        heartbeat: float,
        lease: float,
        *,
        result: Result | None = None,
        stop: Callable[[str], None] | None = None,
    ) -> None:
        self._delivered = delivered
        self._http = http
        self._heartbeat = heartbeat
        self._lease = lease
        self._result = result
        self._stop = stop
        self._entries: list[dict[str, str]] = []
        self._wake = asyncio.Event()
        self._over = False
        """Whether the server has said that this attempt is over."""
        self._lease_until = outside.monotonic() + lease

    def put(self, line: Line) -> None:
        """Take a line of the attempt."""
        match line:
            case CompletedLine() | FailedLine() | CancelledLine():
                self._result = line
            case LogLine(level=level, message=message):
                self._entries.append({"level": level, "message": message})
            case ProgressLine(value=value, message=message):
                said = [f"{value:.0%}"] if value is not None else []
                self._entries.append({"level": "info", "message": " ".join([*said, message or ""]).strip()})
        del self._entries[:-MAX_ENTRIES]
        self._wake.set()

    async def run(self) -> None:
        """Renew the lease until there is a result, then report it; end before where the attempt is over."""
        next_beat = outside.monotonic()
        while self._goes_on:
            self._wake.clear()
            await self._send_entries()
            if outside.monotonic() >= next_beat:
                next_beat = outside.monotonic() + self._heartbeat
                await self._beat()
            if self._goes_on:
                await self._wait(next_beat - outside.monotonic())
        if self._result is None or (isinstance(self._result, FailedLine) and self._result.type == CANCELLED):
            return
        await self._send_result(self._result)

    @property
    def _goes_on(self) -> bool:
        return self._result is None and not self._over

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _beat(self) -> None:
        response = await self._post("heartbeat", "{}")
        if response is None:
            return
        if response.is_success:
            reply = _object(response)
            lease = reply.get("lease")
            self._lease_until = outside.monotonic() + (lease if isinstance(lease, int | float) else self._lease)
            if reply.get("cancelled") is True:
                self._tell_stop("cancelled")
        elif response.status_code in (401, 404, 409, 410):
            self._over = True
            self._tell_stop("the server has given this attempt up")

    def _tell_stop(self, reason: str) -> None:
        if self._stop is not None:
            self._stop(reason)

    async def _send_entries(self) -> None:
        entries, self._entries = self._entries, []
        if not entries:
            return
        response = await self._post("log", json.dumps({"entries": entries}))
        if response is None or _not_now(response):
            self._entries = (entries + self._entries)[-MAX_ENTRIES:]

    async def _send_result(self, result: Result) -> None:
        action, body = _result_body(result)
        pause = FIRST_PAUSE
        while True:
            await self._send_entries()  # the result ends the attempt, and after that no line is taken
            response = await self._post(action, body)
            if response is not None and not _not_now(response):
                if not response.is_success and response.status_code != 409:
                    logger.warning(
                        "the result of run %s was refused with %d", self._delivered.run_id, response.status_code
                    )
                return
            if outside.monotonic() + pause > self._lease_until:
                logger.warning("the result of run %s could not be reported in time", self._delivered.run_id)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _post(self, action: str, body: str) -> "httpx.Response | None":
        import httpx

        try:
            return await self._http().post(
                f"{self._delivered.report_url}/{action}",
                content=body,
                headers={
                    "authorization": f"Bearer {self._delivered.lease_token}",
                    "content-type": "application/json",
                },
                timeout=self._heartbeat * 2,
            )
        except httpx.HTTPError as error:
            logger.info("reporting run %s: %s", self._delivered.run_id, str(error) or type(error).__name__)
            return None


def _not_now(response: "httpx.Response") -> bool:
    return response.status_code >= 500 or response.status_code == 429


def _result_body(result: Result) -> tuple[str, str]:
    """Return what to call, and the members of a result line without those that the URL says."""
    if isinstance(result, CompletedLine):
        return "complete", f'{{"output":{result.output}}}'
    line = json.loads(write_line(result))
    if isinstance(result, CancelledLine):
        return "cancel", json.dumps({"reason": line["reason"]})
    members = ("error", "retryable", "retry_after", "rate_limit_key")
    return "fail", json.dumps({name: line[name] for name in members if name in line})


def _object(response: "httpx.Response") -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
