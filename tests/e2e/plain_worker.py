"""A plain worker in a few lines of the standard library: it knows Standard Webhooks, and nothing of Hurlbat's packages.

`python plain_worker.py PORT`, with the secret in SIGNING_SECRET. It appends each run that it takes to E2E_LOG.
"""

import hmac
import json
import os
import sys
import time
import urllib.request
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

KEY = b64decode(os.environ["SIGNING_SECRET"].removeprefix("whsec_"))
Answer = tuple[int, bytes, dict[str, str]]


class Worker(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, answer, headers = execute(json.loads(body)) if self.is_signed(body) else (401, b"not signed", {})
        self.send_response(status)
        for name, value in (headers | {"content-length": str(len(answer))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def is_signed(self, body: bytes) -> bool:
        message_id, at = self.headers.get("webhook-id", ""), self.headers.get("webhook-timestamp", "0")
        signed = f"{message_id}.{at}.".encode() + body
        expected = b"v1," + b64encode(hmac.digest(KEY, signed, "sha256"))
        given = self.headers.get("webhook-signature", "").encode().split()
        return abs(time.time() - int(at)) < 300 and any(hmac.compare_digest(one, expected) for one in given)

    def log_message(self, *_: object) -> None: ...


def execute(message: dict[str, Any]) -> Answer:
    [run] = message["data"]["runs"]
    with open(os.environ["E2E_LOG"], "a") as log:
        log.write(json.dumps({"event": "started", "run_id": run["run_id"], "attempt": run["attempt"]}) + "\n")
    match run["task"]:
        case "plain.double":
            return 200, json.dumps(run["input"] * 2).encode(), {"content-type": "application/json"}
        case "plain.text":
            return 200, b"plainly text", {"content-type": "text/plain"}
        case "plain.empty":
            return 204, b"", {}
        case "plain.busy-at-first":
            return (503, b"later", {"retry-after": "0"}) if run["attempt"] == 1 else (200, b'"not busy now"', {})
        case "plain.slow":
            while not os.path.exists(run["input"]):
                time.sleep(0.01)
            return 200, b'"at last"', {}
        case "plain.never":
            return 422, b"never", {"hurlbat-retry": "no"}
        case "plain.break":
            return 500, b"it broke", {}
        case _:
            Thread(target=carry_on, args=(run,)).start()
            return 202, b"", {"hurlbat-async": "1"}


def carry_on(run: dict[str, Any]) -> None:
    """Report what was accepted: a line for the timeline, signs of life until the gate is open, then the end, twice."""
    report(run, "log", {"entries": [{"level": "info", "message": "taken up"}]})
    while "gate" in run["input"] and not os.path.exists(run["input"]["gate"]):
        if report(run, "heartbeat", {})["cancelled"]:
            with open(os.environ["E2E_LOG"], "a") as log:
                log.write(json.dumps({"event": "cancelled", "run_id": run["run_id"]}) + "\n")
            return
        time.sleep(0.05)
    if "error" in run["input"]:
        report(run, "fail", {"error": {"type": "Sad", "message": run["input"]["error"]}, "retryable": False})
    else:
        for _ in range(2):
            report(run, "complete", {"output": "reported"})


def report(run: dict[str, Any], what: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {run['lease_token']}", "content-type": "application/json"}
    request = urllib.request.Request(f"{run['report_url']}/{what}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Worker).serve_forever()
