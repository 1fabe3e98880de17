"""A process that is told to stop closes its streams at once, and leaves when its runs or the grace time have ended."""

import asyncio
import json
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import httpx
import pytest

from hurlbat.stopping import on_stop_signal
from tests.sdk.exchange import SECRET, a_run, delivery, signed
from tests.support.processes import Processes

pytestmark = pytest.mark.anyio


class Listener:
    """Whoever handled the signal before: a web server."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self.told = asyncio.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.heard.append(number)
        self.told.set()


async def test_a_stop_is_heard_here_first_and_then_by_whoever_listened_before() -> None:
    before, called = Listener(), asyncio.Event()
    original = signal.signal(signal.SIGTERM, before)
    try:
        with on_stop_signal(called.set):
            signal.raise_signal(signal.SIGTERM)
            async with asyncio.timeout(120):
                await called.wait()
                assert before.heard == []
                await before.told.wait()
        assert before.heard == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is before
    finally:
        signal.signal(signal.SIGTERM, original)


async def test_a_second_signal_goes_through_at_once() -> None:
    before = Listener()
    original = signal.signal(signal.SIGTERM, before)
    try:
        with on_stop_signal(lambda: None):
            signal.raise_signal(signal.SIGTERM)
            assert before.heard == []
            signal.raise_signal(signal.SIGTERM)
            assert before.heard == [signal.SIGTERM]
            async with asyncio.timeout(120):
                while len(before.heard) < 2:
                    before.told.clear()
                    await before.told.wait()
    finally:
        signal.signal(signal.SIGTERM, original)


async def test_a_signal_that_nobody_handles_is_left_alone() -> None:
    original = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with on_stop_signal(lambda: None):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, original)


def test_outside_the_main_thread_nothing_is_touched() -> None:
    found: list[Any] = []

    def look() -> None:
        with on_stop_signal(lambda: None):
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


class Reports(BaseHTTPRequestHandler):
    """Takes what a worker reports."""

    taken: list[tuple[str, Any]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.taken.append((self.path.rpartition("/")[2], body))
        answer = b'{"cancelled": false, "lease": 15}'
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def reports() -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server that takes reports: its URL, and what it has taken."""
    taken: list[tuple[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Taking", (Reports,), {"taken": taken}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", taken
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("ends", "grace", "last"),
    [(True, "120", ("complete", {"output": "done"})), (False, "5", ("fail", "worker_stopped"))],
)
def test_sigterm_closes_the_stream_and_the_run_reports_by_itself(
    processes: Processes,
    reports: tuple[str, list[tuple[str, Any]]],
    tmp_path: Path,
    ends: bool,
    grace: str,
    last: tuple[str, Any],
) -> None:
    url, taken = reports
    worker = processes.app("tests.sdk.stopping_worker:app", HURLBAT_SIGNING_SECRET=SECRET, HURLBAT_GRACE=grace)
    body = delivery(a_run("slow", str(tmp_path / "end"), report_url=url))
    lines: list[str] = []
    with httpx.stream("POST", f"{worker.url}/hurlbat/", content=body, headers=signed(body), timeout=60) as response:
        for line in response.iter_lines():
            lines.append(line)
            worker.signal(signal.SIGTERM)
    assert [json.loads(line)["type"] for line in lines] == ["started"]
    worker.until(lambda: ("heartbeat", {}) in taken, "heartbeat")
    if ends:
        (tmp_path / "end").touch()
    assert worker.wait() in (0, -signal.SIGTERM)
    action, said = taken[-1]
    assert (action, said if action == "complete" else said["error"]["type"]) == last
    assert "Traceback" not in worker.output
