"""Real processes for the tests: started, waited for, listened to, killed, and always gone afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ParamSpec, TypeVar

import anyio.to_thread
import httpx

from tests.support import warm
from tests.support.ports import free_port

READY_SECONDS = 90.0
STOP_SECONDS = 90.0
POLL_SECONDS = 0.02
TOKEN = "test-token-0123456789abcdef"
SECRET_KEY = "A" * 43 + "="
LOOPBACK = "127.0.0.0/8"
ROOT = Path(__file__).parents[2]

A = ParamSpec("A")
T = TypeVar("T")
P = TypeVar("P", bound="Process")


class Died(AssertionError):
    """A process ended, or did not get ready, where the test needs it; the message ends with its output."""


class Process:
    """One process and what it has printed so far. Killed by its pid, never by name."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        self._popen: subprocess.Popen[bytes] | warm.Warm
        with log.open("ab") as output, open(os.devnull, "rb") as nothing:
            if warm.can_be(command, env):
                self._popen = warm.start(command, env, log.parent, (nothing, output, output))
            else:
                self._popen = subprocess.Popen(
                    command, stdin=nothing, stdout=output, stderr=output, env=dict(env), cwd=log.parent
                )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """Everything that it has printed, on either stream."""
        return self._log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.running:
            self._popen.send_signal(number)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end; return the exit code."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Died(f"{self.name} has not ended after {seconds:g} s:\n{self.output[-4000:]}") from None

    def terminate(self, seconds: float = STOP_SECONDS) -> int:
        """Ask it to end by SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def kill(self) -> None:
        """End it as kill -9 does, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        self._popen.wait()

    def until(self, true: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
        """Wait until something is true, for as long as the process lives."""
        deadline = time.monotonic() + seconds
        while not true():
            if not self.running:
                raise Died(f"{self.name} ended with {self._popen.returncode} before {what}:\n{self.output[-4000:]}")
            if time.monotonic() > deadline:
                raise Died(f"{self.name}: no {what} within {seconds:g} s:\n{self.output[-4000:]}")
            time.sleep(POLL_SECONDS)

    def answers(self, url: str, below: int = 500, seconds: float = READY_SECONDS) -> None:
        """Wait until GET on the URL is answered with a status below the given one."""

        def asked() -> bool:
            try:
                # without what a client needs for TLS: to load that takes 20 ms of the core that the process starts on
                return httpx.get(url, timeout=5, trust_env=False, verify=False).status_code < below
            except httpx.HTTPError:
                return False

        self.until(asked, f"answer from {url}", seconds)


class Server(Process):
    """A process that listens on a port."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], log: Path, port: int) -> None:
        super().__init__(name, command, env, log)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


class Processes:
    """Starts the processes of one test and ends them with it.

    `interpreter` and `path` (where its modules are, besides what is installed) are other ones where a wheel is tried.
    Everything is synchronous; from a coroutine call it in a thread: `await in_thread(processes.serve, url)`.
    """

    def __init__(self, folder: Path, interpreter: str = sys.executable, path: Path | None = ROOT) -> None:
        self._folder = folder
        self._interpreter = interpreter
        self._path = {"PYTHONPATH": str(path)} if path else {}
        self._started: list[Process] = []

    def start(self, name: str, *command: str, **env: str) -> Process:
        """Start any command, with `env` added to a clean environment; it runs in the test's own folder."""
        return self._add(Process(name, list(command), self._environment(env), self._new_log(name)))

    def python(self, name: str, *arguments: str, **env: str) -> Process:
        """Start this Python with arguments."""
        return self.start(name, self._interpreter, *arguments, **env)

    def serve(self, database_url: str, *, port: int | None = None, wait: bool = True, **env: str) -> Server:
        """Start `hurlbat serve` on a database and wait until it is ready. Its token is `TOKEN`, its log in `output`."""
        port = port or free_port()
        settings = {
            "HURLBAT_HOST": "127.0.0.1",
            "HURLBAT_PORT": str(port),
            "HURLBAT_DATABASE_URL": database_url,
            "HURLBAT_API_TOKEN": TOKEN,
            "HURLBAT_ALLOWED_NETWORKS": LOOPBACK,
            "HURLBAT_EXTERNAL_URL": f"http://127.0.0.1:{port}",
            "HURLBAT_SECRET_KEY": SECRET_KEY,
        }
        command = [self._interpreter, "-m", "hurlbat_app.cli.main", "serve"]
        server = self._listen("serve", command, settings | env, port)
        if wait:
            server.answers(f"{server.url}/health/ready", below=300)
        return server

    def app(self, target: str, *, port: int | None = None, wait: bool = True, **env: str) -> Server:
        """Start an ASGI app, `module:name`, under uvicorn with uvloop and wait until it answers at all."""
        port = port or free_port()
        command = [self._interpreter, "-m", "uvicorn", target, "--host", "127.0.0.1", "--port", str(port)]
        # who stands still for longer than the usual 5 s must not close a connection with a request in it
        command += ["--timeout-keep-alive", "120", "--no-access-log", "--log-level", "warning"]
        server = self._listen(target, command, env, port)
        if wait:
            server.answers(f"{server.url}/", below=600)
        return server

    def listen(self, command: list[str], port: int, **env: str) -> Server:
        """Start `python -m command…`, which listens on this port; nothing is waited for."""
        return self._listen(command[0], [self._interpreter, "-m", *command], env, port)

    def close(self) -> None:
        """Kill whatever still runs, the youngest first."""
        while self._started:
            self._started.pop().kill()

    def _listen(self, name: str, command: list[str], env: Mapping[str, str], port: int) -> Server:
        return self._add(Server(name, command, self._environment(env), self._new_log(name), port))

    def _add(self, process: P) -> P:
        self._started.append(process)
        return process

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HURLBAT_")}
        inherited.pop("PYTHONPATH", None)
        return inherited | self._path | {"PYTHONUNBUFFERED": "1"} | dict(env)

    def _new_log(self, name: str) -> Path:
        plain = "".join(letter if letter.isalnum() else "-" for letter in name)
        return self._folder / f"{plain}-{len(self._started)}.log"


async def in_thread(function: Callable[A, T], *args: A.args, **kwargs: A.kwargs) -> T:
    """Call a function that blocks without holding the event loop."""
    return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs))
