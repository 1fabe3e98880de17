"""A server and a worker as processes of this machine, for the demo and the bench: started, waited for, and stopped."""

import base64
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

READY_SECONDS = 30.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
LOOPBACK = "127.0.0.0/8"


class LocalFailure(Exception):
    """A process did not start, or ended too early; the message has the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Local:
    """One running process that listens on a loopback port. What it prints goes to `log`."""

    name: str
    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def wait_for(self, path: str, below: int) -> None:
        """Return as soon as GET on the path is answered with a status below the given one. Raises `LocalFailure`."""
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise LocalFailure(f"the {self.name} ended with {self.process.returncode}:\n{self._last_words()}")
            try:
                if httpx.get(self.url + path, timeout=5, trust_env=False).status_code < below:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(POLL_SECONDS)
        raise LocalFailure(f"the {self.name} was not ready after {READY_SECONDS:g} s:\n{self._last_words()}")

    def stop(self) -> None:
        """End the process by SIGTERM, and by SIGKILL if that takes too long."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a server that we start ourselves."""

    token: str
    secret_key: str

    @classmethod
    def new(cls) -> "Access":
        """Return a new token, and a key for secrets at rest (the environment's own, where it has one)."""
        key = os.environ.get("HURLBAT_SECRET_KEY") or base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        return cls(secrets.token_urlsafe(32), key)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request to the server."""
        return {"authorization": f"Bearer {self.token}"}


@contextmanager
def local_server(
    folder: Path, database_url: str, access: Access, *, port: int = 0, env: Mapping[str, str] | None = None
) -> Iterator[Local]:
    """Run `hurlbat serve` on a database for as long as the block lasts; port 0 is a free one."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {
        "HURLBAT_HOST": "127.0.0.1",
        "HURLBAT_PORT": str(port),
        "HURLBAT_EXTERNAL_URL": url,
        "HURLBAT_DATABASE_URL": database_url,
        "HURLBAT_API_TOKEN": access.token,
        "HURLBAT_SECRET_KEY": access.secret_key,
        "HURLBAT_ALLOWED_NETWORKS": LOOPBACK,
        "HURLBAT_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "hurlbat_app.cli.main", "serve"]
    with _local("server", command, settings | dict(env or {}), url, folder) as server:
        server.wait_for("/health/ready", below=300)
        yield server


@contextmanager
def local_worker(folder: Path, app: str, *, port: int = 0, env: Mapping[str, str] | None = None) -> Iterator[Local]:
    """Run an ASGI app, `module:name`, under uvicorn for as long as the block lasts; port 0 is a free one."""
    port = port or free_port()
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning"]
    # the app is found where the command was given, as uvicorn itself would
    path = os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH"))))
    settings = {"PYTHONPATH": path} | dict(env or {})
    with _local("worker", command, settings, f"http://127.0.0.1:{port}", folder) as worker:
        worker.wait_for("/", below=600)
        yield worker


@contextmanager
def _local(name: str, command: list[str], env: Mapping[str, str], url: str, folder: Path) -> Iterator[Local]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HURLBAT_")}
    log = folder / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=inherited | dict(env),
            start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on, in the right order
        )
    local = Local(name, url, log, process)
    try:
        yield local
    finally:
        local.stop()


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
