"""Workflows on two servers of one PostgreSQL: ends, events and cancellations come in anywhere, and servers die."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.composition.stand import LONG, Notes, Stand, client_of, new, set_up, start_host
from tests.composition.test_conditions import publish
from tests.composition.test_graphs import node
from tests.e2e.stage import Api, assert_no_faults, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes, Server

SHORT, USUAL = 15.0, 60.0
"""Leases in seconds, of which a third passes between two looks at the owner's."""


@dataclass(frozen=True)
class Pair:
    """Two servers on one database: the one that starts runs, and the other."""

    owner: Stand
    other: Stand
    processes: Processes
    cluster: Cluster

    def owning(self) -> str:
        """Return the id of the server that starts the runs now."""
        return self.asked("SELECT owner FROM shard")

    def outlives(self, dead: str) -> None:
        """Let the lease of a server that was killed be over now."""
        self.asked(f"UPDATE dispatcher SET lease_until = 0 WHERE id = '{dead}'")
        self.asked(f"UPDATE shard SET lease_until = 0 WHERE owner = '{dead}'")

    def asked(self, sql: str) -> str:
        """Return what the database says."""
        return self.cluster.query(sql, self.owner.database_url.rpartition("/")[2])

    def known(self, name: str) -> None:
        """Wait until both servers know a task."""
        for one in (self.owner, self.other):
            until(lambda one=one: one.api.send("GET", f"/tasks/{name}").status_code == 200, "task")  # type: ignore[misc]

    def workflow(self, name: str, *nodes: Any, **policy: Any) -> str:
        """Declare a workflow through the server that does not start runs."""
        self.other.workflow(name, *nodes, **policy)
        self.known(name)
        for one in nodes:
            self.known(one.get("task", f"{name}.{one['name']}"))
        return name


@pytest.fixture
def lease() -> float:
    """How long a lease lasts: so long that none runs out while a server lives."""
    return USUAL


@pytest.fixture
def pair(
    processes: Processes, tmp_path: Path, postgres_cluster: Cluster, postgres_url: str, lease: float
) -> Iterator[Pair]:
    """Two servers on one database, and the process of the workers."""
    journal = Notes(tmp_path / "journal")
    settings: dict[str, Any] = {"HURLBAT_LEASE": f"{lease:g}", "HURLBAT_HEARTBEAT": f"{lease / 3:g}"}
    servers: list[Server] = [processes.serve(postgres_url, **settings) for _ in range(2)]
    host = start_host(processes, journal, servers[1])
    with ExitStack() as stack:
        apis = [stack.enter_context(Api(server.url)) for server in servers]
        owner, other = (
            Stand(postgres_url, server, host, journal, api, stack.enter_context(client_of(server)))
            for server, api in zip(servers, apis, strict=True)
        )
        yield Pair(owner, other, processes, postgres_cluster)
    for server in servers:
        assert_no_faults(server)


def test_a_workflow_goes_on_by_what_the_other_server_is_told(pair: Pair) -> None:
    name = new("across")
    condition = {"event": f"{name}:go", "look_back": 0}
    pair.workflow(name, node("a"), node("b", "a", wait_for=[condition]), node("c", "b"))
    ids = [stand.begin(name, input={"n": n}) for n in range(10) for stand in (pair.owner, pair.other)]
    for run_id in ids:
        pair.owner.until_node(run_id, "b", "suspended")

    publish(pair.other, f"{name}:go")

    assert {pair.other.api.ended(run_id)["state"] for run_id in ids[::2]} == {"completed"}
    assert {pair.owner.api.ended(run_id)["state"] for run_id in ids[1::2]} == {"completed"}
    assert len(pair.owner.started(f"{name}.c")) == len(ids)


def test_workflows_are_cancelled_through_the_other_server(pair: Pair, tmp_path: Path) -> None:
    name = new("stopped")
    pair.workflow(name, node("asleep", wait_for=[{"sleep": LONG}]), node("busy"), node("after", "busy"))
    run_id = pair.owner.begin(name, {"busy": {"gate": str(tmp_path / "never")}})
    busy = pair.owner.until_node(run_id, "busy", "running")
    pair.owner.until_node(run_id, "asleep", "suspended")
    pair.owner.until_noted("started", busy["id"])

    pair.other.api.call("POST", f"/runs/{run_id}/cancel", {"reason": "elsewhere"})

    assert pair.owner.api.ended(run_id)["reason"] == "elsewhere"
    for one in ("busy", "asleep"):
        found = pair.owner.until_node(run_id, one, "cancelled")
        assert (found["reason"], found["cancelled_by"]) == ("workflow cancelled: elsewhere", "parent")
    pair.owner.until_noted("cancelled", busy["id"])
    assert pair.owner.started(f"{name}.after") == []


def test_children_are_cancelled_with_their_parent_through_the_other_server(pair: Pair, tmp_path: Path) -> None:
    name = new("kin")
    pair.other.worker(name, {"name": f"{name}.parent"}, {"name": f"{name}.child"})
    pair.known(f"{name}.child")
    never = {"does": {f"{name}.child": {"gate": str(tmp_path / "never")}}}
    spawn = {"spawn": {"task": f"{name}.child", "inputs": [never] * 3, "wait": True, "child_key": "c"}}
    parent = pair.owner.begin(f"{name}.parent", {f"{name}.parent": spawn})
    until(lambda: len(pair.owner.started(f"{name}.child")) == 3, "children")

    pair.other.api.call("POST", f"/runs/{parent}/cancel")

    children = list(pair.owner.api.listed(parent=parent))
    assert {pair.owner.api.ended(child["id"])["cancelled_by"] for child in children} == {"parent"}
    for child in children:
        pair.owner.until_noted("cancelled", child["id"])


@pytest.mark.parametrize("lease", [SHORT])
def test_a_workflow_ends_right_when_the_server_that_starts_runs_is_killed(
    pair: Pair, lease: float, tmp_path: Path
) -> None:
    name, gate = new("killed"), tmp_path / "gate"
    event = {"event": f"{name}:go", "look_back": 0}
    pair.workflow(
        name,
        node("first"),
        node("busy", "first"),
        node("asleep", "first", wait_for=[{"sleep": 2}]),
        node("told", "first", wait_for=[event]),
        node("last", "busy", "asleep", "told"),
    )
    ids = [pair.other.begin(name, {"busy": {"gate": str(gate)}}, input={"n": n}) for n in range(5)]
    for run_id in ids:
        busy = pair.other.until_node(run_id, "busy", "running")
        pair.other.until_node(run_id, "told", "suspended")
        pair.other.until_noted("started", busy["id"])
    before = pair.owning()

    pair.owner.server.kill()
    publish(pair.other, f"{name}:go")  # nobody follows it yet
    pair.outlives(before)
    gate.touch()
    until(lambda: pair.owning() != before, "other owner")

    runs = [pair.other.api.ended(run_id) for run_id in ids]
    for run in runs:
        stood = pair.other.stood(run["id"])
        assert all(state in ("completed", "failed", "cancelled") for state in stood.values()), stood
        if stood["busy"] == "completed":
            assert (run["state"], set(stood.values())) == ("completed", {"completed"})
        else:  # it was sent by the dead one, may have run, and has no second try
            assert pair.other.node(run["id"], "busy")["error"]["code"] == "unknown_outcome"
            assert (run["state"], stood["last"]) == ("failed", "cancelled")
    lasts = [entry["run_id"] for entry in pair.other.started(f"{name}.last")]
    assert len(lasts) == len(set(lasts)) == sum(run["state"] == "completed" for run in runs)


def test_a_server_alone_goes_on_with_its_workflows_after_a_kill(
    processes: Processes, tmp_path: Path, sqlite_url: str
) -> None:
    with set_up(processes, tmp_path, sqlite_url) as stand:
        name = new("alone")
        event = {"event": f"{name}:go", "look_back": 0}
        stand.workflow(name, node("first"), node("asleep", "first", wait_for=[{"sleep": LONG}]))
        waits = stand.workflow(new("told"), node("first"), node("told", "first", wait_for=[event]))
        ids = [stand.begin(name, input={"n": n}) for n in range(3)] + [stand.begin(waits)]
        for run_id, suspended in zip(ids, ["asleep"] * 3 + ["told"], strict=True):
            stand.until_node(run_id, suspended, "suspended")

        stand.server.kill()
        with closing(sqlite3.connect(tmp_path / "hurlbat.db")) as file, file:
            slept = file.execute("UPDATE wait SET due_at = 0 WHERE due_at IS NOT NULL AND met_at IS NULL")
            assert slept.rowcount == 3  # their time has come meanwhile
        server = processes.serve(sqlite_url)
        with Api(server.url) as api:
            again = replace(stand, server=server, api=api)
            publish(again, f"{name}:go")
            assert {api.ended(run_id)["state"] for run_id in ids} == {"completed"}
        assert len(stand.started(f"{name}.asleep")) == 3
        assert_no_faults(server)
