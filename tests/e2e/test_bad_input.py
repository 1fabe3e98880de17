"""What cannot be is said in a clear sentence, with an exit code other than 0, and nothing is lost."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.stage import Api, Stage
from tests.support.postgres import Cluster
from tests.support.processes import SECRET_KEY, TOKEN, Process, Processes

USED_BY_ANOTHER = "another server uses"


def test_a_port_in_use_is_named(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    first = processes.serve(sqlite_url)

    second = processes.serve(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}", port=first.port, wait=False)

    assert_refused(second, 1, f"port {first.port} on 127.0.0.1 is in use")


def test_a_second_server_on_one_sqlite_file_is_refused_and_the_first_goes_on(
    processes: Processes, sqlite_url: str
) -> None:
    first = processes.serve(sqlite_url)

    second = processes.serve(sqlite_url, wait=False)

    assert_refused(second, 1, USED_BY_ANOTHER)
    first.answers(f"{first.url}/health/ready", below=300)


def test_the_file_is_free_again_the_moment_its_server_is_killed(processes: Processes, sqlite_url: str) -> None:
    processes.serve(sqlite_url).kill()

    processes.serve(sqlite_url)


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_an_unknown_kind_of_database_is_named(processes: Processes, command: str) -> None:
    process = hurlbat(processes, command, HURLBAT_DATABASE_URL="mysql://somewhere/hurlbat")

    assert_refused(process, 2, "unknown kind of database 'mysql'")


def test_a_database_that_cannot_be_reached_is_named(processes: Processes, free_port: int) -> None:
    """A server waits for it instead: see `tests/trouble/test_start.py`."""
    url = f"postgresql://postgres@127.0.0.1:{free_port}/hurlbat"
    process = hurlbat(processes, "migrate", HURLBAT_DATABASE_URL=url, HURLBAT_SECRET_KEY=SECRET_KEY)

    assert_refused(process, 1, "PostgreSQL at 127.0.0.1 cannot be reached")


def test_a_folder_that_is_not_there_and_cannot_be_made_is_named(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = hurlbat(processes, "serve", HURLBAT_DATABASE_URL=f"sqlite:///{tmp_path}/file/hurlbat.db")

    assert_refused(process, 1, "cannot be written")


def test_a_file_that_is_no_database_is_named_and_left_as_it_is(processes: Processes, tmp_path: Path) -> None:
    file = tmp_path / "letter.txt"
    file.write_text("Dear reader, " * 100)
    process = hurlbat(processes, "serve", HURLBAT_DATABASE_URL=f"sqlite:///{file}")

    assert_refused(process, 1, "letter.txt cannot be opened")
    assert file.read_text() == "Dear reader, " * 100


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_sqlite_file_of_a_newer_version_is_refused_and_left_as_it_is(
    processes: Processes, tmp_path: Path, command: str
) -> None:
    file = tmp_path / "hurlbat.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    connection.close()

    process = hurlbat(processes, command, HURLBAT_DATABASE_URL=f"sqlite:///{file}")

    assert_refused(process, 1, "(version 9999) is newer than this version of Hurlbat")
    connection = sqlite3.connect(file)
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert tables == [("alembic_version",)]


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_postgresql_database_of_a_newer_version_is_refused_and_left_as_it_is(
    processes: Processes, postgres_cluster: Cluster, postgres_url: str, command: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    made = "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('9999')"
    postgres_cluster.query(made, database)

    process = hurlbat(processes, command, HURLBAT_DATABASE_URL=postgres_url, HURLBAT_SECRET_KEY=SECRET_KEY)

    assert_refused(process, 1, "(version 9999) is newer than this version of Hurlbat")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_cluster.query(tables, database) == "1"


def test_all_mistakes_in_the_settings_are_told_at_once_and_no_secret_is(processes: Processes) -> None:
    process = hurlbat(
        processes,
        "serve",
        HURLBAT_PORT="eighty",
        HURLBAT_DATABASE_URL="postgresql://user:hidden-word@127.0.0.1/hurlbat",
        HURLBAT_API_TOKEN="short-one",
        HURLBAT_ALLOWED_NETWORKS="127.0.0.0/8,nowhere",
        HURLBAT_HEARTBEAT="10",
        HURLBAT_LEASE="15",
    )

    assert_refused(process, 2, "HURLBAT_PORT must be a whole number")
    for told in ("HURLBAT_API_TOKEN", "HURLBAT_ALLOWED_NETWORKS", "HURLBAT_SECRET_KEY is required", "HURLBAT_LEASE"):
        assert told in process.output
    assert "hidden-word" not in process.output
    assert "short-one" not in process.output


def test_a_wrong_key_for_the_stored_secrets_is_refused(processes: Processes, tmp_path: Path, sqlite_url: str) -> None:
    server = processes.serve(sqlite_url)
    with Api(server.url) as api:
        spec = {"name": "plain", "url": "http://127.0.0.1:9/", "mode": "plain", "tasks": [{"name": "some"}]}
        api.call("POST", "/workers", spec, status=201)
    assert server.terminate() == 0

    other = processes.serve(sqlite_url, wait=False, HURLBAT_SECRET_KEY="B" * 43 + "=")

    assert_refused(other, 1, "HURLBAT_SECRET_KEY")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/runs", {"task": "no-such-task"}, 422, "task_unknown"),
        ("POST", "/runs", {"task": "add", "input": "x" * 1_048_577}, 413, "body_too_large"),
        ("POST", "/runs?wait=61", {"task": "add"}, 422, "wait_invalid"),
        ("GET", "/runs?cursor=nonsense", None, 422, "bad_cursor"),
        ("GET", "/workers/nobody", None, 404, "worker_unknown"),
        ("GET", "/runs/01890000-0000-7000-8000-000000000000", None, 404, "run_unknown"),
    ],
)
def test_a_request_that_cannot_be_is_a_problem_with_a_code(
    stage: Stage, method: str, path: str, body: Any, status: int, code: str
) -> None:
    response = stage.api.send(method, path, body)

    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"


def hurlbat(processes: Processes, command: str, **env: str) -> Process:
    """Start a command of ours, in the test's own folder."""
    return processes.python(command, "-m", "hurlbat_app.cli.main", command, **({"HURLBAT_API_TOKEN": TOKEN} | env))


def assert_refused(process: Process, code: int, sentence: str) -> None:
    """The process has left with this code and said so, without a traceback."""
    assert process.wait() == code, process.output
    assert sentence in process.output
    assert "Traceback" not in process.output
