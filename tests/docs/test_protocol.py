"""The page on the protocol: a real server accepts its worker; its examples, limits and codes are those of the code."""

import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from hurlbat import wire
from hurlbat.jsontext import MAX_DEPTH
from hurlbat.messages import read_message
from hurlbat.policy import Manifest, TaskPolicy
from hurlbat.signing import key_id, new_secret, sign
from hurlbat_app.conform import conform
from hurlbat_dispatcher import Settings
from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.domain.runs import MAX_TIMELINE
from hurlbat_dispatcher.outbox import MAX_NOTES
from hurlbat_dispatcher.push.guard import MAX_HEADER_BYTES, MAX_HEADERS
from tests.docs.pages import Block, blocks, file_block, first_column
from tests.e2e.stage import until
from tests.support.ports import free_port
from tests.support.processes import ROOT, TOKEN, Processes, Server

PAGE = ROOT / "docs" / "protocol.md"
EXAMPLES = blocks(PAGE, "json")
LINES = [
    (block.line, line) for block in EXAMPLES if block.text.startswith('{"type"') for line in block.text.splitlines()
]


class Client:
    """Asks a server that a test has started."""

    def __init__(self, server: Server, secret: str) -> None:
        self.secret = secret
        self._http = httpx.Client(
            base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60, trust_env=False
        )

    def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        """Post JSON and return what is answered, which must have the status."""
        response = self._http.post(path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    def get(self, path: str) -> Any:
        """Return what is answered to GET."""
        return self._http.get(path).json()

    def entries(self, run_id: str, kind: str) -> list[Any]:
        """Return what a run's timeline has of a kind."""
        timeline = self._http.get(f"/runs/{run_id}").json()["timeline"]
        return [entry for entry in timeline if entry["kind"] == kind]

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()


@pytest.fixture
def shouter(processes: Processes, made_sqlite_url: str, tmp_path: Path) -> Client:
    """A server with the page's worker, registered and ready."""
    (tmp_path / "worker.py").write_text(file_block(PAGE, "worker.py"))
    secret, port = new_secret(), free_port()
    worker = processes.start("worker", sys.executable, "worker.py", PORT=str(port), HURLBAT_SIGNING_SECRET=secret)
    worker.answers(f"http://127.0.0.1:{port}/", below=600)
    client = Client(processes.serve(made_sqlite_url), secret)
    shown = client.post("/workers", {"name": "shouter", "url": f"http://127.0.0.1:{port}/", "secret": secret}, 201)
    assert (shown["state"], shown["problem"], shown["tasks"]) == ("ready", None, ["shout"])
    return client


def test_the_worker_is_proved_and_runs_a_task(shouter: Client) -> None:
    run = shouter.post("/runs?wait=30", {"task": "shout", "input": {"text": "hello"}})
    assert (run["state"], run["output"], run["tries"]) == ("completed", "HELLO", 1)
    shouter.close()


def test_the_worker_conforms(shouter: Client) -> None:
    worker = shouter.get("/workers/shouter")
    report = conform(worker["url"], shouter.secret, task="shout", input='{"text": "hello"}')
    assert [(finding.check, finding.seen) for finding in report.failed] == []
    shouter.close()


def test_the_worker_tells_a_failure_that_is_tried_again(shouter: Client) -> None:
    run = shouter.post("/runs", {"task": "shout", "input": {"no": "text"}}, 201)
    until(lambda: shouter.entries(run["id"], "retry"), "retry")
    retry = shouter.entries(run["id"], "retry")[0]
    assert (retry["code"], retry["type"], retry["message"]) == ("task_error", "KeyError", "'text'")
    shouter.close()


def test_the_commands_start_register_and_run_it(processes: Processes, made_sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(file_block(PAGE, "worker.py"))
    [commands] = blocks(PAGE, "sh")
    server, port = processes.serve(made_sqlite_url), free_port()
    listens = f"until (exec 3<> /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.1; done"
    text = commands.text.replace("9000", str(port)).replace("worker.py &\n", f"worker.py &\n{listens}\n")
    shell = processes.start(
        "commands",
        "bash",
        "-ec",
        f"trap 'kill %1' EXIT\n{text}",
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        PORT=str(port),
        HURLBAT_URL=server.url,
        HURLBAT_TOKEN=TOKEN,
        HURLBAT_SIGNING_SECRET=new_secret(),
    )
    assert shell.wait(300) == 0, shell.output
    assert 'completed with "HELLO"' in shell.output


def test_the_worker_is_a_page_of_code() -> None:
    code = [line for line in file_block(PAGE, "worker.py").splitlines() if line.strip() and not line.startswith("#")]
    assert len(code) <= 60


def test_the_deliver_example_is_a_message_that_the_sdk_reads() -> None:
    message = read_message(_example('"type": "deliver"').text.encode())
    assert [delivered.task for delivered in message.deliveries] == ["resize"]


def test_the_cancel_example_is_a_message_that_the_sdk_reads() -> None:
    message = read_message(_example('"type": "cancel"').text.encode())
    assert [cancelled.attempt for cancelled in message.cancellations] == [2]


def test_the_manifest_example_is_a_manifest() -> None:
    manifest = Manifest.model_validate_json(_example('"protocol": 1').text)
    assert [task.name for task in manifest.tasks] == ["resize", "count", "greet", "album"]
    shown = set[str]().union(*(task.model_fields_set for task in manifest.tasks))
    assert shown == set(TaskPolicy.model_fields)


@pytest.mark.parametrize(("page_line", "line"), LINES)
def test_an_example_of_a_line_is_one_that_the_server_knows(page_line: int, line: str) -> None:
    assert wire.read_line(line) is not None, f"docs/protocol.md:{page_line}"


def test_the_lines_of_the_stream_are_all_kinds_that_there_are() -> None:
    shown = {type(wire.read_line(line)) for _, line in LINES}
    assert shown == set(wire.Line.__args__)


def test_the_answer_in_one_piece_is_one_that_the_server_reads() -> None:
    assert [type(result) for result in wire.read_results(_example('"results"').text)] == [wire.CompletedLine]


def test_the_page_has_every_error_code_once_and_no_other() -> None:
    assert sorted(first_column(PAGE, "## Error codes")) == sorted(ErrorCode)


def test_the_limits_are_those_of_the_code() -> None:
    limits = PAGE.read_text().split("\n## Limits\n", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|", limits, re.MULTILINE))
    settings = Settings()
    assert (
        rows
        | {
            "body of a submit": f"{settings.max_body_bytes:,} bytes (`HURLBAT_MAX_BODY_BYTES`)",
            "attempts in one delivery": f"{wire.MAX_BATCH}",
            "silence in a stream": f"{3 * settings.heartbeat:g} s",
            "a line of a stream": f"{wire.MAX_LINE_CHARS:,} characters",
            "body of a plain answer": f"{wire.MAX_BODY_BYTES:,} bytes",
            "depth of JSON": f"{MAX_DEPTH}",
            "message of a log line, progress or error": f"{wire.MAX_MESSAGE_CHARS:,} characters",
            "stack of an error": f"{wire.MAX_STACK_CHARS:,} characters",
            "log and progress rows of an attempt": f"{MAX_NOTES}",
            "rows of a run's timeline": f"{MAX_TIMELINE:,}",
            "extra headers of a worker": f"{MAX_HEADERS}, and {MAX_HEADER_BYTES:,} bytes",
        }
        == rows
    )


def test_the_signatures_of_the_worked_example_are_right() -> None:
    section = PAGE.read_text().split("\n## The signature\n", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| ([^|]+) \| `([^`]+)`", section, re.MULTILINE))
    [body] = [block.text.removesuffix("\n").encode() for block in blocks(PAGE, "text")]
    keys = [rows["secret"], rows["old secret"]]
    message_id, at = rows["`webhook-id`"], int(rows["`webhook-timestamp`"])

    assert sign(keys[:1], message_id, at, body) == rows["`webhook-signature`"]
    assert sign(keys, message_id, at, body) == rows["the same while the secret rotates"]
    assert " ".join(map(key_id, keys)) == rows["`hurlbat-key-ids` then"]
    second_opinion = Webhook(keys[0]).sign(message_id, datetime.fromtimestamp(at, UTC), body.decode())
    assert second_opinion == rows["`webhook-signature`"]
    assert read_message(body).worker == "images"
    assert f"The body has {len(body)} bytes" in section


def test_every_json_example_is_json() -> None:
    for block in EXAMPLES:
        for text in block.text.splitlines() if block.text.startswith('{"type"') else [block.text]:
            json.loads(text)


def _example(part: str) -> Block:
    return next(block for block in EXAMPLES if part in block.text)
