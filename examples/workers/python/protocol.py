"""A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, can be cancelled."""

import hashlib
import json
import os
import re
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from threading import Event, Lock, Thread, Timer
from typing import Any

from standardwebhooks import Webhook

Task = Callable[[Any, Event], Any]


class Failure(Exception):
    """What a task raises to say whether it may be tried again, and after how many seconds."""

    def __init__(self, message: str, retryable: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.told = {"retryable": retryable, "retry_after": retry_after}


def shout(input: Any, _: Event) -> Any:
    return input["text"].upper()


def echo(input: Any, _: Event) -> Any:
    return input


def sleep(input: Any, cancelled: Event) -> Any:
    if cancelled.wait(input["seconds"]):
        raise Failure("cancelled")
    return {"slept": input["seconds"]}


def fail(input: Any, _: Event) -> Any:
    raise Failure(**input)


# A task gets its run's input, and an event that is set when the run is cancelled. It returns the output.
TASKS: dict[str, Task] = {
    "shout": shout,
    "conform.echo": echo,
    "conform.sleep": sleep,
    "conform.fail": fail,
}
DECLARED = [{"name": name, "retries": 3} for name in TASKS]
VERSION = hashlib.sha256(json.dumps(DECLARED).encode()).hexdigest()[:16]
MANIFEST = {"protocol": 1, "version": VERSION, "sdk": "python-example", "max_batch": 16, "tasks": DECLARED}
HOST, PORT = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
SECRETS = re.findall(r"[^,\s]+", ",".join(os.environ.get(f"HURLBAT_SIGNING_SECRET{s}", "") for s in ("S", "")))
if not SECRETS or not all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", secret) for secret in SECRETS):
    sys.exit("set HURLBAT_SIGNING_SECRET to the secret of this worker: whsec_ and the base64 of 24 to 64 bytes")
WEBHOOKS = [Webhook(secret) for secret in SECRETS]  # while a secret rotates, any of them may have signed
MAX_BYTES, MAX_OUTPUT, REMEMBERED = 16 * 1024 * 1024, 1024 * 1024, 1_000
POOL = ThreadPoolExecutor(100)  # as many as the slots with which it is registered


class Attempt:
    def __init__(self, run: dict[str, Any]) -> None:
        self.cancelled = Event()
        self.result = POOL.submit(self.execute, TASKS[run["task"]], run["input"])

    def execute(self, task: Task, input: Any) -> dict[str, Any]:
        try:
            output = task(input, self.cancelled)
            if len(json.dumps(output)) > MAX_OUTPUT:
                raise Failure("an output of more than 1 MiB", retryable=False)
            return {"state": "completed", "output": output}
        except Exception as error:
            said = {"type": type(error).__name__, "message": str(error), "stack": traceback.format_exc()}
            return {"state": "failed", "error": said, **getattr(error, "told", {})}


attempts: dict[tuple[str, int], Attempt] = {}  # those that run here, and those that did
lock = Lock()


class Worker(BaseHTTPRequestHandler):
    timeout = 60  # for a connection that says nothing, or does not read

    def do_GET(self) -> None:
        self.answer(405, {"detail": "POST is what is served here"})

    def do_POST(self) -> None:
        size = int(self.headers.get("content-length", "-1"))
        if not 0 <= size <= MAX_BYTES:
            self.answer(413, {"detail": "only bodies of up to 16 MiB are taken"})
            return
        body = self.rfile.read(size)
        if not is_signed(body, self.headers):
            self.answer(401, {"detail": "the signature is missing, wrong or old"})
            return
        match read(body):
            case {"type": "describe"}:
                self.answer(200, MANIFEST)
            case {"type": "probe"}:
                self.answer(200, {})
            case {"type": "cancel", "data": {"runs": runs}}:
                self.answer(200, {"runs": cancel(runs)})
            case {"type": "deliver", "data": {"runs": runs, "heartbeat": heartbeat}}:
                self.deliver(runs, heartbeat)
            case _:
                self.answer(400, {"detail": "this is no message that is known here"})

    def answer(self, status: int, body: Any) -> None:
        self.head(status, "application/json")
        self.wfile.write(json.dumps(body).encode())

    def head(self, status: int, content_type: str) -> None:
        self.send_response(status)
        self.send_header("hurlbat-worker", VERSION)
        self.send_header("content-type", content_type)
        self.end_headers()

    def deliver(self, runs: list[dict[str, Any]], heartbeat: float) -> None:
        self.head(200, "application/x-ndjson")
        waiting: dict[Future[dict[str, Any]], dict[str, Any]] = {}
        for run in runs:
            if run["task"] in TASKS:
                waiting[begin(run).result] = run
                self.line({"type": "started", "run_id": run["run_id"], "attempt": run["attempt"]})
            else:
                error = {"type": "unknown_task", "message": f"{run['task']} is not served here"}
                self.result(run, {"state": "failed", "error": error})
        while waiting:
            ended, _ = wait(waiting, heartbeat, FIRST_COMPLETED)
            for each in ended:
                self.result(waiting.pop(each), each.result())
            if not ended:
                self.line({"type": "heartbeat"})

    def result(self, run: dict[str, Any], told: dict[str, Any]) -> None:
        self.line({"type": "result", "run_id": run["run_id"], "attempt": run["attempt"], **told})

    def line(self, line: dict[str, Any]) -> None:
        self.wfile.write(json.dumps(line).encode() + b"\n")


def is_signed(body: bytes, headers: Message) -> bool:
    given = headers.get("webhook-signature", "").split()
    for webhook, signature in product(WEBHOOKS, given):  # one by one: some may be of a kind not known here
        with suppress(Exception):
            webhook.verify(body, {**headers, "webhook-signature": signature}, json_parse=False)
            return True
    return False


def read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def begin(run: dict[str, Any]) -> Attempt:
    with lock:
        key = run["run_id"], run["attempt"]
        if key not in attempts:  # else it was sent twice, and runs once
            attempts[key] = Attempt(run)
            if len(attempts) > REMEMBERED:
                del attempts[next(iter(attempts))]
        return attempts[key]


def cancel(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [attempts.get((run["run_id"], run["attempt"])) for run in runs]
    for attempt in filter(None, found):
        attempt.cancelled.set()
    ended = wait([attempt.result for attempt in found if attempt], 3).done  # only what has ended has stopped
    status = ["stopped" if attempt and attempt.result in ended else "unknown" for attempt in found]
    return [{"run_id": r["run_id"], "attempt": r["attempt"], "status": s} for r, s in zip(runs, status, strict=True)]


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
    request_queue_size = 128  # deliveries come side by side, each on a connection
    daemon_threads = False  # when it closes it waits for the deliveries that are under way


def stop(*_: object) -> None:
    Timer(10, os._exit, [1]).start()
    Thread(target=server.shutdown).start()


server = Server((HOST, PORT), Worker)
signal.signal(signal.SIGTERM, stop)
server.serve_forever()
server.server_close()
os._exit(0)
