"""Stand in for AWS: turn HTTP requests into events for a Lambda function, and its answers into HTTP.

`python -m tests.frameworks.lambda_bridge PORT VERSION`, where a version is one of `lambda_events`.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hurlbat import Backoff, Context, Hurlbat, conformance
from tests.frameworks.lambda_events import Invocation, event_of

hurlbat = Hurlbat()
conformance.serve(hurlbat)


@hurlbat.task(name=f"{sys.argv[2]}.add")
async def add(input: list[int]) -> int:
    return sum(input)


@hurlbat.task(name=f"{sys.argv[2]}.add-sync", retries=2, backoff=Backoff(initial=0.05))
def add_sync(input: list[int], ctx: Context) -> int:
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return sum(input)


handler = hurlbat.aws_lambda()
SECONDS = float(os.environ.get("SECONDS", "60"))


class Bridge(BaseHTTPRequestHandler):
    """Invokes the function once for each request."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        event = event_of(sys.argv[2], self.command, self.path, dict(self.headers), body)
        said = json.loads(json.dumps(handler(json.loads(json.dumps(event)), Invocation(SECONDS))))
        content = said["body"].encode()
        self.send_response(said["statusCode"])
        for name, value in said.get("headers", {}).items():
            self.send_header(name, value)
        for name, values in said.get("multiValueHeaders", {}).items():
            for value in values:
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Bridge).serve_forever()
