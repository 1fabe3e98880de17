"""The server of WSGI applications in development."""

import os
import signal
import socket
import threading
from typing import Any

import pytest

from hurlbat_app.dev import wsgi
from tests.support.ports import free_port


def _hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"hello"]


def test_a_request_cannot_write_to_the_terminal_what_controls_it(capfd: pytest.CaptureFixture[str]) -> None:
    port = free_port()

    def ask() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /\x1b]0;owned\x07 HTTP/1.1\r\nhost: x\r\n\r\n")
            while client.recv(1_000):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        wsgi.serve(_hello, "127.0.0.1", port, quiet=(), began=threading.Thread(target=ask).start, grace=60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert '"GET /\ufffd]0;owned\ufffd HTTP/1.1" 200' in capfd.readouterr().err
