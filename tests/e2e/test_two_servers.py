"""Two servers on one PostgreSQL: one starts the runs, either takes them, and the other goes on when one dies."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.chaos import Submitters, count, size
from tests.e2e.stage import Api, Journal, assert_no_faults, start_both, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes, Server

SHORT, LONG = 3.0, 120.0
"""Leases in seconds."""
LIVELY = 2.5
"""Seconds within which one server hears of the other; the sweep that finds what was not heard takes 5."""
TRIES = 12
"""How often that is looked at, as at times the machine has no time for a server."""


@dataclass(frozen=True)
class Pair:
    """Two servers: the one that owns the lanes, and the other."""

    owner: Server
    other: Server
    at_owner: Api
    at_other: Api
    journal: Journal
    cluster: Cluster
    database: str

    def owning(self) -> str:
        """Return the id of the server that starts the runs now."""
        return self.cluster.query("SELECT owner FROM shard", self.database)


@pytest.fixture
def lease() -> float:
    """How long a lease lasts: so long that none runs out while a server lives."""
    return LONG


@pytest.fixture
def pair(
    processes: Processes, tmp_path: Path, postgres_cluster: Cluster, postgres_url: str, lease: float
) -> Iterator[Pair]:
    """Two servers on one database, and the worker app, registered through the second."""
    journal = Journal(tmp_path / "journal")
    settings: dict[str, Any] = {"HURLBAT_LEASE": f"{lease:g}", "HURLBAT_HEARTBEAT": f"{lease / 3:g}"}
    owner = processes.serve(postgres_url, **settings)
    other, worker = start_both(processes, journal, postgres_url, **settings)
    with ExitStack() as stack:
        at_owner, at_other = (stack.enter_context(Api(server.url)) for server in (owner, other))
        assert at_other.register(worker)["state"] == "ready"
        until(lambda: at_owner.send("GET", "/workers/app").status_code == 200, "worker known to both")
        database = postgres_url.rpartition("/")[2]
        yield Pair(owner, other, at_owner, at_other, journal, postgres_cluster, database)
    assert_no_faults(owner)
    assert_no_faults(other)


def test_both_servers_accept_runs_and_each_run_is_executed_once(pair: Pair) -> None:
    submitters = Submitters([pair.owner.url, pair.other.url], 200)
    began = time.monotonic()
    submitters.start()
    submitters.join()

    found = count(pair.at_other, submitters, pair.journal, began)

    assert (found.completed, found.lost, found.unexplained) == (200, [], [])
    assert (found.executions, found.duplicates, found.charged_for) == (200, 0, {})


def test_a_run_is_waited_for_at_the_server_that_it_was_not_submitted_to(pair: Pair) -> None:
    delayed: dict[str, Any] = {"input": {"first": 1}, "delay": 0.5}
    for _ in range(TRIES):
        begun = time.monotonic()
        from_owner, from_other = (api.submit("add", **delayed) for api in (pair.at_owner, pair.at_other))

        answers = [pair.at_other.ended(from_owner["id"]), pair.at_owner.ended(from_other["id"])]

        took = time.monotonic() - begun
        assert [run["output"] for run in answers] == [2, 2]
        if took < 0.5 + LIVELY:
            break
    assert took < 0.5 + LIVELY


def test_a_running_attempt_is_cancelled_through_the_server_that_does_not_send_it(pair: Pair, tmp_path: Path) -> None:
    submitted = pair.at_owner.submit("hold", str(tmp_path / "gate"))
    until(lambda: pair.journal.events(submitted["id"]) == ["started"], "start")

    pair.at_other.call("POST", f"/runs/{submitted['id']}/cancel")

    until(lambda: pair.journal.events(submitted["id"]) == ["started", "cancelled"], "end of the task")
    assert pair.at_owner.show(submitted["id"])["state"] == "cancelled"
    until(lambda: pair.at_owner.call("GET", "/workers/app")["in_flight"] == 0, "free slot")


@pytest.mark.parametrize("lease", [SHORT])
def test_the_other_server_takes_over_from_one_that_is_killed(pair: Pair) -> None:
    before, wanted = pair.owning(), size()
    submitters = Submitters([pair.owner.url, pair.other.url], wanted.runs // 2)
    began = time.monotonic()
    submitters.start()
    submitters.until(wanted.runs // 8)

    pair.owner.kill()
    killed = time.monotonic()
    until(lambda: pair.owning() != before, "other owner")
    took = time.monotonic() - killed
    submitters.join()

    found = count(pair.at_other, submitters, pair.journal, began)
    print(f"taken over after {took:.1f} s: {found}")
    assert (found.completed, found.lost, found.unexplained) == (wanted.runs // 2, [], [])


def test_a_server_that_stops_hands_over_at_once_and_costs_no_try(pair: Pair) -> None:
    before = pair.owning()
    submitters = Submitters([pair.owner.url, pair.other.url], 200)
    began = time.monotonic()
    submitters.start()
    submitters.until(60)

    pair.owner.signal(signal.SIGTERM)
    until(lambda: pair.owning() != before, "other owner")  # long before its lease is over
    submitters.join()

    assert pair.owner.wait() == 0
    found = count(pair.at_other, submitters, pair.journal, began)
    assert (found.completed, found.lost, found.unexplained) == (200, [], [])
    assert (found.duplicates, found.charged_for) == (0, {})
    assert set(found.refused) <= {"503 stopping"}
