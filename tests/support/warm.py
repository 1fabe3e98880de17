"""Processes of this Python that need not import everything anew: they are forked by the nursery."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

NURSERY = Path(__file__).with_name("nursery.py")
INTERPRETERS = ("PYTHONPATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""The variables of an interpreter that one which is running already can heed, or that a test does not look at."""


class Warm:
    """A forked process, as much of `subprocess.Popen` as the tests use."""

    def __init__(self, pid: int, told: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        """Return how it has ended, or None while it runs."""
        return self._read(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired` after so many seconds."""
        found = self._read(timeout)
        if found is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return found

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _read(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            said = os.read(self._told, 100)
            os.close(self._told)
            self.returncode = int(said or b"-9")  # nothing is said when the nursery itself is gone, and all with it
        return self.returncode


class _Nursery:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None

    def fork(
        self, module: str, arguments: Sequence[str], env: Mapping[str, str], folder: Path, streams: Sequence[int]
    ) -> Warm:
        told, tell = os.pipe()
        request = {"module": module, "arguments": list(arguments), "env": dict(env), "folder": str(folder)}
        try:
            with self._lock:
                control = self._control = self._control or self._begun()
                socket.send_fds(control, [json.dumps(request).encode()], [*streams, tell])
                pid = int(control.recv(100))
        finally:
            os.close(tell)
        return Warm(pid, told)

    def _begun(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("HURLBAT_", "PYTHON"))}
        env |= {"PYTHONUNBUFFERED": "1"} | {name: os.environ[name] for name in INTERPRETERS[2:] if name in os.environ}
        with theirs:
            process = subprocess.Popen(
                [sys.executable, str(NURSERY), str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=env,
                pass_fds=[theirs.fileno()],
            )
        atexit.register(_end, process, ours)
        return ours


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.wait(90)


_nursery = _Nursery()


def can_be(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether a command is `python -m module …` with this Python, and wants nothing of the interpreter itself."""
    strange = [name for name in env if name.startswith(("PYTHON", "LD_")) and name not in INTERPRETERS]
    return sys.platform == "linux" and list(command[:2]) == [sys.executable, "-m"] and not strange


def run(command: Sequence[str], env: Mapping[str, str], folder: Path, stdin: str) -> subprocess.CompletedProcess[str]:
    """Be `subprocess.run` with captured text for `python -m module …`."""
    with TemporaryFile("w+b") as given, TemporaryFile("w+b") as output, TemporaryFile("w+b") as error:
        given.write(stdin.encode())
        given.seek(0)
        if can_be(command, env):
            status = start(command, env, folder, (given, output, error)).wait()
        else:
            status = subprocess.call(command, stdin=given, stdout=output, stderr=error, env=dict(env), cwd=folder)
        output.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(list(command), status, output.read().decode(), error.read().decode())


def start(command: Sequence[str], env: Mapping[str, str], folder: Path, streams: Sequence[IO[bytes]]) -> Warm:
    """Start `python -m module …`: `streams` are its standard input, output and error."""
    _, _, module, *arguments = command
    return _nursery.fork(module, arguments, env, folder, [stream.fileno() for stream in streams])
