"""Stand in for the dispatcher: sign messages, send them through bare ASGI, and read the answers as they come."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Any

from hurlbat import Hurlbat, signing, wire

SECRET = "whsec_" + "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
WORKER = "thumbs"
URL = "https://thumbs.example/hurlbat/"
SERVER = "http://server.test"


def an_app(**settings: Any) -> Hurlbat:
    """Return an app object with a secret, whatever the environment says."""
    made = Hurlbat(**{"url": SERVER, "token": "token-token-token", "signing_secret": SECRET} | settings)
    made.workbench.heartbeat = 3600.0  # or a stream would have one more line where a machine stands still
    return made


def a_run(task: str, input: Any = None, **changes: Any) -> wire.DeliveredRun:
    """Return one attempt to deliver; `input` is a value."""
    known: dict[str, Any] = {
        "run_id": f"run-{task}",
        "task": task,
        "attempt": 1,
        "max_attempts": 3,
        "input": json.dumps(input),
        "metadata": "{}",
        "execution_timeout": 300.0,
        "lease_token": "lease-token",
    } | changes
    known.setdefault("report_url", f"{SERVER}/runs/{known['run_id']}/attempts/{known['attempt']}")
    return wire.DeliveredRun(**known)


def delivery(*runs: wire.DeliveredRun, worker: str = WORKER, url: str = URL) -> bytes:
    """Return the body of a delivery."""
    return wire.deliver_body(worker, url, "2026-11-21T12:00:00.000Z", runs)


def cancellation(*runs: tuple[str, int]) -> bytes:
    """Return the body of a `cancel` message."""
    return wire.cancel_body(WORKER, URL, "2026-11-21T12:00:00.000Z", [(*run, "asked by a user") for run in runs])


def signed(body: bytes, *, keys: Sequence[str] = (SECRET,), at: float | None = None) -> dict[str, str]:
    """Return the headers of a signed request."""
    timestamp = int(time.time() if at is None else at)
    return {
        signing.HEADER_ID: "msg_1",
        signing.HEADER_TIMESTAMP: str(timestamp),
        signing.HEADER_SIGNATURE: signing.sign(keys, "msg_1", timestamp, body),
    }


class Exchange:
    """One HTTP request to an ASGI application, with its answer as far as it has come."""

    def __init__(
        self, app: Any, body: bytes = b"", *, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> None:
        given = signed(body) if headers is None else headers
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/",
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
        }
        self.sends: list[bytes] = []
        self.status = 0
        self.headers: dict[str, str] = {}
        self.bytes_read = 0
        self.complete = False
        self.send_error: Exception | None = None
        self._body = [body]
        self._gone = asyncio.Event()
        self._news = asyncio.Condition()
        self.task = asyncio.get_running_loop().create_task(app(self.scope, self._receive, self._send))

    async def finish(self) -> "Exchange":
        """Return once the application has answered."""
        async with asyncio.timeout(120):
            await self.task
        return self

    async def until(self, count: int, type: str) -> list[dict[str, Any]]:
        """Return all lines once so many of one type have come."""
        async with asyncio.timeout(120), self._news:
            await self._news.wait_for(lambda: sum(line["type"] == type for line in self.lines) >= count)
        return self.lines

    def disconnect(self) -> None:
        """Close the connection from the other side."""
        self._gone.set()

    @property
    def body(self) -> bytes:
        return b"".join(self.sends)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        return {line["run_id"]: line for line in self.lines if line["type"] == "result"}

    async def _receive(self) -> dict[str, Any]:
        if self._body:
            chunk = self._body.pop(0)
            self.bytes_read += len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": bool(self._body)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.send_error is not None:
            raise self.send_error
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        async with self._news:
            self.sends.append(message["body"])
            self.complete = not message.get("more_body", False)
            self._news.notify_all()


async def result_of(hurlbat: Hurlbat, run: wire.DeliveredRun) -> dict[str, Any]:
    """Deliver one run and return its result line."""
    exchange = await Exchange(hurlbat.asgi(), delivery(run)).finish()
    assert exchange.status == 200, exchange.body
    return exchange.results[run.run_id]
