"""A plain worker: a webhook receiver that knows nothing of Hurlbat but what the body says, with faults if wanted."""

import gzip
import json
import threading
from typing import Any

from tests.conform.sloppy import SloppyHandler, post


class PlainHandler(SloppyHandler):
    """Runs the one run of a delivery and answers in HTTP's own words."""

    def got(self) -> None:
        self.send_error(405)

    def posted(self) -> None:
        size = int(self.headers["content-length"])
        if size > 16 * 1_048_576:
            self.close_connection = True
            return self.say(413, b"")
        body = self.rfile.read(size)
        if not self.verified(body):
            return self.say(400 if "refuses-with-400" in self.faults else 401, b"no")
        if "redirects" in self.faults:
            return self.say(301, b"", location="https://elsewhere.example/")
        [run] = json.loads(body)["data"]["runs"]
        if run["run_id"] != self.headers["webhook-id"]:
            return self.say(400, b"the id is not the run's")
        if run["run_id"] in self.server.seen:
            return self.say(409, b"seen before")
        if "knows-one-task" in self.faults and run["task"] != "own.task":
            return self.say(422, b"no such task")
        return self.do(run)

    def do(self, run: Any) -> None:
        """Run it."""
        match run["task"]:
            case "conform.fail" if "fails-as-200" in self.faults:
                return self.say(200, b"failed")
            case "conform.fail":
                if "remembers-failures" in self.faults:
                    self.server.seen.append(run["run_id"])
                return self.fail(run["input"])
            case "conform.sleep" | "conform.echo" if "202" in self.faults:
                threading.Thread(target=self.later, args=(self.server, run), daemon=True).start()
                return self.say(202, b"", **{"hurlbat-async": "1"})
        if "remembers-success" in self.faults:
            self.server.seen.append(run["run_id"])
        if "no-echo" in self.faults:
            return self.say(204, b"")
        return self.say(200, json.dumps(run["input"]).encode())

    def fail(self, input: Any) -> None:
        """Answer as a failure that may, or must not, be repeated."""
        if input.get("retry_after") is not None and "no-retry-after" not in self.faults:
            wait = "soon" if "unreadable-retry-after" in self.faults else str(input["retry_after"])
            return self.say(500 if "retry-after-on-500" in self.faults else 503, b"later", **{"retry-after": wait})
        if not input["retryable"] and "no-retry-words" not in self.faults:
            return self.say(422, b"never", **{"hurlbat-retry": "no"})
        return self.say(500, b"failed")

    @staticmethod
    def later(server: Any, run: Any) -> None:
        """Carry out what was answered 202, and report it."""
        execution = server.execution(run)
        while not execution.done.wait(0.2):
            post(server, run, "heartbeat", {})
        post(server, run, "complete", {"output": execution.result.get("output")})

    def say(self, status: int, body: bytes, **headers: str) -> None:
        """Answer."""
        if "compresses" in self.faults:
            body, headers = gzip.compress(body), {**headers, "content-encoding": "gzip"}
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
