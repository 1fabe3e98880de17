"""A server whose database is away when it starts: it listens, says why it does not work, and works when it can."""

import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stage import Api, until
from tests.support.postgres import Cluster
from tests.support.processes import TOKEN, Processes, Server
from tests.trouble.proxy import Mode, Proxy, proxy_to

CANNOT = "the database cannot be used yet; it is tried again until it can: "
PATIENCE = 90.0
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def proxy(postgres_cluster: Cluster) -> Iterator[Proxy]:
    with proxy_to(postgres_cluster.port) as carrying:
        yield carrying


def by_way_of(proxy: Proxy, url: str) -> str:
    return f"postgresql://postgres@127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}"


def waiting(processes: Processes, url: str, **env: Any) -> Server:
    """Start a server that is not ready, and wait until it has said so."""
    server = processes.serve(url, wait=False, **env)
    server.until(lambda: CANNOT in server.output, "word of the database")
    return server


def ready(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/health/ready", timeout=PATIENCE, trust_env=False)


def assert_waits(server: Server, reason: str) -> None:
    """It lives, is not ready, and refuses everything else with the reason."""
    assert httpx.get(f"{server.url}/health/live", timeout=PATIENCE, trust_env=False).status_code == 200
    requests = [
        ("GET", "/health/ready"),
        ("POST", "/runs"),
        ("GET", "/runs"),
        ("GET", "/workers"),
        ("GET", "/metrics"),
        ("POST", "/runs/0199a3c0-0000-7000-8000-000000000001/attempts/1/heartbeat"),
    ]
    for method, path in requests:
        answer = httpx.request(method, f"{server.url}{path}", headers=BEARER, timeout=PATIENCE, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable"), f"{path}: {answer.text}"
        assert reason in answer.json()["detail"]
        assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("trouble", [Mode.REFUSE, Mode.HANG], ids=["refused", "silent"])
def test_a_server_waits_for_its_database_and_works_when_it_is_there(
    processes: Processes, postgres_url: str, proxy: Proxy, trouble: Mode
) -> None:
    proxy.mode = trouble
    server = processes.serve(by_way_of(proxy, postgres_url), wait=False)
    server.answers(f"{server.url}/health/live", below=300)
    server.until(lambda: CANNOT in server.output, "word of the database")
    assert_waits(server, "PostgreSQL at 127.0.0.1")

    proxy.mode = Mode.PASS

    server.answers(f"{server.url}/health/ready", below=300)
    for said in ("the database works now", "Hurlbat listens on"):
        server.until(lambda said=said: said in server.output, said)  # type: ignore[misc]
    with Api(server.url) as api:
        assert api.call("GET", "/runs")["items"] == []
    assert "Traceback" not in server.output
    assert server.terminate() == 0


def test_a_server_that_waits_asks_and_tells_ever_more_rarely(
    processes: Processes, postgres_url: str, proxy: Proxy
) -> None:
    proxy.mode = Mode.REFUSE
    server = waiting(processes, by_way_of(proxy, postgres_url))
    before, began = proxy.connections, time.monotonic()
    time.sleep(2.5)  # a time that is looked at, not waited for
    asked, told = proxy.connections - before, server.output.count(CANNOT)
    passed = time.monotonic() - began
    # after 0.5, 1, 2, 4, 5, 5 s; each asks twice, as the first time was for TLS
    assert asked <= 2 * (3 + passed / 3)
    assert 1 <= told <= 2 + passed / 3


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("no-such-host.invalid/hurlbat", "PostgreSQL at no-such-host.invalid cannot be reached"),
        ("127.0.0.1:{port}/nowhere", "refuses the connection: database"),
    ],
    ids=["unknown host", "unknown database"],
)
def test_a_stop_while_waiting_is_quick_and_in_order(
    processes: Processes, postgres_cluster: Cluster, address: str, reason: str
) -> None:
    server = waiting(processes, f"postgresql://postgres@{address.format(port=postgres_cluster.port)}")
    assert_waits(server, reason)
    assert server.terminate() == 0
    assert "Traceback" not in server.output


def test_what_only_a_human_can_mend_is_mended_without_a_restart(
    processes: Processes, postgres_cluster: Cluster
) -> None:
    name = "made_later"
    server = waiting(processes, f"postgresql://postgres@127.0.0.1:{postgres_cluster.port}/{name}")
    postgres_cluster.query(f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        server.answers(f"{server.url}/health/ready", below=300)
        assert server.terminate() == 0
    finally:
        postgres_cluster.query(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_older_schema_on_a_shared_database_ends_the_server_with_a_sentence(
    processes: Processes, postgres_cluster: Cluster, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    made = "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('0001')"
    postgres_cluster.query(made, name)
    server = processes.serve(postgres_url, wait=False)
    assert server.wait() == 1
    assert "older than this version of Hurlbat; run `hurlbat migrate` first" in server.output
    assert "Traceback" not in server.output


def test_a_server_waits_for_a_sqlite_file_that_is_busy(processes: Processes, sqlite_url: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "hurlbat.db", isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode=exclusive")
        other.execute("BEGIN EXCLUSIVE")
        server = waiting(processes, sqlite_url)
        assert "database is locked" in ready(server).json()["detail"]
        other.execute("ROLLBACK")
    server.answers(f"{server.url}/health/ready", below=300)
    assert server.terminate() == 0


def test_the_port_is_taken_before_the_database_is_asked(
    processes: Processes, postgres_url: str, proxy: Proxy, free_port: int
) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        server = processes.serve(by_way_of(proxy, postgres_url), port=free_port, wait=False)
        assert server.wait() == 1
    assert "is in use" in server.output
    assert proxy.connections == 0


def test_the_first_token_is_told_when_there_is_a_database_to_keep_it(
    processes: Processes, postgres_url: str, proxy: Proxy
) -> None:
    proxy.mode = Mode.REFUSE
    server = waiting(processes, by_way_of(proxy, postgres_url), HURLBAT_API_TOKEN="")
    assert "HURLBAT_TOKEN" not in server.output
    proxy.mode = Mode.PASS
    until(lambda: "export HURLBAT_TOKEN=" in server.output, "token")
