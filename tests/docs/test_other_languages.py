"""The page on workers in other languages: its commands, given in the order of the page, start and test each."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from hurlbat.signing import new_secret
from tests.docs.pages import Block, blocks
from tests.examples.others import FOLDER, LANGUAGES
from tests.support.ports import free_port
from tests.support.processes import ROOT, TOKEN, Process, Processes
from tests.support.toolchains import CACHE, commands, go_environment

PAGE = ROOT / "docs" / "other-languages.md"
SERVER, *STARTS, TRY, PLAIN, AGAIN, BENCH = blocks(PAGE, "sh")
"""What starts a server and the three workers, what tries one, then a plain one, and what measures."""


class Terminal:
    """Runs blocks of the page, with ports of its own, and with copies of the folders that it names."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.port, self.server = free_port(), free_port()
        self._processes = processes
        self._folder = folder
        self._env = go_environment() | {
            "HURLBAT_API_TOKEN": TOKEN,
            "HURLBAT_SIGNING_SECRET": new_secret(),
            "HURLBAT_PORT": str(self.server),
            "HURLBAT_URL": f"http://127.0.0.1:{self.server}",
            "PORT": str(self.port),
            "RECEIPTS": str(folder),
            "npm_config_cache": str(CACHE / "npm"),
            "PATH": os.pathsep.join([*map(str, commands()), str(Path(sys.executable).parent), os.environ["PATH"]]),
        }
        shutil.copytree(FOLDER, folder / "examples" / "workers", ignore=shutil.ignore_patterns("node_modules"))

    def begin(self, text: str) -> Process:
        """Start a block; its last command takes the place of the shell, so that it can be ended."""
        *before, last = text.replace("9000", str(self.port)).strip().splitlines()
        script = "\n".join(["set -e", f"cd {shlex.quote(str(self._folder))}", *before, f"exec {last}"])
        return self._processes.start("block", "bash", "-c", script, **self._env)

    @contextmanager
    def worker(self, text: str) -> Iterator[Process]:
        """Run a block that starts a worker, from when it answers; its port is free again afterwards."""
        process = self.begin(text)
        try:
            process.answers(f"http://127.0.0.1:{self.port}/", below=600, seconds=300)
            yield process
            process.terminate()
        finally:
            process.kill()

    def knows(self, task: str, worker: Process) -> None:
        """Wait until the server has asked the worker what it serves: nobody types as fast as a test."""
        url, headers = f"http://127.0.0.1:{self.server}/tasks/{task}", {"authorization": f"Bearer {TOKEN}"}
        worker.until(
            lambda: httpx.get(url, headers=headers, timeout=60, trust_env=False).status_code == 200, f"task {task}"
        )

    def said(self, command: str) -> str:
        """Run a command to its end, which must be good, and return what it printed."""
        process = self.begin(command)
        assert process.wait(300) == 0, process.output
        return process.output


def _lines(path: Path) -> int:
    """Count the lines that are neither empty nor comments."""
    return sum(not re.fullmatch(r"\s*((//|#).*)?", line) for line in path.read_text().splitlines())


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal, with the page's server beside it."""
    folder = tmp_path_factory.mktemp("terminal")
    processes = Processes(folder)
    try:
        made = Terminal(processes, folder)
        *exports, command = SERVER.text.splitlines()
        assert [line.split("=")[0] for line in exports] == ["export HURLBAT_API_TOKEN", "export HURLBAT_SIGNING_SECRET"]
        made.begin(command).answers(f"http://127.0.0.1:{made.server}/health/ready", below=300)
        yield made
    finally:
        processes.close()


@pytest.mark.parametrize(("language", "block"), list(zip(LANGUAGES, STARTS, strict=True)), ids=LANGUAGES)
def test_it_starts_as_told_and_runs_what_is_told(terminal: Terminal, language: str, block: Block) -> None:
    run, conform = TRY.text.splitlines()
    assert block.text.startswith(f"cd examples/workers/{language}\n")
    with terminal.worker(block.text) as worker:
        terminal.knows("shout", worker)
        assert 'completed with "HELLO"' in terminal.said(run)
        if language == "go":  # tests/examples looks at all of each
            assert " 0 failed" in terminal.said(f"{conform} --only manifest")


def test_a_plain_worker_is_registered_and_tested_as_told(terminal: Terminal) -> None:
    assert "`python plain.py`" in PAGE.read_text()
    add, run, conform = PLAIN.text.splitlines()
    with terminal.worker("cd examples/workers/python\npython plain.py"):
        terminal.said(add)
        assert '"o-1.txt"' in terminal.said(run)
        assert " 0 failed" in terminal.said(f"{conform} --only delivery")


def test_what_is_said_of_the_examples_is_so() -> None:
    page = PAGE.read_text()
    table = re.findall(r"\| `(.+)` \| `(.+)` \| `(.+)` \|$", page, re.MULTILINE)
    rows = [[FOLDER / language / name for language, name in zip(LANGUAGES, row, strict=True)] for row in table]
    sources = [
        path for path in FOLDER.rglob("*") if path.suffix in (".js", ".go", ".py") and "node_modules" not in path.parts
    ]
    assert sorted(path for row in rows for path in row) == sorted(sources)
    protocol, _, plain, signed = ([_lines(path) for path in row] for row in rows)
    low, high, least, most = map(int, re.findall(r"(\d+) to (\d+) \| (\d+) to (\d+)", page)[0])
    assert [min(plain), max(plain), min(protocol), max(protocol)] == [low, high, least, most]
    fewest, largest = map(int, re.findall(r"the last has (\d+) to (\d+)\s+lines", page)[0])
    assert fewest <= min(signed) <= max(signed) <= largest
    assert AGAIN.text == TRY.text.splitlines()[1] + "\n"
    assert BENCH.text.startswith("hurlbat bench --worker ")
