"""A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file."""

import json
import os
import re
import socket
import sys
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from standardwebhooks import Webhook

SECRET = os.environ.get("HURLBAT_SIGNING_SECRET", "")
if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", SECRET):
    sys.exit("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
WEBHOOK = Webhook(SECRET)
RECEIPTS = Path(os.environ.get("RECEIPTS", "."))
HOST, PORT = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
ORDER = re.compile(r"[\w-]+")
MAX_BYTES = 16 * 1024 * 1024
written: dict[str, Any] = {}  # what succeeded, by the run's id; if it must outlive a restart, a table with a unique key
writing: dict[str, Lock] = {}


def verified(body: bytes, headers: Message) -> Any:
    for signature in headers.get("webhook-signature", "").split():  # one by one: some may be of a kind not known here
        with suppress(Exception):
            return WEBHOOK.verify(body, {**headers, "webhook-signature": signature})
    return None


def write(id: str, input: Any) -> tuple[int, Any, dict[str, str]]:
    match input:
        case {"order": str(order), "amount": int() | float() as amount} if ORDER.fullmatch(order) and amount > 0:
            lock = writing.setdefault(id, Lock())
        case _:
            return 422, "order and amount are wanted", {"hurlbat-retry": "no"}
    if not lock.acquire(blocking=False):
        return 503, "still at it", {"retry-after": "5"}  # it waits so long, uncharged
    try:
        if id not in written:
            (RECEIPTS / f"{order}.txt").write_text(f"{amount}\n")
            written[id] = {"receipt": f"{order}.txt"}  # only after success: a failed one is to be tried again
        return 200, written[id], {}
    except OSError as error:
        return 500, str(error), {}
    finally:
        lock.release()


class Worker(BaseHTTPRequestHandler):
    timeout = 60  # for a connection that says nothing, or does not read

    def do_GET(self) -> None:
        self.answer(405, "POST is what is served here")

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length", "-1"))
        if not 0 <= size <= MAX_BYTES:
            self.answer(413, "only bodies of up to 16 MiB are taken")
            return
        message = verified(self.rfile.read(size), self.headers)
        if message is None:
            self.answer(401, "the signature is missing, wrong or old")
        else:
            self.answer(*write(self.headers["webhook-id"], message["data"]["runs"][0]["input"]))

    def answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
    request_queue_size = 128  # deliveries come side by side, each on a connection


Server((HOST, PORT), Worker).serve_forever()
