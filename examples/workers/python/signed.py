"""What both workers need: a server that lets in what is signed, and nothing else."""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from itertools import product
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from standardwebhooks import Webhook

HOST, PORT = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
SECRETS = re.findall(r"[^,\s]+", ",".join(os.environ.get(f"HURLBAT_SIGNING_SECRET{s}", "") for s in ("S", "")))
if not SECRETS or not all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", secret) for secret in SECRETS):
    sys.exit("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
WEBHOOKS = [Webhook(secret) for secret in SECRETS]  # while a secret rotates, any of them may have signed


class Answer(NamedTuple):
    """What is answered: the body is sent as JSON, and that of an iterator line by line."""

    status: int
    body: Any
    headers: Mapping[str, str] = {}


def receive(request: WSGIEnvironment, take: Callable[[Any], Answer]) -> Answer:
    """Answer what is not good, and let `take` answer each message."""
    if request["REQUEST_METHOD"] != "POST":
        return Answer(405, "POST is what is served here")
    size = int(request.get("CONTENT_LENGTH") or -1)
    if not 0 <= size <= 16 * 1024 * 1024:
        return Answer(413, "only bodies of up to 16 MiB are taken")
    body = request["wsgi.input"].read(size)
    if not is_signed(body, request):
        return Answer(401, "the signature is missing, wrong or old")
    try:
        return take(json.loads(body))
    except (ValueError, LookupError, TypeError) as error:
        return Answer(400, f"this is no message that is known here: {error!r}")


def is_signed(body: bytes, request: WSGIEnvironment) -> bool:
    headers = {name[5:].replace("_", "-"): value for name, value in request.items() if name.startswith("HTTP_")}
    given = headers.get("WEBHOOK-SIGNATURE", "").split()
    for webhook, signature in product(WEBHOOKS, given):  # one by one: some may be of a kind not known here
        with suppress(Exception):
            webhook.verify(body, {**headers, "WEBHOOK-SIGNATURE": signature}, json_parse=False)
            return True
    return False


class Server(ThreadingMixIn, WSGIServer):
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
    request_queue_size = 128  # deliveries come side by side, each on a connection


class Connection(WSGIRequestHandler):
    timeout = 60  # for one that says nothing, or does not read


def serve(take: Callable[[Any], Answer], headers: Mapping[str, str] = {}) -> None:
    """Answer requests until the process is told to stop, and what is under way then. All answers have the headers."""

    def app(request: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        status, body, more = receive(request, take)
        streams = isinstance(body, Iterator)
        kind = {"content-type": "application/x-ndjson" if streams else "application/json"}
        start_response(f"{status} {HTTPStatus(status).phrase}", [*{**headers, **kind, **more}.items()])
        return (json.dumps(line).encode() + b"\n" for line in body) if streams else [json.dumps(body).encode()]

    server = make_server(HOST, PORT, app, Server, Connection)
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    server.serve_forever()
    signal.alarm(10)  # what runs may end, but for no longer
    server.server_close()
