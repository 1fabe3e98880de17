"""A server, and beside it workers in any framework below any web server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.stage import SECRET, Api, Object, assert_no_faults
from tests.support.ports import free_port
from tests.support.processes import TOKEN, Process, Processes, Server
from tests.support.stands import UNHURRIED


@dataclass(frozen=True)
class Stand:
    """A server, its API, and what starts workers."""

    processes: Processes
    server: Server
    api: Api

    @property
    def settings(self) -> dict[str, str]:
        """What an app needs to know of the server."""
        return {"HURLBAT_URL": self.server.url, "HURLBAT_TOKEN": TOKEN, "HURLBAT_SIGNING_SECRET": SECRET}

    def start(self, *command: str, host: str = "127.0.0.1", path: str | None = None, **env: str) -> Server:
        """Start `python -m command…`, in which `{port}` stands for a free port, and wait until it answers.

        With a `path` it is told its public URL, so that it registers itself where it has a lifespan.
        """
        port = free_port()
        arguments = [argument.replace("{port}", str(port)) for argument in command]
        public = {} if path is None else {"HURLBAT_PUBLIC_URL": f"http://{host}:{port}{path}"}
        started = self.processes.listen(arguments, port, **(self.settings | public | env))
        started.answers(f"http://{host}:{port}/", below=600)
        return started

    def register(self, worker: Server, name: str, path: str = "/hurlbat", **more: Any) -> Object:
        """Register a worker; return what the server says of it, which tells whether it has proved itself."""
        answer = self.api.send(
            "POST", "/workers", {"name": name, "url": f"{worker.url}{path}", "secret": SECRET} | more
        )
        assert answer.status_code in (200, 201), answer.text
        found: Object = answer.json()
        return found

    def until_ready(self, name: str, process: Process) -> Object:
        """Return a worker that registers itself, when the server has proved it."""

        def shown() -> Object:
            answer = self.api.send("GET", f"/workers/{name}")
            found: Object = answer.json()
            return found

        process.until(lambda: shown().get("state") == "ready", f"registration of {name}")
        return shown()


@contextmanager
def set_up(processes: Processes, folder: Path, database_url: str) -> Iterator[Stand]:
    """Start a server, whose log must hold no fault at the end."""
    server = processes.serve(database_url, **UNHURRIED)
    with Api(server.url) as api:
        yield Stand(processes, server, api)
    assert_no_faults(server)
