"""Three servers on one PostgreSQL, a schedule for every second, and kills: each second has its one run.

How long, and how often one server is killed (seconds): HURLBAT_CHAOS_CRON and HURLBAT_CHAOS_CRON_KILL.
"""

import os
import time
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.e2e.stage import SECRET, Api, Object, assert_no_faults, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes, Server
from tests.ways.stand import WORKER

QUICK: dict[str, Any] = {"HURLBAT_LEASE": "2", "HURLBAT_HEARTBEAT": "0.7"}
"""The lanes are taken over when a lease has run out; tests need not wait for the usual 15 s."""
SERVERS = 3
TASK = {"name": "tick", "retries": 20, "backoff": {"strategy": "fixed", "initial": 0.1, "jitter": False}}
SCHEDULE = {"name": "every-second", "task": "tick", "expression": "* * * * * *", "missed": "all"}


class Fleet:
    """Servers on one database, of which one after the other is killed and started again, the owner in turn."""

    def __init__(self, processes: Processes, cluster: Cluster, database: str) -> None:
        self._processes = processes
        self._cluster = cluster
        self._database = database
        self._known: set[str] = set()
        self._names: dict[int, str] = {}
        self._past: list[Server] = []
        self.kills: Counter[str] = Counter()
        self.servers = [self._start() for _ in range(SERVERS)]

    def kill(self, *, owner: bool) -> None:
        """End the server that starts runs, or another, as a power cut would, and start one in its place."""
        until(lambda: self._owner() is not None, "owner among those who live")
        named = self._owner()
        place = named if owner and named is not None else max(set(range(SERVERS)) - {named})
        self.kills["owner" if place == named else "another"] += 1
        killed = self.servers[place]
        killed.kill()
        self._past.append(killed)
        self.servers[place] = self._start(killed.port)

    def assert_no_faults(self) -> None:
        """No server has logged what ought not to happen."""
        for server in (*self._past, *self.servers):
            assert_no_faults(server)

    def _owner(self) -> int | None:
        named = self._cluster.query("SELECT owner FROM shard", self._database)
        return next((place for place, server in enumerate(self.servers) if self._names[server.pid] == named), None)

    def _start(self, port: int | None = None) -> Server:
        server = self._processes.serve(self._cluster.url(self._database), port=port, **QUICK)
        names = set(self._cluster.query("SELECT id FROM dispatcher", self._database).split()) - self._known
        [self._names[server.pid]] = names
        self._known |= names
        return server


def second(text: str) -> int:
    """Return a time of the API in seconds since the epoch; it is a whole one."""
    found = datetime.fromisoformat(text).timestamp()
    assert found == int(found), text
    return int(found)


def test_every_second_has_one_run_whatever_server_is_killed(
    processes: Processes, tmp_path: Path, postgres_cluster: Cluster
) -> None:
    seconds = float(os.environ.get("HURLBAT_CHAOS_CRON", "11"))
    between = float(os.environ.get("HURLBAT_CHAOS_CRON_KILL", "4"))
    with postgres_cluster.database() as database:
        host = processes.app(WORKER, WAYS_LOG=str(tmp_path / "journal"))
        fleet = Fleet(processes, postgres_cluster, database)
        with Api(fleet.servers[0].url) as api:
            spec = {"name": "tick", "url": f"{host.url}/", "mode": "plain", "secret": SECRET, "tasks": [TASK]}
            api.call("POST", "/workers", spec, status=201)
            api.call("POST", "/schedules", SCHEDULE, status=201)
        began = time.time()
        for number in range(1, int(seconds / between) + 1):
            time.sleep(max(0.0, began + number * between - time.time()))
            fleet.kill(owner=number % 2 == 1)
        time.sleep(max(0.0, began + seconds - time.time()))
        with Api(fleet.servers[-1].url) as api:
            until(lambda: second(api.call("GET", "/schedules/every-second")["last_at"]) >= began + seconds - 1, "fire")
            last = second(api.call("POST", "/schedules/every-second/pause")["last_at"])
            fires, runs = list_all(api, "/schedules/every-second/fires"), list_all(api, "/runs", task="tick")
            states = Counter(api.ended(run["id"], 60)["state"] for run in runs)
        processes.close()  # before the database is gone

    due = Counter(second(run["trigger"]["due_at"]) for run in runs)
    first = min(due)
    print({"seconds": last - first + 1, "runs": len(runs), "kills": dict(fleet.kills), "states": dict(states)})
    assert first <= began + 1
    assert due == Counter(range(first, last + 1)), "a second has no run, or two"
    assert sorted(second(fire["due_at"]) for fire in fires) == list(range(first, last + 1))
    assert {(fire["outcome"], fire["manual"]) for fire in fires} == {("started", False)}
    assert {fire["run"] for fire in fires} == {run["id"] for run in runs}
    assert states == {"completed": len(runs)}
    assert fleet.kills["owner"] >= 1
    fleet.assert_no_faults()


def list_all(api: Api, path: str, **query: Any) -> list[Object]:
    """Return all items of a list."""
    found: list[Object] = []
    while True:
        page = api.call("GET", path, limit=1000, **query)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]
