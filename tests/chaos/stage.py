"""The processes of a chaos run: servers, workers, a database, and between them links that can be cut."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hurlbat_dispatcher import Settings, Severity, examine
from tests.chaos import journal
from tests.chaos.history import Execution
from tests.chaos.links import Link
from tests.chaos.packets import Packets, available
from tests.chaos.rows import PostgresRows, Rows, SqliteRows, owner_of_lanes
from tests.e2e.stage import FAULTS, SECRET, Api, until
from tests.support.ports import free_port
from tests.support.postgres import Cluster
from tests.support.processes import SECRET_KEY, Processes, Server, in_thread

LEASE: Final = 3.0
LIVELY: Final = {"HURLBAT_LEASE": f"{LEASE:g}", "HURLBAT_HEARTBEAT": "1", "HURLBAT_DRAIN_SECONDS": "10"}
"""Settings with which faults come to light soon."""
START_SECONDS: Final = 120.0
"""How long a process may take to start on a machine that is very busy."""
STOP_SECONDS: Final = 60.0
WORKERS: Final = ("one", "two")
SLOTS: Final = 8
REPLICAS: Final = 3
WATCH: Final = 0.25
_OWNS: Final = "this server starts the runs"
AWAY_SECONDS: Final = 1.0
"""After which a server that ended by itself is started again, as any supervisor would."""


@dataclass
class Stage:
    """What there is, and what can be done to it. Servers and workers keep their ports, whatever becomes of them."""

    processes: Processes
    folder: Path
    rows: Rows
    cluster: Cluster | None
    urls: Sequence[str]
    """The database's URL of each server: each has a link of its own."""
    front: Link
    database_links: list[Link]
    worker_links: list[Link]
    packets: Packets | None
    settings: Mapping[str, str]
    """What the servers are given."""
    servers: list[Server] = field(default_factory=list)
    workers: list[Server] = field(default_factory=list)
    past: list[Server] = field(default_factory=list)
    deaths: dict[int, float] = field(default_factory=dict)
    """When worker processes were killed, by pid."""
    deserters: list[str] = field(default_factory=list)
    """Servers that ended though nobody had asked them to."""
    _down: set[int] = field(default_factory=set)

    @property
    def client_log(self) -> Path:
        """Where the client notes every request and answer."""
        return self.folder / "client.jsonl"

    def executions(self) -> list[Execution]:
        """Return what the workers have noted so far."""
        return journal.executions(journal.lines(self.folder / "workers.jsonl"), self.deaths)

    def complaints(self) -> dict[str, int]:
        """Count in the servers' logs what ought not to be there."""
        found = Counter[str]()
        for server in (*self.past, *self.servers):
            output = server.output
            found.update({fault: output.count(fault) for fault in FAULTS if fault in output})
        return dict(found)

    async def diagnoses(self) -> list[str]:
        """Ask the product's own doctor what is wrong in the database."""
        settings = Settings.model_validate({"database_url": self.urls[0], "secret_key": SECRET_KEY})
        found = await examine(settings)
        return [f"doctor: {one.sentence}" for one in found.findings if one.severity is Severity.VIOLATION]

    # -- servers -------------------------------------------------------------------------------------------------------

    async def start_server(self, place: int) -> None:
        """Start a server where there is none, and do not wait for it."""
        port = self.servers[place].port if place < len(self.servers) else None
        started = self.processes.serve(
            self.urls[place],
            port=port,
            wait=False,
            HURLBAT_EXTERNAL_URL=f"http://127.0.0.1:{self.front.port}",
            **self.settings,
        )
        if port is None:
            self.servers.append(started)
        else:
            self.past.append(self.servers[place])
            self.servers[place] = started
        self._down.discard(place)

    async def end_server(self, place: int, *, kindly: bool = False) -> None:
        """End a server by SIGKILL, or by SIGTERM. It stays away until it is started."""
        self._down.add(place)
        server = self.servers[place]
        if kindly:
            code = await in_thread(server.terminate, STOP_SECONDS)
            if code != 0:
                self.deserters.append(f"server {place} ended with {code} after SIGTERM: {server.output[-500:]}")
        else:
            await in_thread(server.kill)

    async def owner(self) -> int | None:
        """Return the place of the server that owns the lanes now, by what it has logged; None if that one is gone."""
        name = await owner_of_lanes(self.rows)
        told = f"{_OWNS}.* owner={name}"
        return next((place for place, server in enumerate(self.servers) if re.search(told, server.output)), None)

    async def ready(self, place: int, seconds: float = START_SECONDS) -> None:
        """Wait until a server is ready."""
        server = self.servers[place]
        await in_thread(server.answers, f"{server.url}/health/ready", 300, seconds)

    async def roll(self) -> None:
        """Restart all servers one after the other, as a deploy does: each is ready before it is the next one's turn."""
        for place in range(len(self.servers)):
            await self.ready(place)
            await self.end_server(place, kindly=True)
            await self.start_server(place)
            await self.ready(place)

    async def watch(self) -> None:
        """Start servers again that ended by themselves, and remember that they did."""
        while True:
            await asyncio.sleep(WATCH)
            for place, server in enumerate(self.servers):
                if place not in self._down and not server.running:
                    self._down.add(place)
                    self.deserters.append(f"server {place} ended by itself: {server.output[-1000:]}")
                    await asyncio.sleep(AWAY_SECONDS)
                    await self.start_server(place)

    # -- workers -------------------------------------------------------------------------------------------------------

    async def start_worker(self, place: int) -> None:
        """Start a worker where there is none; its link takes connections when it answers."""
        there = place < len(self.workers)
        started = self.processes.app(
            "tests.chaos.worker:app",
            port=self.workers[place].port if there else None,
            wait=False,
            CHAOS_LOG=str(self.folder / "workers.jsonl"),
            CHAOS_WORKER=WORKERS[place],
            HURLBAT_SIGNING_SECRET=SECRET,
        )
        if there:
            self.workers[place] = started
        else:
            self.workers.append(started)
        await in_thread(started.answers, f"{started.url}/", 600, START_SECONDS)
        await self.worker_links[place].mend()

    async def kill_worker(self, place: int) -> None:
        """End a worker by SIGKILL; as nobody listens there now, its link refuses."""
        worker = self.workers[place]
        self.worker_links[place].refuse()
        await in_thread(worker.kill)
        self.deaths[worker.pid] = time.time()

    # -- database ------------------------------------------------------------------------------------------------------

    async def kill_database(self) -> None:
        """End the PostgreSQL as a power cut would; its links refuse."""
        assert self.cluster is not None
        for link in self.database_links:
            link.refuse()
        await in_thread(self.cluster.stop, "immediate")

    async def start_database(self) -> None:
        """Start the PostgreSQL again."""
        assert self.cluster is not None
        await in_thread(self.cluster.start)
        for link in self.database_links:
            await link.mend()


@asynccontextmanager
async def set_stage(
    folder: Path, cluster: Cluster | None, database: str, settings: Mapping[str, str] = LIVELY
) -> AsyncIterator[Stage]:
    """Start everything: three servers on a database of the cluster, or one on a SQLite file of this name.

    Two workers are registered. Everything is ended afterwards.
    """
    processes = Processes(folder)
    stage = _built(processes, folder, cluster, database, settings)
    links = [stage.front, *stage.database_links, *stage.worker_links]
    try:
        for link in (stage.front, *stage.database_links):
            await link.open()
        async with asyncio.TaskGroup() as group:
            for place in range(len(WORKERS)):
                group.create_task(stage.start_worker(place))
            await stage.start_server(0)
            await stage.ready(0)  # the first makes the schema
            for place in range(1, len(stage.urls)):
                await stage.start_server(place)
        await in_thread(_register, stage)
        for place in range(len(stage.servers)):
            await stage.ready(place)
        yield stage
    finally:
        await in_thread(processes.close)
        for link in links:
            await link.close()


def _built(
    processes: Processes, folder: Path, cluster: Cluster | None, database: str, settings: Mapping[str, str]
) -> Stage:
    servers: list[Server] = []
    workers: list[Server] = []
    turns = itertools.count()

    def each_in_turn() -> list[int]:
        ports = [server.port for server in servers]
        first = next(turns) % max(1, len(ports))
        return ports[first:] + ports[:first]

    def leading_to(place: int) -> Link:
        return Link(free_port(), lambda: [workers[place].port])

    database_links: list[Link] = []
    rows: Rows
    if cluster is None:
        urls = [f"sqlite+aiosqlite:///{folder / database}"]
        rows = SqliteRows(folder / database)
    else:
        database_links = [Link(free_port(), lambda: [cluster.port]) for _ in range(REPLICAS)]
        urls = [f"postgresql+asyncpg://postgres@127.0.0.1:{link.port}/{database}" for link in database_links]
        rows = PostgresRows(lambda: cluster.url(database))
    return Stage(
        processes,
        folder,
        rows,
        cluster,
        urls,
        front=Link(free_port(), each_in_turn),
        database_links=database_links,
        worker_links=[leading_to(place) for place in range(len(WORKERS))],
        packets=available(),
        settings=settings,
        servers=servers,
        workers=workers,
    )


def _register(stage: Stage) -> None:
    with Api(stage.servers[0].url) as api:
        for name, link in zip(WORKERS, stage.worker_links, strict=True):
            spec = {"name": name, "url": f"http://127.0.0.1:{link.port}/", "secret": SECRET, "slots": SLOTS}
            api.call("POST", "/workers", spec, status=201)
            # one that stood still is asked again by itself
            until(lambda name=name: api.call("GET", f"/workers/{name}")["state"] == "ready", "proof")  # type: ignore[misc]
