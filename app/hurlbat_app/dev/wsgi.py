"""Serve a WSGI application for development: a thread for each request, and a stop that waits for those there are."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each request. They are counted, so that a stop can wait for them for so long and no longer."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._busy = 0
        self._changed = threading.Condition()

    def server_bind(self) -> None:
        """Bind without asking for the machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Begin a request."""
        with self._changed:
            self._busy += 1
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def settle(self, seconds: float) -> None:
        """Wait for the requests that there are, for so many seconds at most."""
        until = time.monotonic() + seconds
        with self._changed:
            while self._busy and self._changed.wait(until - time.monotonic()):
                pass


def serve(app: Any, host: str, port: int, *, quiet: Collection[str], began: Callable[[], None], grace: float) -> None:
    """Serve until SIGTERM. Requests to the `quiet` paths are not logged. Raises `OSError`."""

    class Handler(WSGIRequestHandler):
        def address_string(self) -> str:
            return str(self.client_address[0])

        def log_request(self, code: Any = "-", size: Any = "-") -> None:  # noqa: ARG002
            if self.path.partition("?")[0] not in quiet:
                said = f"INFO:     {self.client_address[0]}:{self.client_address[1]} - "
                line = "".join(one if one.isprintable() else "\ufffd" for one in self.requestline)  # it is a terminal
                sys.stderr.write(f'{said}"{line}" {getattr(code, "value", code)}\n')

    with make_server(host, port, app, _Server, Handler) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        began()
        server.serve_forever(poll_interval=0.1)
        server.socket.close()
        server.settle(grace)
