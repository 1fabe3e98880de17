"""Killed servers, killed and absent workers: no acknowledged run is lost, and every repeat has its reason."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tests.e2e.chaos import Count, Submitters, count, kills, size
from tests.e2e.stage import Api, Journal, assert_no_faults, start_worker, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes

QUICK: dict[str, Any] = {"HURLBAT_LEASE": "2", "HURLBAT_HEARTBEAT": "0.7"}
"""A shared database is taken over when a lease has run out; tests need not wait for the usual 15 s."""


def test_runs_survive_a_server_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    journal, wanted = Journal(tmp_path / "journal"), size()
    server, worker = processes.serve(database_url, **QUICK), start_worker(processes, journal)
    servers = [server]
    with Api(server.url) as api:
        api.register(worker)
    began = time.monotonic()
    submitters = Submitters([server.url], wanted.runs)
    submitters.start()
    for threshold in kills(wanted, seed=1):
        submitters.until(threshold)
        servers[-1].kill()
        servers.append(processes.serve(database_url, port=server.port, **QUICK))
    submitters.join()

    with Api(server.url) as api:
        found = count(api, submitters, journal, began)

    assert_all_done(found)
    for each in servers:
        assert_no_faults(each)


def test_runs_survive_a_worker_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    journal, wanted = Journal(tmp_path / "journal"), size()
    server, worker = processes.serve(database_url, **QUICK), start_worker(processes, journal)
    with Api(server.url) as api:
        api.register(worker)
        began = time.monotonic()
        submitters = Submitters([server.url], wanted.runs)
        submitters.start()
        running = worker
        for threshold in kills(wanted, seed=2):
            submitters.until(threshold)
            running.kill()
            running = start_worker(processes, journal, port=worker.port)
        submitters.join()

        found = count(api, submitters, journal, began)

    assert_all_done(found)
    assert_no_faults(server)


def test_runs_survive_a_database_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, postgres_cluster: Cluster, postgres_url: str
) -> None:
    journal, wanted = Journal(tmp_path / "journal"), size()
    server, worker = processes.serve(postgres_url, **QUICK), start_worker(processes, journal)
    with Api(server.url) as api:
        api.register(worker)
        began = time.monotonic()
        submitters = Submitters([server.url], wanted.runs)
        submitters.start()
        for threshold in kills(wanted, seed=3):
            submitters.until(threshold)
            postgres_cluster.stop("immediate")
            postgres_cluster.start()
        submitters.join()

        found = count(api, submitters, journal, began)

    assert_all_done(found, {"503 database_unavailable", "503 outcome_unknown"})
    assert_no_faults(server, but="a background duty failed")


def test_no_run_fails_or_is_charged_because_its_worker_is_away(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    journal, wanted = Journal(tmp_path / "journal"), size()
    server, worker = processes.serve(database_url), start_worker(processes, journal)
    with Api(server.url) as api:
        api.register(worker)
        api.run("add", {"first": 1})
        worker.terminate()
        left = time.monotonic()
        submitters = Submitters([server.url], wanted.runs)
        submitters.start()
        submitters.join()
        until(lambda: api.call("GET", "/workers/app")["state"] == "unreachable", "unreachable worker")
        until(lambda: time.monotonic() - left >= wanted.away, "worker away for long", wanted.away + 60)
        assert {run["state"] for run in api.listed(task="work")} <= {"queued", "running"}
        start_worker(processes, journal, port=worker.port)
        began = time.monotonic()

        found = count(api, submitters, journal, began)

        assert_all_done(found)
        assert (found.duplicates, found.charged) == (0, 0)
        until(lambda: api.call("GET", "/workers/app")["state"] == "ready", "ready worker")
    assert_no_faults(server)


def assert_all_done(found: Count, refusals: Collection[str] = ()) -> None:
    """Every acknowledged run completed, every repeated execution is explained, and nobody was refused otherwise."""
    print(found)
    assert found.lost == []
    assert found.unexplained == []
    assert found.completed == found.acknowledged == found.submitted
    assert set(found.refused) <= set(refusals)
