"""A worker that keeps the protocol but for the faults it is given, written without the SDK and raw to the socket."""

import base64
import gzip
import hashlib
import hmac
import json
import queue
import re
import socket
import threading
import time
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

SECRET = "whsec_" + base64.b64encode(b"the secret of a sloppy worker...").decode()
LIMIT = 16 * 1_048_576
LONGEST_OUTPUT = 1_048_576
TASKS = ("conform.echo", "conform.sleep", "conform.fail", "own.task")
MANIFEST = {
    "protocol": 1,
    "version": "7",
    "sdk": "sloppy/1",
    "max_batch": 8,
    "tasks": [{"name": name} for name in TASKS],
}
KNOWN = {
    *("type", "timestamp", "data", "worker", "url", "heartbeat", "runs", "run_id", "task", "attempt", "max_attempts"),
    *("input", "metadata", "execution_timeout", "lease_token", "report_url", "reason", "padding"),
}
Json = Any
Key = tuple[str, int]


class Sloppy(ThreadingHTTPServer):
    """Listens on a port of its own while its block lasts."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *faults: str, host: str = "127.0.0.1", path: str = "/", handler: Any = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), handler or SloppyHandler)
        self.faults = frozenset(faults)
        self.path = path
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}{path}"
        self.lock = threading.Lock()
        self.running: dict[Key, Execution] = {}
        self.asked = 0
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def die(self) -> None:
        """Take no connections any more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Say nothing of what crashes on purpose, and of clients that are gone."""

    def key(self, run: Json) -> Key:
        """Return what an attempt is remembered by."""
        return run["run_id"], 0 if "remembers-run-ids" in self.faults else run["attempt"]

    def execution(self, run: Json) -> "Execution":
        """Begin an attempt, or find the one that was begun before."""
        key = self.key(run)
        with self.lock:
            found = self.running.get(key)
            forgotten = found is not None and found.done.is_set() and "forgets" in self.faults
            if found is None or forgotten or "runs-twice" in self.faults:
                found = self.running[key] = Execution(run, self.faults)
                threading.Thread(target=found.carry_out, daemon=True).start()
            return found


class Execution:
    """One attempt: its result, once it is there."""

    def __init__(self, run: Json, faults: frozenset[str]) -> None:
        self.run = run
        self.faults = faults
        self.result: Json = None
        self.stop = threading.Event()
        self.done = threading.Event()

    def carry_out(self) -> None:
        """Make the result."""
        self.result = self._made(self.run["task"], self.run["input"])
        self.done.set()

    def _made(self, task: str, input: Json) -> Json:
        match task:
            case "conform.echo" | "own.task":
                output = "" if "null-is-empty" in self.faults and input is None else input
                if "loses-names" in self.faults and isinstance(output, dict):
                    output = {name: value for name, value in output.items() if name != "__proto__"}
                if "ascii" in self.faults:
                    output = json.loads(json.dumps(output, ensure_ascii=False).encode("ascii", "replace"))
                if len(json.dumps(output)) > LONGEST_OUTPUT and "long-lines" not in self.faults:
                    return self._failed("invalid_output", "too long", retryable=False)
                return {"state": "completed", "output": output}
            case "conform.sleep":
                if self.stop.wait(input["seconds"]):
                    return self._failed("cancelled", "told to stop", retryable=False)
                return {"state": "completed", "output": {"slept": input["seconds"]}}
            case "conform.fail":
                said = {name: input[name] for name in ("retryable", "retry_after") if name in input}
                if "always-retryable" in self.faults:
                    said["retryable"] = True
                if "drops-retry-after" in self.faults:
                    said.pop("retry_after", None)
                return self._failed("" if "no-error-type" in self.faults else "Failure", input["message"], **said)
        return self._failed("KeyError" if "unknown-task-by-another-name" in self.faults else "unknown_task", task)

    def _failed(self, type: str, message: str, **more: Json) -> Json:
        if "ascii" in self.faults:
            message = message.encode("ascii", "replace").decode()
        return {"state": "failed", "error": {"type": type, "message": message}, **more}


class SloppyHandler(BaseHTTPRequestHandler):
    """Answers as the protocol says, but for the faults of its server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Sloppy

    def do_GET(self) -> None:
        self.got()

    def do_POST(self) -> None:
        self.posted()

    def got(self) -> None:
        """Answer a GET."""
        if "get-crashes" in self.faults:
            raise RuntimeError("on purpose")
        self.whole(200, {"status": "ok"})

    def posted(self) -> None:
        """Answer a POST."""
        if "speaks-no-http" in self.faults:
            self.close_connection = True
            self.wfile.write(b"220 mail.example ESMTP\r\n\r\n")
            return None
        if "is-hostile" in self.faults:
            self.rfile.read(int(self.headers["content-length"]))
            bomb = "refuses" if self.headers["webhook-signature"] else "\x1b[31m\u202e" + "[" * 100_000
            return self.problem(401, "\x1b]0;owned\x07 \ud800" + bomb)
        if "is-a-bomb" in self.faults:
            self.rfile.read(int(self.headers["content-length"]))
            return self.send(200, "application/json", b"0" * 40_000_000)
        if "hangs" in self.faults:
            time.sleep(90)
        if "wants-a-header" in self.faults and self.headers["x-pass"] != "open=sesame":
            self.rfile.read(int(self.headers["content-length"]))
            return self.problem(404, "nothing here")
        size = int(self.headers["content-length"])
        if "login-page" in self.faults:
            self.rfile.read(size)
            return self.send(200, "text/html", b"<html>Please log in</html>", mark=False)
        if "redirects" in self.faults:
            self.rfile.read(size)
            return self.send(307, "text/plain", b"", location="/elsewhere/")
        limit = next((int(fault[6:]) for fault in self.faults if fault.startswith("limit-")), LIMIT)
        if size > limit:
            self.close_connection = True
            return self.problem(413, "too large")
        body = self.rfile.read(size)
        if self.path != self.server.path:
            return self.problem(404, "nothing here")
        probes_alone = "verifies-probes-alone" in self.faults and b'"type":"probe"' not in body
        if not (self.verified(body) or probes_alone):
            refused = 500 if "500-on-bad-signature" in self.faults else 403 if "403-for-401" in self.faults else 401
            return self.problem(refused, "the signature is not good")
        try:
            message = json.loads(body, parse_int=short_int if "short-numbers" in self.faults else int)
            kind, data = message["type"], message["data"]
            runs = data["runs"] if kind in ("deliver", "cancel") else []
        except (ValueError, KeyError, TypeError):
            return self.problem(500 if "crashes-on-no-message" in self.faults else 400, "no message")
        if "crashes-on-unknown-members" in self.faults and set(members(message)) - KNOWN:
            raise RuntimeError("on purpose")
        if data["worker"] != "conform" and "checks-target" in self.faults:
            return self.problem(500 if "crashes-on-another-target" in self.faults else 403, "wrong_target")
        match kind:
            case "describe":
                return self.describe()
            case "probe":
                return self.whole(200, {"ok": True})
            case "cancel":
                return self.cancel(runs)
            case "deliver":
                return self.deliver(data, runs)
        if "dies" in self.faults:
            self.server.die()
            raise RuntimeError("on purpose")
        return self.problem(500 if "crashes-on-unknown-type" in self.faults else 400, "unknown type")

    # -- signatures ------------------------------------------------------------------------------------------------

    def verified(self, body: bytes) -> bool:
        found = dict(self.headers.items()) if "exact-case" in self.faults else self.headers
        message_id, timestamp, signatures = (
            found.get(f"webhook-{name}") or "" for name in ("id", "timestamp", "signature")
        )
        if "takes-unsigned" in self.faults and not signatures:
            return True
        if "garbage-crashes" in self.faults:
            int(timestamp)
            for one in signatures.split(" "):
                base64.b64decode(one.partition(",")[2], validate=True)
        if not (timestamp.isascii() and timestamp.isdecimal() and message_id and len(timestamp) < 13):
            return False
        aged_by = self.headers.get_all("webhook-timestamp", [])[-1] if "age-by-the-last" in self.faults else timestamp
        age = time.time() - int(aged_by)
        if "no-skew" in self.faults and age < 0:
            return False
        if "no-age-check" not in self.faults and (age > 300 or (age < -300 and "takes-the-future" not in self.faults)):
            return False
        if "believes" in self.faults and signatures:
            return True
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        if "signs-latin-1" in self.faults:
            body = body.decode("utf-8", "replace").encode("latin-1", "replace")
        content = f"{message_id}.{timestamp}.".encode("latin-1") + body
        good = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        listed = signatures.split(" ")
        if "first-signature-only" in self.faults:
            listed = listed[:1]
        if "last-signature-only" in self.faults:
            listed = listed[-1:]
        return any(self.matches(good, given) for given in listed)

    def matches(self, good: str, given: str) -> bool:
        """Compare a signature, or the part of it that the faults leave."""
        kind, _, signature = given.partition(",")
        if "ignores-the-kind" in self.faults:
            return given.endswith(good[3:]) and len(given) <= len(good) + 1
        if kind != "v1":
            return False
        decoded, expected = lenient_base64(signature), lenient_base64(good[3:])
        if "crashes-on-other-lengths" in self.faults and len(decoded) != len(expected):
            raise RuntimeError("on purpose")
        if "compares-a-prefix" in self.faults:
            return decoded[:8] == expected[:8]
        if "compares-a-suffix" in self.faults:
            return decoded[-8:] == expected[-8:]
        if "compares-what-came" in self.faults:
            return good.startswith(given)
        if "stops-at-no-base64" in self.faults:
            return decoded != b"" and expected.startswith(decoded)
        if "any-of-good-length" in self.faults:
            return len(decoded) == len(expected)
        if "ignores-letter-case" in self.faults:
            return given.lower() == good.lower()
        return given == good

    # -- messages --------------------------------------------------------------------------------------------------

    def describe(self) -> None:
        manifest: dict[str, Json] = dict(MANIFEST)
        if "bad-manifest" in self.faults:
            manifest["max_batch"] = 1_000
        if "whole-and-says-so" in self.faults:
            manifest["streams"] = False
        if "only-own-task" in self.faults:
            manifest["tasks"] = [{"name": "own.task"}]
        if "max-batch-1" in self.faults:
            manifest["max_batch"] = 1
        if "version-changes" in self.faults:
            with self.server.lock:
                self.server.asked += 1
                manifest["version"] = str(self.server.asked)
        text = json.dumps(manifest).encode()
        kind = "text/html" if "manifest-as-html" in self.faults else "application/json"
        self.send(200, kind, text, version="another" if "another-mark" in self.faults else manifest["version"])

    def cancel(self, runs: Json) -> None:
        if "ignores-cancel" in self.faults:
            return self.whole(200, {"ok": True})
        answers = []
        for run in runs:
            execution = self.server.running.get(self.server.key(run))
            status = "unknown"
            if execution is not None:
                if "goes-on-when-stopped" not in self.faults:
                    execution.stop.set()
                    execution.done.wait(60)
                status = "stopped"
            elif "says-stopped-of-all" in self.faults:
                status = "stopped"
            answers.append({"run_id": run["run_id"], "attempt": run["attempt"], "status": status})
        return self.whole(200, {"runs": answers})

    def deliver(self, data: Json, runs: Json) -> None:
        if "unknown-task-crashes" in self.faults and any(run["task"] not in TASKS for run in runs):
            return self.problem(500, "KeyError")
        if "answers-one-of-many" in self.faults:
            runs = runs[:1]
        if "202" in self.faults:
            threading.Thread(target=report, args=(self.server, data, runs), daemon=True).start()
            return self.whole(202, {})
        if "failure-stops-neighbours" in self.faults and "conform.fail" in (tasks := [run["task"] for run in runs]):
            runs = runs[: tasks.index("conform.fail") + 1]
        if not self.faults & {"whole", "whole-and-says-so"}:
            return self.stream(runs, data["heartbeat"])
        executions = [self.server.execution(run) for run in runs]
        for execution in executions:
            execution.done.wait(60)
        return self.whole(200, {"results": [result_line(execution) for execution in executions]})

    def stream(self, runs: Json, heartbeat: float) -> None:
        self.head(200, "application/x-ndjson", {"transfer-encoding": "chunked"})
        buffered: list[bytes] = []

        def write(data: bytes) -> None:
            if "buffers" in self.faults:
                buffered.append(data)
            else:
                self.chunk(data)

        lines: queue.Queue[Json] = queue.Queue()
        together = [runs] if "one-after-the-other" in self.faults else [[run] for run in runs]
        for listed in together:
            threading.Thread(target=follow, args=(self.server, listed, lines), daemon=True).start()
        missing = len(runs) * (2 if "two-results" in self.faults else 1)
        while missing:
            try:
                line = lines.get(timeout=1e6 if "no-heartbeats" in self.faults else heartbeat)
            except queue.Empty:
                line = {"type": "heartbeat"}
            missing -= line["type"] == "result"
            write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        if buffered:
            self.chunk(b"".join(buffered))
        if self.faults & {"stays-open", "never-ends"}:
            time.sleep(3.5 if "stays-open" in self.faults else 30)
        if self.packer:
            self.piece(self.packer.flush())
        self.wfile.write(b"0\r\n\r\n")

    # -- answers ---------------------------------------------------------------------------------------------------

    @property
    def faults(self) -> frozenset[str]:
        return self.server.faults

    def whole(self, status: int, value: Json) -> None:
        self.send(status, "application/json", json.dumps(value).encode())

    def problem(self, status: int, detail: str) -> None:
        body = json.dumps({"code": detail, "detail": detail}).encode()
        self.send(status, "application/problem+json", body, mark="no-mark-on-errors" not in self.faults)

    def send(
        self, status: int, kind: str, body: bytes, *, mark: bool = True, version: str = "7", **headers: str
    ) -> None:
        if "compresses" in self.faults:
            body = gzip.compress(body)
        self.head(status, kind, headers | {"content-length": str(len(body))}, mark=mark, version=version)
        self.wfile.write(body)

    def head(self, status: int, kind: str, headers: dict[str, str], *, mark: bool = True, version: str = "7") -> None:
        self.packer = gzip_packer() if "compresses" in self.faults else None
        self.send_response(status)
        if mark and "no-mark" not in self.faults:
            self.send_header("hurlbat-worker", version)
        if self.packer:
            self.send_header("content-encoding", "gzip")
        self.send_header("content-type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        if self.packer and data:
            data = self.packer.compress(data) + self.packer.flush(zlib.Z_SYNC_FLUSH)
        self.piece(data)

    def piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def lenient_base64(text: str) -> bytes:
    """Decode as far as it goes, as many libraries do."""
    known = re.match("[A-Za-z0-9+/]*", text)
    whole = known[0] if known else ""
    whole = whole[: len(whole) - (len(whole) % 4 == 1)]
    return base64.b64decode(whole + "==")


def short_int(digits: str) -> int:
    """Read an integer as parsers do that know no long ones."""
    if len(digits) > 300:
        raise ValueError("number out of range")
    return int(digits)


def gzip_packer() -> Any:
    """Return what compresses a stream as gzip."""
    return zlib.compressobj(wbits=16 + zlib.MAX_WBITS)


def follow(server: Sloppy, runs: Json, lines: "queue.Queue[Json]") -> None:
    """Carry out attempts one after the other, and put their lines into a queue when they are due."""
    for run in runs:
        execution = server.execution(run)
        if run["task"] in TASKS and "no-started" not in server.faults:
            lines.put({"type": "started", "run_id": run["run_id"], "attempt": run["attempt"]})
        execution.done.wait(600)
        if "bad-lines" in server.faults:
            lines.put({"type": "log", "run_id": 7})
        if "names-another-run" in server.faults:
            lines.put({"type": "started", "run_id": "another", "attempt": 1})
        for _ in range(2 if "two-results" in server.faults else 1):
            lines.put(result_line(execution))


def result_line(execution: Execution) -> Json:
    """Return the result as a line."""
    run = execution.run
    attempt = 1 if "says-attempt-1" in execution.faults else run["attempt"]
    return {"type": "result", "run_id": run["run_id"], "attempt": attempt, **execution.result}


def report(server: Sloppy, data: Json, runs: Json) -> None:
    """Carry out what was answered 202, and report it."""
    for run in runs:
        threading.Thread(target=_report, args=(server, data, run), daemon=True).start()


def _report(server: Sloppy, data: Json, run: Json) -> None:
    execution = server.execution(run)
    while not execution.done.wait(data["heartbeat"]):
        if "no-reported-heartbeats" not in server.faults:
            post(server, run, "heartbeat", {})
    if "reports-nothing" in server.faults:
        return
    result = execution.result
    if result["state"] == "completed":
        post(server, run, "complete", {"output": result["output"]})
    else:
        post(server, run, "fail", {name: value for name, value in result.items() if name != "state"})
    if "beats-after-the-end" in server.faults:
        post(server, run, "heartbeat", {})


def post(server: Sloppy, run: Json, what: str, body: Json) -> None:
    """Send one report, unless nobody wants it any more."""
    token = "wrong" if "wrong-token" in server.faults else run["lease_token"]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    request = urllib.request.Request(f"{run['report_url']}/{what}", json.dumps(body).encode(), headers)
    with suppress(OSError), urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def members(value: Json) -> Iterator[str]:
    """Give the names of all members but those of payloads."""
    if isinstance(value, list):
        for one in value:
            yield from members(one)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            if name not in ("input", "metadata"):
                yield from members(inner)
