"""What both workers need: a server that lets in what is signed, and nothing else."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from threading import Thread, Timer
from typing import Any

from standardwebhooks import Webhook

ADDRESS = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
SECRETS = re.findall(r"[^,\s]+", ",".join(os.environ.get(f"HURLBAT_SIGNING_SECRET{s}", "") for s in ("S", "")))
if not SECRETS or not all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", secret) for secret in SECRETS):
    sys.exit("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
WEBHOOKS = [Webhook(secret) for secret in SECRETS]  # while a secret rotates, any of them may have signed


class SignedHandler(BaseHTTPRequestHandler):
    """Answers what is not good, and gives each message to `take`."""

    server: "Server"
    timeout = 60  # for a connection that says nothing, or does not read

    def take(self, message: Any) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer(405, "POST is what is served here")

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length", "-1"))
        if not 0 <= size <= 16 * 1024 * 1024:
            self.answer(413, "only bodies of up to 16 MiB are taken")
            return
        body = self.rfile.read(size)
        if not self.is_signed(body):
            self.answer(401, "the signature is missing, wrong or old")
            return
        try:
            message = json.loads(body)
        except ValueError:
            self.answer(400, "this is no message that is known here")
        else:
            self.take(message)

    def is_signed(self, body: bytes) -> bool:
        given = self.headers.get("webhook-signature", "").split()
        for webhook, signature in product(WEBHOOKS, given):  # one by one: some may be of a kind not known here
            with suppress(Exception):
                webhook.verify(body, {**self.headers, "webhook-signature": signature}, json_parse=False)
                return True
        return False

    def answer(self, status: int, body: Any, headers: Mapping[str, str] = {}) -> None:
        self.head(status, {"content-type": "application/json", **headers})
        self.wfile.write(json.dumps(body).encode())

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**self.server.headers, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in ADDRESS[0] else socket.AF_INET
    request_queue_size = 128  # deliveries come side by side, each on a connection
    daemon_threads = False  # when it closes it waits for the deliveries that are under way
    headers: Mapping[str, str]


def serve(handler: type[SignedHandler], headers: Mapping[str, str] = {}) -> None:
    """Answer requests until the process is told to stop, and what is under way then. All answers have the headers."""
    server = Server(ADDRESS, handler)
    server.headers = headers

    def stop(*_: object) -> None:
        Thread(target=server.shutdown).start()
        patience = Timer(10, os._exit, [1])  # if what runs has not ended by then
        patience.daemon = True
        patience.start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    server.server_close()
