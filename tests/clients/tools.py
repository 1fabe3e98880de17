"""The tools that generate, compile and run clients: where they are, and a sentence for one that is missing or fails."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.support import toolchains
from tests.support.processes import ROOT

GENERATORS = ROOT / ".venv" / "generators"
INSTALL = "`make clients` installs it, by pip install -r tests/clients/requirements.txt into .venv/generators"
SECONDS = 600.0


class Missing(Exception):
    """A tool is not on this machine; the message names it and says how to get it."""


class Failed(Exception):
    """A tool has failed; the message begins with a sentence, and what it said follows."""


def generator(name: str) -> str:
    """Return the path of a generator. Raises `Missing`."""
    found = GENERATORS / "bin" / name
    if not found.exists():
        raise Missing(f"{name} is missing: {INSTALL}")
    return str(found)


def client_python() -> str:
    """Return the Python that has what generated Python clients need. Raises `Missing`."""
    return generator("python")


def node() -> str:
    """Return the path of node. Raises `Missing`."""
    return _of_toolchain(toolchains.node, "node")


def go() -> str:
    """Return the path of go. Raises `Missing`."""
    return _of_toolchain(toolchains.go, "go")


def on_path(name: str, what: str) -> str:
    """Return the path of a program of the machine. Raises `Missing`."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is missing: {what}")
    return found


def javac() -> str:
    """Return the path of the Java compiler. Raises `Missing`."""
    return on_path("javac", "install a JDK, 11 or newer (Debian: apt-get install openjdk-17-jdk-headless)")


def maven() -> str:
    """Return the path of Maven. Raises `Missing`."""
    return on_path("mvn", "install Maven, 3.8 or newer (Debian: apt-get install maven)")


def call(what: str, command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed. Raises `Failed`."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONWARNINGS")}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except OSError as error:
        raise Failed(f"{what}: {command[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{what}: {Path(command[0]).name} has not ended after {SECONDS:g} s") from error
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()
        raise Failed(f"{what}: {Path(command[0]).name} ended with {done.returncode}:\n{said[-3000:]}")
    return done.stdout + done.stderr


def _of_toolchain(find: object, name: str) -> str:
    assert callable(find)
    try:
        found = Path(find())
    except RuntimeError as error:
        raise Missing(f"{name} is missing: `make clients` installs it, by pip install --group toolchains") from error
    if not found.exists():
        raise Missing(f"{name} is missing at {found}: remove .venv/.toolchains and call `make clients` again")
    return str(found)
