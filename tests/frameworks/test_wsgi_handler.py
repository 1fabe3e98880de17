"""The WSGI application itself, called as a server calls it, by servers and below middleware of every kind."""

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any
from wsgiref.validate import validator

import pytest
from flask import Flask, request
from werkzeug import Response

from hurlbat import ConfigError, Context, Hurlbat, background, wsgi
from hurlbat.policy import Manifest
from tests.e2e.stage import until
from tests.sdk.exchange import a_run, an_app, delivery, signed
from tests.sdk.fake_server import FakeServer, answer

ATTEMPT = "POST /runs/run-hold/attempts/1"


class Gates:
    """What a task and its test tell each other, from thread to thread."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.failing: Exception | None = None
        self.doubled: list[int] = []


def wait_for_it(gates: Gates) -> None:
    gates.gate.wait()


@pytest.fixture
def gates() -> Iterator[Gates]:
    gates = Gates()
    yield gates
    gates.gate.set()


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.on(f"{ATTEMPT}/heartbeat", answer(200, {"cancelled": False, "lease": 15}))
    server.on(f"{ATTEMPT}/complete", answer(200, {}))
    server.on("POST /runs/run-double/attempts/1/complete", answer(200, {}))
    return server


@pytest.fixture
def hurlbat(gates: Gates, server: FakeServer) -> Iterator[Hurlbat]:
    @asynccontextmanager
    async def life(hurlbat: Hurlbat) -> AsyncIterator[None]:
        if gates.failing is not None:
            raise gates.failing
        yield

    hurlbat = an_app(lifespan=life, grace=0.1)
    server.attach(hurlbat)

    @hurlbat.task
    async def double(number: int) -> int:
        gates.doubled.append(number)
        return number * 2

    @hurlbat.task
    def hold(ctx: Context) -> str:
        gates.begun.set()
        gates.gate.wait()
        return "let go"

    @hurlbat.task
    async def block() -> None:
        gates.begun.set()
        wait_for_it(gates)

    @hurlbat.task
    async def chatter(ctx: Context) -> None:
        for n in range(100):
            ctx.log(f"line {n}")
            await asyncio.sleep(0)

    yield hurlbat
    gates.gate.set()
    hurlbat._background.stop()


class Request:
    """One request to a WSGI application that is checked against the specification, and its answer as it comes."""

    def __init__(
        self, app: Any, body: bytes = b"", *, method: str = "POST", headers: Any = None, **environ: Any
    ) -> None:
        self.status, self.headers = "", dict[str, str]()
        given = signed(body) if headers is None else headers
        self.environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "SERVER_NAME": "test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in given.items()},
            **environ,
        }
        self.environ = {name: value for name, value in self.environ.items() if value is not None}
        self._answer: Any = validator(app)(self.environ, self._start)
        self._parts = iter(self._answer)

    def _start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        self.status, self.headers = status, dict(headers)
        return lambda data: None

    def part(self) -> bytes:
        """Return the next part, as a server that sends it would take it."""
        return bytes(next(self._parts))

    def close(self) -> None:
        """Take no more."""
        self._answer.close()

    def whole(self) -> Any:
        """Return the whole answer, of whichever type."""
        body = b"".join(self._parts)
        self.close()
        if self.headers["content-type"] == "application/x-ndjson":
            return [json.loads(line) for line in body.splitlines()]
        return json.loads(body)


def deliver(app: Any, *runs: Any, **environ: Any) -> Request:
    return Request(app, delivery(*runs), **environ)


def results(lines: list[Any]) -> dict[str, Any]:
    return {line["run_id"]: line for line in lines if line["type"] == "result"}


# -- answers -----------------------------------------------------------------------------------------------------------


def test_a_delivery_is_streamed_in_parts_while_its_runs_go_on(hurlbat: Hurlbat, gates: Gates) -> None:
    sent = deliver(hurlbat.wsgi(), a_run("hold"), a_run("double", 21))
    assert sent.status == "200 OK"
    assert sent.headers["content-type"] == "application/x-ndjson"
    assert (sent.headers["x-accel-buffering"], sent.headers["hurlbat-worker"]) == ("no", hurlbat.manifest().version)
    seen = b""
    while b'"output":42' not in seen:
        seen += sent.part()
    assert b"let go" not in seen
    gates.gate.set()
    assert results(sent.whole())["run-hold"]["output"] == "let go"


def test_heartbeats_come_while_nothing_happens(hurlbat: Hurlbat) -> None:
    hurlbat.workbench.heartbeat = 0.05
    sent = deliver(hurlbat.wsgi(), a_run("hold"))
    seen = b""
    while seen.count(b'"heartbeat"') < 3:
        seen += sent.part()
    sent.close()


def test_in_one_piece_the_answer_is_json_and_the_manifest_says_so(hurlbat: Hurlbat, gates: Gates) -> None:
    app = hurlbat.wsgi(stream=False)
    threading.Timer(0.1, gates.gate.set).start()
    sent = deliver(app, a_run("hold"), a_run("chatter"), a_run("double", 1))
    assert sent.headers["content-type"] == "application/json"
    said = {result["run_id"]: result["output"] for result in sent.whole()["results"]}
    assert said == {"run-hold": "let go", "run-chatter": None, "run-double": 2}
    describe = delivery(a_run("double")).replace(b'"deliver"', b'"describe"')
    manifest = Manifest.model_validate(Request(app, describe).whole())
    assert (manifest.streams, manifest.max_batch) == (False, 64)
    assert manifest.version == sent.headers["hurlbat-worker"] != hurlbat.manifest().version


@pytest.mark.parametrize("stream", [True, False])
def test_a_server_of_one_thread_is_let_go_and_the_runs_report(
    hurlbat: Hurlbat, gates: Gates, server: FakeServer, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(wsgi, "HOLD_SECONDS", 0.1)
    one = {"wsgi.multithread": False}
    sent = deliver(hurlbat.wsgi(stream=stream), a_run("hold"), a_run("double", 1), **one)
    assert sent.status == ("200 OK" if stream else "202 Accepted")
    said = sent.whole()
    assert stream or said == {}
    until(lambda: f"{ATTEMPT}/heartbeat" in server.calls(), "heartbeat of the run that goes on")
    gates.gate.set()
    until(lambda: f"{ATTEMPT}/complete" in server.calls(), "report of the run that went on")


@pytest.mark.parametrize("more", [{"wsgi.run_once": True}, {"uwsgi.version": b"2.0"}, {"wsgi.multithread": True}])
def test_a_server_that_would_not_let_runs_go_on_is_held(
    hurlbat: Hurlbat, gates: Gates, server: FakeServer, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    monkeypatch.setattr(wsgi, "HOLD_SECONDS", 0.01)
    threading.Timer(0.2, gates.gate.set).start()
    sent = deliver(hurlbat.wsgi(), a_run("hold"), **({"wsgi.multithread": False} | more))
    assert results(sent.whole())["run-hold"]["output"] == "let go"
    assert server.calls() == []


@pytest.mark.parametrize("parts", [0, 1])
def test_a_server_that_drops_an_answer_leaves_the_run_to_report(
    hurlbat: Hurlbat, gates: Gates, server: FakeServer, parts: int
) -> None:
    hurlbat.workbench.heartbeat = 0.05
    sent = deliver(hurlbat.wsgi(), a_run("hold"))
    gates.begun.wait(60)
    for _ in range(parts):
        sent.part()
    sent.close()
    until(lambda: f"{ATTEMPT}/heartbeat" in server.calls(), "heartbeat of the run that goes on")
    gates.gate.set()
    until(lambda: server.bodies(f"{ATTEMPT}/complete") == [{"output": "let go"}], "report of the run that went on")


def test_other_methods_are_answered_without_a_body(hurlbat: Hurlbat) -> None:
    app = hurlbat.wsgi()
    assert Request(app, method="GET", CONTENT_LENGTH=None).whole() == {"status": "ok"}
    head = Request(app, method="HEAD", CONTENT_LENGTH=None)
    assert (head.status, list(head._parts)) == ("200 OK", [])
    head.close()
    refused = Request(app, method="PUT", CONTENT_LENGTH="3")
    assert refused.status == "405 Method Not Allowed"
    assert refused.whole()["detail"] == "PUT is not served here; POST is"


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_chunked_body_is_read_where_the_server_ends_it(hurlbat: Hurlbat) -> None:
    ends = {"CONTENT_LENGTH": None, "wsgi.input_terminated": True}
    sent = deliver(hurlbat.wsgi(), a_run("double", 4), **ends)
    assert results(sent.whole())["run-double"]["output"] == 8


@pytest.mark.parametrize(
    ("environ", "status", "told"),
    [
        ({"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked"}, "411", "send a content-length"),
        ({"CONTENT_LENGTH": "16777217"}, "413", "the body has more than 16,777,216 bytes"),
        ({"wsgi.input": BytesIO()}, "401", "and nothing came. A middleware or a view has read it (request.get_data(),"),
        ({"wsgi.input": BytesIO(b"{}")}, "401", "bytes, and 2 came: a part of the body was read before it came here"),
        ({"CONTENT_LENGTH": "-1"}, "401", ""),
        ({"CONTENT_LENGTH": "many"}, "401", ""),
    ],
)
def test_a_body_that_cannot_be_had_as_it_was_sent_is_refused(
    hurlbat: Hurlbat, environ: dict[str, Any], status: str, told: str
) -> None:
    # not by way of the validator, which refuses a content-length that is none
    said: list[str] = []
    body = delivery(a_run("double", 4))
    given = Request(hurlbat.wsgi(), body)
    whole = {name: value for name, value in (given.environ | {"wsgi.input": BytesIO(body)} | environ).items() if value}
    answered = hurlbat.wsgi()(whole, lambda status, headers: said.extend([status, *dict(headers)]))
    problem = json.loads(b"".join(answered))
    given.close()
    assert (said[0][:3], told in problem["detail"]) == (status, True), problem
    assert "connection" not in said  # which a WSGI application may not send


def test_a_view_that_has_read_the_body_is_told_what_to_do_instead(hurlbat: Hurlbat) -> None:
    app, worker = Flask(__name__), hurlbat.wsgi()

    @app.post("/hurlbat")
    def view() -> Response:
        if "read" in request.args:
            request.get_json()
        return Response.from_app(worker, request.environ)

    body = delivery(a_run("double", 4))
    fine = app.test_client().post("/hurlbat", data=body, headers=signed(body), content_type="application/json")
    assert b'"output":8' in fine.data
    read = app.test_client().post("/hurlbat?read", data=body, headers=signed(body), content_type="application/json")
    assert (read.status_code, read.json["code"]) == (401, "body_consumed")  # type: ignore[index]
    assert "app.wsgi_app = hurlbat.mount_wsgi(app.wsgi_app)" in read.json["detail"]  # type: ignore[index]


# -- mounted -----------------------------------------------------------------------------------------------------------


def site(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the site"]


@pytest.mark.parametrize(
    ("mounted", "path", "is_worker"),
    [
        ("/hurlbat", "/hurlbat", True),
        ("/hurlbat", "/hurlbat/", True),
        ("/hurlbat/", "/hurlbat", True),
        ("/hurlbat", "/hurlbats", False),
        ("/hurlbat", "/hurlbat/x", False),
        ("/hurlbat", "/", False),
        ("/", "/", True),
        ("/a/b", "/a/b/", True),
    ],
)
def test_one_path_is_the_worker_s_and_all_else_the_app_s(
    hurlbat: Hurlbat, mounted: str, path: str, is_worker: bool
) -> None:
    app = hurlbat.mount_wsgi(site, mounted)
    got = Request(app, method="GET", CONTENT_LENGTH=None, PATH_INFO=path, SCRIPT_NAME="/prefix")
    body = b"".join(got._parts)
    got.close()
    assert (body == b"the site") != is_worker


def test_what_cannot_be_mounted_is_told(hurlbat: Hurlbat) -> None:
    with pytest.raises(ConfigError, match="takes the WSGI application first, and the path second"):
        hurlbat.mount_wsgi("/hurlbat", site)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the path 'hurlbat' does not begin with a slash"):
        hurlbat.mount_wsgi(site, "hurlbat")


def test_any_request_starts_the_lifespan_and_nothing_before(hurlbat: Hurlbat) -> None:
    app = hurlbat.mount_wsgi(site)
    assert hurlbat._background._thread is None
    Request(app, method="GET", CONTENT_LENGTH=None).close()
    until(lambda: hurlbat._lives, "lifespan")


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_a_lifespan_that_fails_costs_no_run_and_is_tried_again(
    hurlbat: Hurlbat, gates: Gates, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.05)
    gates.failing = LookupError("no database")
    refused = deliver(hurlbat.wsgi(), a_run("double", 1))
    assert (refused.status, refused.headers["retry-after"]) == ("503 Service Unavailable", "1")
    assert refused.whole()["detail"] == "what the tasks share could not be opened: LookupError: no database"
    until(lambda: "the lifespan of the tasks failed; it is tried again every 0.05 s" in caplog.text, "words of it")
    gates.failing = None
    assert results(deliver(hurlbat.wsgi(), a_run("double", 1)).whole())["run-double"]["output"] == 2


def test_a_blocked_loop_is_told_where_and_refuses_what_has_not_begun(
    hurlbat: Hurlbat, gates: Gates, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wsgi, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(background, "PING_SECONDS", 0.05)
    app = hurlbat.wsgi()
    blocking = threading.Thread(target=lambda: deliver(app, a_run("block")).whole())
    blocking.start()
    assert gates.begun.wait(60)
    refused = deliver(app, a_run("double", 1))
    assert (refused.status, refused.headers["retry-after"]) == ("503 Service Unavailable", "1")
    assert refused.headers["hurlbat-worker"] == hurlbat.manifest().version  # or the attempt would be charged
    assert refused.whole()["code"] == "loop_blocked"
    [told] = {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR}
    assert "test_wsgi_handler.py:" in told
    assert "in block: an async task must not block; make it a sync task (def), or await" in told
    gates.gate.set()
    blocking.join(60)
    assert results(deliver(app, a_run("double", 2, attempt=2)).whole())["run-double"]["output"] == 4
    assert gates.doubled == [2]


def test_a_loop_that_was_stopped_starts_again(hurlbat: Hurlbat) -> None:
    app = hurlbat.wsgi()
    for attempt in (1, 2):
        sent = deliver(app, a_run("double", 1, attempt=attempt))
        assert results(sent.whole())["run-double"]["output"] == 2
        hurlbat._background.stop()


def test_many_requests_share_one_loop(hurlbat: Hurlbat) -> None:
    app, ends = hurlbat.wsgi(), list[int]()

    def one(number: int) -> None:
        sent = deliver(app, a_run("double", number, run_id=f"run-{number}"))
        ends.append(results(sent.whole())[f"run-{number}"]["output"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == [number * 2 for number in range(30)]
    assert [thread.name for thread in threading.enumerate()].count("hurlbat-loop") == 1
