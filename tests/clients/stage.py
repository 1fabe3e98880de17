"""A server and the worker of the programs, once for all clients."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hurlbat.signing import new_secret
from tests.support.processes import TOKEN, Processes, Server


@contextmanager
def set_up(folder: Path) -> Iterator[dict[str, str]]:
    """Start both; give what a program finds in its environment, but for `CLIENT_NAME`."""
    processes = Processes(folder)
    try:
        secret = new_secret()
        worker = processes.app("tests.clients.worker:app", HURLBAT_SIGNING_SECRET=secret)
        server = processes.serve(f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}")
        yield {
            "HURLBAT_URL": server.url,
            "HURLBAT_TOKEN": TOKEN,
            "WORKER_URL": f"{worker.url}/",
            "WORKER_SECRET": secret,
        }
        _assert_no_faults(server)
    finally:
        processes.close()


def _assert_no_faults(server: Server) -> None:
    assert "unexpected error" not in server.output, server.output[-4000:]
