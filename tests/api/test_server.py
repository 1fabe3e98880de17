"""The server's process: how it starts, why it does not, and how it stops."""

import io
import json
import os
import re
import signal
import sqlite3
import stat
import threading
from pathlib import Path

import httpx
import pytest

from hurlbat.signing import new_secret
from hurlbat_app.cli.serve import say
from tests.support.processes import TOKEN, Processes, Server

HEADERS = {"authorization": f"Bearer {TOKEN}"}
HTTP = httpx.Client(timeout=60, trust_env=False, verify=False, limits=httpx.Limits(max_keepalive_connections=0))
"""Waits for a server that stands still, and leaves no connection to one that is to stop."""
BY = "by --port or HURLBAT_PORT"
HOLDING_WORKER = """
import asyncio

let_go = asyncio.Event()

async def app(scope, receive, send):
    await receive()
    if scope["method"] == "POST":
        await let_go.wait()
    elif scope["path"] == "/let-go":
        let_go.set()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b'"done"'})
"""


def _serve(processes: Processes, *arguments: str, **env: str) -> tuple[int, str]:
    """Try to serve; return the status and what was printed."""
    process = processes.python("refused", "-m", "hurlbat_app.cli.main", "serve", *arguments, **env)
    return process.wait(), process.output


def _running(processes: Processes, server: Server, folder: Path) -> tuple[str, Server]:
    """Start a run that goes on until its worker is asked to let go; return its id, and the worker."""
    (folder / "holding_worker.py").write_text(HOLDING_WORKER)
    worker = processes.app("holding_worker:app", PYTHONPATH=str(folder))
    spec = {"name": "slow", "url": f"{worker.url}/", "mode": "plain", "tasks": [{"name": "slow"}]}
    HTTP.post(f"{server.url}/workers", json=spec, headers=HEADERS).raise_for_status()
    run = HTTP.post(f"{server.url}/runs", json={"task": "slow"}, headers=HEADERS).raise_for_status().json()
    assert run["state"] == "running"
    return str(run["id"]), worker


def _let_go(worker: Server) -> None:
    HTTP.get(f"{worker.url}/let-go").raise_for_status()


# -- starting ----------------------------------------------------------------------------------------------------------


def test_a_token_is_made_at_the_first_start_and_said_once(processes: Processes, sqlite_url: str) -> None:
    first = processes.serve(sqlite_url, HURLBAT_API_TOKEN="")
    first.until(lambda: "Then try" in first.output, "token")
    said = re.search(r"export HURLBAT_TOKEN=(\S+)", first.output)
    assert said is not None, first.output
    answers = [
        HTTP.get(f"{first.url}/runs", headers={"authorization": f"Bearer {token}"}).status_code
        for token in (said[1], said[1] + "x")
    ]
    first.terminate()
    second = processes.serve(sqlite_url, HURLBAT_API_TOKEN="")
    again = HTTP.get(f"{second.url}/runs", headers={"authorization": f"Bearer {said[1]}"})
    second.until(lambda: "Hurlbat listens on" in second.output, "announcement")
    second.terminate()

    assert answers == [200, 401]
    assert "HURLBAT_TOKEN" not in second.output
    assert again.status_code == 200


def test_port_0_is_a_free_one_and_the_server_says_which(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    server = processes.python(
        "free", "-m", "hurlbat_app.cli.main", "serve", "--port", "0", "--database", sqlite_url, HURLBAT_API_TOKEN=TOKEN
    )
    server.until(lambda: "listens on" in server.output, "address")
    url = re.search(r"listens on (http://127\.0\.0\.1:\d+)", server.output)
    assert url is not None

    assert HTTP.get(f"{url[1]}/health/ready").status_code == 200


def test_a_port_in_use_is_told_in_a_sentence(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    server = processes.serve(sqlite_url)

    status, said = _serve(processes, "--port", str(server.port), "--database", f"sqlite:///{tmp_path / 'other.db'}")

    assert (status, said) == (
        1,
        f"hurlbat: port {server.port} on 127.0.0.1 is in use; stop what listens there, or take another {BY}.\n",
    )
    assert not (tmp_path / "other.db").exists()


def test_a_database_that_another_server_has_is_refused(processes: Processes, sqlite_url: str) -> None:
    processes.serve(sqlite_url)

    status, said = _serve(processes, "--port", "0", "--database", sqlite_url)

    assert status == 1
    assert re.fullmatch(r"hurlbat: .*\.\n", said), said


def test_a_database_of_a_newer_version_is_refused_and_left_alone(processes: Processes, sqlite_url: str) -> None:
    server = processes.serve(sqlite_url)
    server.terminate()
    file = sqlite_url.partition(":///")[2]
    with sqlite3.connect(file) as connection:
        connection.execute("update alembic_version set version_num = 'from_the_future'")
    connection.close()

    status, said = _serve(processes, "--port", "0", "--database", sqlite_url)

    assert status == 1
    assert re.fullmatch(r"hurlbat: .*newer than this version.*\.\n", said), said
    with sqlite3.connect(file) as connection:
        assert connection.execute("select version_num from alembic_version").fetchall() == [("from_the_future",)]
    connection.close()


def test_a_database_that_cannot_be_opened_is_told_in_a_sentence(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()

    status, said = _serve(processes, "--port", "0", "--database", "sqlite:///a-file/hurlbat.db")

    assert status == 1
    assert re.fullmatch(r"hurlbat: .*\.\n", said), said


def test_an_address_of_another_machine_is_told_in_a_sentence(processes: Processes) -> None:
    status, said = _serve(processes, "--host", "192.0.2.1")

    assert (status, said[:41]) == (1, "hurlbat: 192.0.2.1 is not an address of t")


def test_json_logs_are_one_object_a_line_and_have_no_token(
    processes: Processes, sqlite_url: str, tmp_path: Path
) -> None:
    server = processes.serve(sqlite_url, HURLBAT_LOG_FORMAT="json", HURLBAT_LOG_LEVEL="debug")
    HTTP.get(f"{server.url}/runs", headers=HEADERS).raise_for_status()
    server.terminate()

    lines = [json.loads(line) for line in server.output.splitlines() if not line.startswith("Hurlbat listens on")]
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
    assert any("SIGTERM" in line["event"] for line in lines)
    assert TOKEN not in server.output


def test_a_line_for_people_is_one_write_so_that_no_log_line_falls_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    stdout = io.StringIO()
    monkeypatch.setattr(stdout, "write", written.append)
    monkeypatch.setattr("sys.stdout", stdout)

    say("Hurlbat listens on http://127.0.0.1:8000")

    assert written == ["Hurlbat listens on http://127.0.0.1:8000\n"]


# -- stopping ----------------------------------------------------------------------------------------------------------


def test_a_stop_waits_for_what_runs_and_is_not_ready_meanwhile(
    processes: Processes, sqlite_url: str, tmp_path: Path
) -> None:
    server = processes.serve(sqlite_url, HURLBAT_DRAIN_SECONDS="600")
    run, worker = _running(processes, server, tmp_path)

    server.signal(signal.SIGTERM)
    server.until(lambda: "draining" in server.output, "draining")
    ready = HTTP.get(f"{server.url}/health/ready").status_code
    live = HTTP.get(f"{server.url}/health/live").status_code
    _let_go(worker)
    status = server.wait()

    assert (ready, live, status) == (503, 200, 0)
    again = processes.serve(sqlite_url)
    found = HTTP.get(f"{again.url}/runs/{run}", headers=HEADERS).json()
    assert (found["state"], found["output"], found["attempt"]) == ("completed", "done", 1)


def test_one_who_waits_for_a_run_is_answered_when_the_server_stops(
    processes: Processes, sqlite_url: str, tmp_path: Path
) -> None:
    server = processes.serve(sqlite_url, HURLBAT_DRAIN_SECONDS="600")
    run, worker = _running(processes, server, tmp_path)
    answers: list[int] = []
    asked = threading.Event()

    def trace(event: str, _: object) -> None:
        if event == "http11.send_request_body.complete":
            asked.set()

    def wait() -> None:
        with httpx.Client(headers=HEADERS, timeout=120, trust_env=False) as client:
            answer = client.get(f"{server.url}/runs/{run}?wait=60", extensions={"trace": trace})
            answers.append(answer.status_code)

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert asked.wait(60)
    assert HTTP.get(f"{server.url}/health/live").status_code == 200  # and what came before it was taken, too
    server.signal(signal.SIGTERM)
    server.until(lambda: "draining" in server.output, "draining")
    _let_go(worker)
    server.wait()
    waiting.join(120)

    assert answers in ([200], [503])


def test_a_second_signal_is_quick(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    server = processes.serve(sqlite_url, HURLBAT_DRAIN_SECONDS="600")
    _running(processes, server, tmp_path)

    server.signal(signal.SIGTERM)
    server.until(lambda: "draining" in server.output, "draining")
    server.signal(signal.SIGTERM)

    assert server.wait() == 0


def test_an_idle_server_stops_at_once(processes: Processes, sqlite_url: str) -> None:
    server = processes.serve(sqlite_url)

    assert server.terminate() == 0


def test_a_server_on_postgresql_warns_that_workers_will_report_to_it_alone(
    processes: Processes, postgres_url: str
) -> None:
    alone = processes.serve(postgres_url, HURLBAT_EXTERNAL_URL="")
    alone.until(lambda: "HURLBAT_EXTERNAL_URL is not set" in alone.output, "warning")
    alone.terminate()
    together = processes.serve(postgres_url)
    together.until(lambda: "Hurlbat listens" in together.output, "announcement")
    together.terminate()

    assert "HURLBAT_EXTERNAL_URL" not in together.output


# -- development -------------------------------------------------------------------------------------------------------

WATCHED = """
from starlette.applications import Starlette
from starlette.routing import Mount
from hurlbat import Hurlbat

hurlbat = Hurlbat()

@hurlbat.task
async def {name}(input: int) -> int:
    return input + 1

app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())])
"""


def test_dev_keeps_its_secrets_and_follows_a_worker_that_changes(
    processes: Processes, tmp_path: Path, free_port: int
) -> None:
    file = tmp_path / "watched.py"
    arguments = ("--port", "0", "--worker", f"http://127.0.0.1:{free_port}/hurlbat/")
    dev = processes.listen(["hurlbat_app.cli.main", "dev", *arguments], 0)
    dev.until(lambda: "is pending" in dev.output, "pending worker")
    secret = re.search(r"export HURLBAT_SIGNING_SECRET=(\S+)", dev.output)
    assert secret is not None

    for times, name in enumerate(("first", "second"), 1):
        file.write_text(WATCHED.format(name=name))
        os.utime(file, (free_port, hash(name) % 10_000))  # so that no cached bytecode is taken
        worker = processes.app(
            "watched:app",
            port=free_port,
            PYTHONPATH=str(tmp_path),
            PYTHONDONTWRITEBYTECODE="1",
            HURLBAT_SIGNING_SECRET=secret[1],
        )
        ready = f"is ready: serves {name}"
        dev.until(lambda ready=ready: ready in dev.output, ready)  # type: ignore[misc]  # bound at once
        worker.kill()
        dev.until(lambda times=times: dev.output.count("is away") >= times, "absence")  # type: ignore[misc]

    assert dev.terminate() == 0
    again = processes.listen(["hurlbat_app.cli.main", "dev", *arguments], 0)
    again.until(lambda: "HURLBAT_SIGNING_SECRET" in again.output, "secret")
    for said in re.findall(r"export HURLBAT_(?:TOKEN|SIGNING_SECRET)=\S+", dev.output):
        assert said in again.output
    for kept in ("hurlbat.db-token", "hurlbat.db-secret"):
        assert stat.S_IMODE((tmp_path / kept).stat().st_mode) == 0o600


def test_dev_repeats_no_secret_that_it_was_given(processes: Processes) -> None:
    secret = new_secret()
    arguments = ("dev", "--port", "0", "--worker", "http://127.0.0.1:9/hurlbat/")
    given = {"HURLBAT_SIGNING_SECRET": secret, "HURLBAT_API_TOKEN": TOKEN}
    dev = processes.listen(["hurlbat_app.cli.main", *arguments], 0, **given)
    dev.until(lambda: "is pending" in dev.output, "pending worker")

    listens = re.search(r"listens on (\S+),", dev.output)
    assert listens is not None
    assert f"export HURLBAT_URL={listens[1]}\n" in dev.output
    assert secret not in dev.output
    assert TOKEN not in dev.output
