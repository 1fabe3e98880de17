"""Trouble of every kind under load: what was acknowledged is stored and ends well, and nobody has to restart anything.

A client submits without a rest, each run with an idempotency key; meanwhile the database of a real server gets into
trouble and out of it. One server on each database goes through all of it.
"""

import resource
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.stage import PATIENCE, Stage, assert_no_faults, set_stage, until
from tests.support.postgres import Cluster, running_cluster
from tests.support.processes import TOKEN, Processes
from tests.trouble.proxy import Mode, Proxy, proxy_to

SECONDS = 1.0
"""How long trouble lasts that is not over by itself."""
ROOM = 131_072
"""Bytes: more than the log of the server has, and less than is written ahead before it goes into the file."""
TOLD = "the database is in trouble"
OVER = "the database works again"


class Client:
    """Submits runs, remembers what was acknowledged, and everything else that it was told."""

    def __init__(self, url: str) -> None:
        self.name = uuid.uuid4().hex
        self.acknowledged: dict[str, str] = {}
        """The id of each key."""
        self.refusals: list[httpx.Response] = []
        self.unknown: list[str] = []
        """Keys of which nobody knew whether they are stored."""
        self.reads: list[int] = []
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Submit and read for as long as the block lasts."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join(4 * PATIENCE)
            assert not self._thread.is_alive()

    def _run(self) -> None:
        with httpx.Client(
            base_url=self._url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=2 * PATIENCE, trust_env=False
        ) as http:
            number = 0
            while not self._stop.is_set():
                number += 1
                self._submit(http, f"{self.name}-{number}", number)
                self.reads.append(http.get("/runs", params={"limit": 1}).status_code)

    def _submit(self, http: httpx.Client, key: str, number: int) -> None:
        answer = http.post("/runs", json={"task": "work", "input": number, "idempotency_key": key})
        if answer.is_success:
            self.acknowledged[key] = answer.json()["id"]
        else:
            self.refusals.append(answer)
            if answer.json()["code"] == "outcome_unknown":
                self.unknown.append(key)
            time.sleep(0.02)


def ordeal(stage: Stage, trouble: Callable[[Client], object], expected: set[str], *, times: int = 3) -> Client:
    """Bring trouble over a server under load, at most so many times; hold what is left against what was told."""
    client, written = Client(stage.server.url), len(stage.server.output)
    with client.at_work():
        until(lambda: len(client.acknowledged) >= 20, "acknowledged runs before the trouble")
        trouble(client)
        before = len(client.acknowledged)
        until(lambda: len(client.acknowledged) >= before + 20, "acknowledged runs after the trouble")

    assert {answer.status_code for answer in client.refusals} == {503}
    codes = {answer.json()["code"] for answer in client.refusals}
    assert codes <= expected, codes
    assert all(answer.headers["retry-after"] == "1" for answer in client.refusals)
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in client.refusals)
    assert set(client.reads) <= {200, 503}

    def stored() -> dict[str, Any]:
        listed = stage.api.listed(task="work")
        return {run["idempotency_key"]: run for run in listed if run["idempotency_key"].startswith(client.name)}

    until(lambda: all(run["finished_at"] for run in stored().values()), "end of all runs")
    found = stored()
    assert {key: found[key]["id"] for key in client.acknowledged} == client.acknowledged
    assert {run["state"] for run in found.values()} == {"completed"}
    # what is stored beyond that is what nobody knew of
    assert set(found) - set(client.acknowledged) <= set(client.unknown)

    assert stage.server.running
    assert stage.api.call("GET", "/health/ready") == {"status": "ready"}
    assert_no_faults(stage.server)
    log = stage.server.output[written:]
    assert 1 <= log.count(TOLD) == log.count(OVER) <= times, log
    assert len(log.splitlines()) < 10 + 10 * times, log
    return client


def until_told(stage: Stage, client: Client) -> None:
    """Wait until the server has said that it is in trouble, in its log and to the client."""
    until(lambda: stage.server.output.count(TOLD) > stage.server.output.count(OVER), "word of the trouble")
    until(lambda: client.refusals, "refusal")


# -- SQLite ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("sqlite")
    processes = Processes(folder)
    try:
        with set_stage(processes, folder, f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}") as stage:
            yield stage
    finally:
        processes.close()


def test_a_disk_that_takes_no_more(on_sqlite: Stage) -> None:
    """The kernel refuses the server's writes beyond a size, and takes them again."""
    pid, wal = on_sqlite.server.pid, on_sqlite.folder / "hurlbat.db-wal"

    def trouble(client: Client) -> None:
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = min(wal.stat().st_size, ROOM)  # or it could begin anew at its start, again and again
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, before[1]))
        until_told(on_sqlite, client)
        time.sleep(SECONDS)
        refused = on_sqlite.api.send("GET", "/health/ready")
        assert (refused.status_code, "disk I/O error" in refused.json()["detail"]) == (503, True)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    ordeal(on_sqlite, trouble, {"database_unavailable"})


def test_a_file_that_another_program_holds_for_too_long(on_sqlite: Stage) -> None:
    def trouble(client: Client) -> None:
        with closing(sqlite3.connect(on_sqlite.folder / "hurlbat.db", PATIENCE, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            until_told(on_sqlite, client)
            assert on_sqlite.api.call("GET", "/runs", limit=1)["items"]  # readers need not wait
            other.execute("ROLLBACK")

    ordeal(on_sqlite, trouble, {"database_unavailable"})


def test_a_file_that_is_away_for_a_while(on_sqlite: Stage) -> None:
    def trouble(client: Client) -> None:
        file = on_sqlite.folder / "hurlbat.db"
        file.rename(on_sqlite.folder / "elsewhere.db")
        until_told(on_sqlite, client)
        (on_sqlite.folder / "elsewhere.db").rename(file)

    ordeal(on_sqlite, trouble, {"database_unavailable"})


# -- PostgreSQL ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL for the tests of this module, to be restarted and told other settings."""
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with proxy_to(cluster.port) as carrying:
        yield carrying


@pytest.fixture(scope="module")
def on_postgres(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster, proxy: Proxy) -> Iterator[Stage]:
    """A server whose database is behind the proxy."""
    folder = tmp_path_factory.mktemp("postgres")
    processes = Processes(folder)
    url = f"postgresql+asyncpg://postgres@127.0.0.1:{proxy.port}/postgres"
    try:
        with set_stage(processes, folder, url) as stage:
            yield stage
    finally:
        processes.close()


EITHER = {"database_unavailable", "outcome_unknown"}


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_restart_of_the_database(on_postgres: Stage, cluster: Cluster, mode: str) -> None:
    def trouble(client: Client) -> None:
        cluster.stop(mode)
        until_told(on_postgres, client)
        time.sleep(SECONDS)
        cluster.start()

    ordeal(on_postgres, trouble, EITHER)


def test_connections_that_are_killed_again_and_again(on_postgres: Stage, cluster: Cluster) -> None:
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'hurlbat'"

    def trouble(client: Client) -> None:
        def refused() -> bool:
            cluster.query(kill)
            time.sleep(0.05)
            return bool(client.refusals)

        for _round in range(10):
            refused()
        until(refused, "refusal")  # the client may have been between two requests whenever they were killed

    ordeal(on_postgres, trouble, EITHER, times=50)


@pytest.mark.parametrize("cut", [Mode.CUT_BEFORE, Mode.CUT_AFTER])
def test_commits_whose_answers_are_lost(on_postgres: Stage, proxy: Proxy, cut: Mode) -> None:
    """Whoever asked is told that nobody knows, and what was stored all the same is done."""

    def trouble(client: Client) -> None:
        while not client.unknown:  # the server's own are cut, too
            done = len(client.acknowledged)
            until(lambda: len(client.acknowledged) > done, "acknowledged run between the cuts")  # noqa: B023
            proxy.mode = cut
            until(lambda: proxy.mode is Mode.PASS, "cut")

    ordeal(on_postgres, trouble, EITHER, times=50)


def test_a_database_made_read_only(on_postgres: Stage, cluster: Cluster) -> None:
    """As some providers do when its disk is full, and as after a failover."""

    def trouble(client: Client) -> None:
        cluster.query("ALTER SYSTEM SET default_transaction_read_only = on")
        cluster.query("SELECT pg_reload_conf()")
        until_told(on_postgres, client)
        time.sleep(SECONDS)
        cluster.query("ALTER SYSTEM RESET default_transaction_read_only")
        cluster.query("SELECT pg_reload_conf()")

    ordeal(on_postgres, trouble, {"database_unavailable"})


def test_a_database_that_asks_not_to_be_asked(on_postgres: Stage, proxy: Proxy) -> None:
    """Attempts to reach it are few, however many ask: four a second at most, and each asks twice, as for TLS."""

    def trouble(client: Client) -> None:
        proxy.mode = Mode.REFUSE
        proxy.cut_all()
        until_told(on_postgres, client)
        before, began = proxy.connections, time.monotonic()
        time.sleep(1.5)
        asked = proxy.connections - before
        assert asked < 12 * (time.monotonic() - began) + 4
        proxy.mode = Mode.PASS

    ordeal(on_postgres, trouble, EITHER)
