"""The page on the SDK: its files are saved and used as they stand, against a real server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hurlbat.signing import new_secret
from tests.docs.pages import blocks, file_block
from tests.support.ports import free_port
from tests.support.processes import ROOT, TOKEN, Processes, Server

PAGE = ROOT / "docs" / "sdk.md"
SECRET = new_secret()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all files of the page."""
    made = tmp_path_factory.mktemp("sdk")
    for block in blocks(PAGE, "python"):
        assert block.file is not None, f"docs/sdk.md:{block.line} does not say which file it is"
        (made / block.file).write_text(block.text)
    return made


@pytest.fixture(scope="module")
def processes(folder: Path) -> Iterator[Processes]:
    """Processes that find the page's modules, ended with the module."""
    started = Processes(folder, path=folder)
    yield started
    started.close()


@pytest.fixture(scope="module")
def server(processes: Processes, folder: Path) -> Server:
    """A server without workers."""
    return processes.serve(f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}")


@pytest.fixture(scope="module")
def app(processes: Processes, server: Server) -> str:
    """The page's app, which has registered itself; returns its name as a worker."""
    return _registered(processes, server, "web:app", "/hurlbat/")


@pytest.mark.parametrize("file", ["calls.py", "later.py", "events.py", "elsewhere.py", "errors.py", "script.py"])
def test_a_program_prints_what_the_page_says(file: str, processes: Processes, server: Server, app: str) -> None:
    [code, output] = _with_output(file)
    assert code == file_block(PAGE, file)
    program = processes.python(file, file, HURLBAT_URL=server.url, HURLBAT_TOKEN=TOKEN)
    assert (program.wait(300), program.output) == (0, output), program.output


@pytest.mark.parametrize(
    ("file", "count"), [("test_tasks.py", 2), ("test_limits.py", 3), ("test_ways.py", 6), ("test_checkout.py", 2)]
)
def test_the_tests_on_the_page_pass(folder: Path, file: str, count: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", file]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{count} passed" in done.stdout


@pytest.mark.parametrize(("target", "path"), [("nested:app", "/hurlbat/"), ("worker:app", "/")])
def test_every_way_to_serve_the_handler_registers_itself(
    target: str, path: str, processes: Processes, server: Server, folder: Path
) -> None:
    name = _registered(processes, server, target, path)
    shown = _worker(server, name)
    assert (shown["state"], shown["tasks"]) == ("ready", ["resize", "mail.send", "charge", "tidy"])


def _registered(processes: Processes, server: Server, target: str, path: str) -> str:
    """Start an app that registers itself, wait until the server has proved it, and return its name."""
    port, name = free_port(), target.partition(":")[0]
    started = processes.app(
        target,
        port=port,
        HURLBAT_URL=server.url,
        HURLBAT_TOKEN=TOKEN,
        HURLBAT_SIGNING_SECRET=SECRET,
        HURLBAT_PUBLIC_URL=f"http://127.0.0.1:{port}{path}",
        HURLBAT_WORKER=name,
    )
    started.until(lambda: _worker(server, name).get("state") == "ready", "registration")
    return name


def _worker(server: Server, name: str) -> dict[str, object]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.get(f"{server.url}/workers/{name}", headers=headers, timeout=60, trust_env=False)
    shown: dict[str, object] = answer.json()
    return shown


def _with_output(file: str) -> list[str]:
    """Return the file's block and the one after it, which is what it prints."""
    listed = blocks(PAGE, "python", "text")
    place = next(place for place, block in enumerate(listed) if block.file == file)
    return [block.text for block in listed[place : place + 2]]
