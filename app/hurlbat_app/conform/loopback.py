"""Where workers that answer 202 report: a small server on this machine that takes down what they say."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from hurlbat.jsontext import JsonTextError, parse
from hurlbat.wire import LEASE_SECONDS

MAX_REPORT_BYTES: Final = 4 * 1_048_576
_FINAL: Final = {"complete": "completed", "fail": "failed", "cancel": "cancelled"}


@dataclass(frozen=True, slots=True)
class Reported:
    """One report: when it came, of which attempt, `heartbeat`, `log`, `complete`, `fail` or `cancel`, and its body."""

    at: float
    run_id: str
    attempt: int
    what: str
    authorization: str
    body: Any
    wrong: str | None = None

    @property
    def final(self) -> bool:
        """Whether it ends the attempt."""
        return self.what in _FINAL

    @property
    def line(self) -> dict[str, Any]:
        """The result line that a final report stands for."""
        said = self.body if isinstance(self.body, dict) else {}
        named = {"type": "result", "run_id": self.run_id, "attempt": self.attempt, "state": _FINAL[self.what]}
        return {**said, **named}


class Loopback:
    """Listens on a port of 127.0.0.1 while its block lasts; `hear` is called on the event loop for every report."""

    def __init__(self, hear: Callable[[Reported], None]) -> None:
        self._hear = hear
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where reports go."""
        return f"http://127.0.0.1:{self._server.server_port}" if self._server else ""

    def report_url(self, run_id: str, attempt: int) -> str:
        """Return where an attempt is reported to."""
        return f"{self.url}/runs/{run_id}/attempts/{attempt}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()

        def hear(report: Reported) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._hear, report)

        class Handler(_Handler):
            told = staticmethod(hear)

        server = _Server(("127.0.0.1", 0), Handler)
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing of a request that breaks off or cannot be read: what is missing is told by a check."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    told: Callable[[Reported], None]

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length") or 0)
        parts = self.path.strip("/").split("/")
        if size > MAX_REPORT_BYTES or len(parts) != 5 or (parts[0], parts[2]) != ("runs", "attempts"):
            self.close_connection = True
            self._answer(413 if size > MAX_REPORT_BYTES else 404, {})
            return
        body, wrong = _read(self.rfile.read(size))
        attempt = int(parts[3]) if parts[3].isdecimal() else -1
        authorization = self.headers.get("authorization", "")
        self.told(Reported(time.monotonic(), parts[1], attempt, parts[4], authorization, body, wrong))
        self._answer(200, {"cancelled": False, "lease": LEASE_SECONDS} if parts[4] == "heartbeat" else {})

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what matters is in the report."""


def _read(body: bytes) -> tuple[Any, str | None]:
    if not body.strip():
        return None, None
    try:
        return parse(body), None
    except JsonTextError as error:
        return None, f"its body is not JSON: {error.message}"
