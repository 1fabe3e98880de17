"""A server, and one process in which the tests declare their workers and the shapes of their workflows."""

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hurlbat import Hurlbat, RunCancelled, Task
from tests.e2e.stage import PATIENCE, SECRET, Api, Object, assert_no_faults, until
from tests.flow.checks import Span
from tests.flow.stand import Flow, FlowJournal
from tests.support.processes import TOKEN, Processes, Server
from tests.support.stands import UNHURRIED

WORKER = "tests.composition.worker_app:app"
LONG = 3600
"""Seconds in which nothing becomes due by the passing of time."""
_names = itertools.count(1)


@dataclass(frozen=True)
class Stand(Flow):
    """A server, and the process of the workers."""

    hurlbat: Hurlbat
    """A client of the server, as any app has one."""

    def plain(self, name: str, *tasks: Object, slots: int = 64) -> None:
        """Register a plain worker of these tasks."""
        url = f"{self.host.url}/plain/"
        spec = {"name": name, "url": url, "mode": "plain", "secret": SECRET, "slots": slots, "tasks": tasks}
        answer = self.api.send("POST", "/workers", spec)
        assert answer.status_code in (200, 201), answer.text

    def workflow(self, name: str, *nodes: Object, last: Object | None = None, **policy: Any) -> str:
        """Declare a workflow, and a worker with a task `workflow.node` for each node that names none; return its name.

        `last` has `on_failure` and `on_success`.
        """
        listed = [*nodes, *(last or {}).values()]
        named = [node if "task" in node else node | {"task": f"{name}.{node['name']}"} for node in listed]
        own = [{"name": node["task"]} for node, given in zip(named, listed, strict=True) if "task" not in given]
        if own:
            self.worker(f"{name}-tasks", *own, slots=64)
        graph = {"nodes": named[: len(nodes)]} | dict(zip(last or {}, named[len(nodes) :], strict=True))
        answer = self.api.send("PUT", f"/workflows/{name}", graph | policy)
        assert answer.status_code in (200, 201), answer.text
        return name

    def begin(self, task: str, does: Object | None = None, **more: Any) -> str:
        """Submit a run in which each node does what is said; return its id."""
        given = more.pop("input", {}) | {"does": does or {}}
        return str(self.api.submit(task, given, **more)["id"])

    def nodes(self, run_id: str) -> dict[str, Object]:
        """Return the nodes of a workflow's run as it shows them, by name."""
        return {node["name"]: node for node in self.api.show(run_id)["nodes"]}

    def stood(self, run_id: str) -> dict[str, str]:
        """Return the states of a workflow's nodes by name."""
        return {name: node["state"] for name, node in self.nodes(run_id).items()}

    def node(self, run_id: str, name: str) -> Object:
        """Return the run of a node."""
        return self.api.show(self.nodes(run_id)[name]["run"])

    def until_node(self, run_id: str, name: str, state: str) -> Object:
        """Return the run of a node when it has this state."""
        until(lambda: self.stood(run_id).get(name) == state, f"{state} node {name} of {run_id}")
        return self.node(run_id, name)

    def noted(self, event: str, run_id: str) -> list[Object]:
        """Return what the workers have noted of a run."""
        return [
            entry for entry in Notes(self.journal.path).all() if (entry["event"], entry["run_id"]) == (event, run_id)
        ]

    def until_noted(self, event: str, run_id: str, count: int = 1) -> Object:
        """Wait until the workers have noted something of a run, and return the last of it."""
        until(lambda: len(self.noted(event, run_id)) >= count, f"{event} of run {run_id}")
        return self.noted(event, run_id)[-1]

    def started(self, task: str) -> list[Object]:
        """Return what the workers have noted of starts of a task."""
        return self.journal.entries(task, event="started")

    def of(self, task: str) -> Task[Any, Any]:
        """Return a task, to be called as from another app."""
        return self.hurlbat.stub(task)

    def cancelled(self, run: Object) -> RunCancelled:
        """Return what is raised for who waits for this run."""
        try:
            found = self.of(run["task"]).ref(run["id"]).result_sync(timeout=PATIENCE)
        except RunCancelled as error:
            return error
        raise AssertionError(f"not cancelled, but {found!r}")


class Notes(FlowJournal):
    """What the workers have noted."""

    def all(self) -> list[Object]:
        """Return all lines, in order."""
        lines = self.path.read_text().split("\n")[:-1] if self.path.exists() else []
        return [json.loads(line) for line in lines]


def new(word: str) -> str:
    """Return a name that nobody has used."""
    return f"{word}-{next(_names)}"


def ended_before(spans: list[Span]) -> bool:
    """Tell whether each of these has ended before the next began."""
    return all(first.end <= second.start for first, second in itertools.pairwise(sorted(spans)))


@contextmanager
def set_up(processes: Processes, folder: Path, database_url: str) -> Iterator[Stand]:
    """Start a server and the process of the workers. The server's log must hold no fault at the end."""
    journal = Notes(folder / "journal")
    server = processes.serve(database_url, wait=False, **UNHURRIED)
    host = start_host(processes, journal, server)
    server.answers(f"{server.url}/health/ready", below=300)
    with Api(server.url) as api, client_of(server) as hurlbat:
        yield Stand(database_url, server, host, journal, api, hurlbat)
    assert_no_faults(server)


@contextmanager
def client_of(server: Server) -> Iterator[Hurlbat]:
    """A client of a server, as any app has one; its connections end with the block."""
    hurlbat = Hurlbat(url=server.url, token=TOKEN)
    yield hurlbat
    hurlbat.sync_client.close()


def start_host(processes: Processes, journal: FlowJournal, server: Server) -> Server:
    """Start the process of the workers, whose tasks submit to a server."""
    log, url = str(journal.path), server.url
    return processes.app(WORKER, FLOW_LOG=log, HURLBAT_URL=url, HURLBAT_TOKEN=TOKEN, HURLBAT_SIGNING_SECRET=SECRET)
