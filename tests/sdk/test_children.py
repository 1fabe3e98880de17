"""A real server and a real worker: tasks and their children, from threads and from asyncio tasks."""

from collections.abc import Iterator
from typing import Any

import pytest

from hurlbat import Client, Run
from hurlbat.signing import new_secret
from tests.support.processes import TOKEN, Processes

COUNT = 20
TASKS = ["double", "double_later"]


class Stage:
    """The server, by a client."""

    def __init__(self, client: Client, worker: dict[str, Any]) -> None:
        self.client = client
        self._worker = worker

    def slots(self, count: int) -> None:
        """Let the worker have so many."""
        found = self.client.register_worker(**self._worker, slots=count)
        assert (found["state"], found["problem"]) == ("ready", None)

    def run(self, task: str, input: Any) -> Run:
        """Run a task to its end."""
        return self.client.wait_for(self.client.submit(task, input).id, timeout=120)

    def children(self, parent: Run) -> list[Run]:
        """Return what came of a run."""
        return [run for task in TASKS for run in self.client.list_runs(task=task).items if run.parent == parent.id]


@pytest.fixture
def stage(processes: Processes, database_url: str) -> Iterator[Stage]:
    """A server on either database, and the worker of `children_worker`, which calls it."""
    secret = new_secret()
    server = processes.serve(database_url)
    worker = processes.app(
        "tests.sdk.children_worker:app",
        HURLBAT_SIGNING_SECRET=secret,
        HURLBAT_URL=server.url,
        HURLBAT_TOKEN=TOKEN,
        wait=False,
    )
    worker.answers(f"{worker.url}/", below=600)
    client = Client(server.url, TOKEN)
    stage = Stage(client, {"name": "children", "url": f"{worker.url}/hurlbat/", "secret": secret})
    yield stage
    client.close()


def test_children_come_back_to_their_parents_and_a_parent_in_its_own_way_is_told(stage: Stage) -> None:
    stage.slots(8)
    parent = stage.run("in_threads", COUNT)
    assert (parent.state, parent.tries) == ("completed", 2), parent.error
    assert parent.output == [2 * n for n in range(COUNT)] + [2 * COUNT] * 2
    keys = sorted(run.child_key or "" for run in stage.children(parent))
    assert keys == sorted(["helper", "left", *(f"many:{n}" for n in range(COUNT))])

    parent = stage.run("in_the_loop", COUNT)
    assert (parent.state, parent.output) == ("completed", [2 * n for n in range(COUNT + 1)]), parent.error
    assert len(stage.children(parent)) == COUNT + 1

    stage.slots(1)
    parent = stage.run("stuck", 1)
    assert (parent.state, parent.tries) == ("failed", 1)
    error = parent.error or {}
    assert (error["code"], error["type"]) == ("would_deadlock", "would_deadlock")
    assert error["message"].startswith("double could never start: it takes a slot, only worker children serves it")
    assert stage.children(parent) == []
