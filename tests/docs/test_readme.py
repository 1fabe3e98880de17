"""The README's hello world, done as a new user does it: its blocks are saved and run as they are printed, in order."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks
from tests.support.ports import free_port
from tests.support.processes import ROOT

README = ROOT / "README.md"
MINUTES = 10
CODE = [block for block in blocks(README) if block.language in ("python", "sh")]
INSTALL, *HELLO = CODE
READY = "is ready: serves welcome"


def test_what_is_installed_can_be_installed(tmp_path: Path) -> None:
    offline = {"PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(
        ["bash", "-e", "-c", INSTALL.text], cwd=ROOT, env=_environment() | offline, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What each block of the hello world printed, by the line of the README on which the block begins."""
    folder = tmp_path_factory.mktemp("readme")
    script = folder / "hello.sh"
    script.write_text(_script(HELLO, folder))
    output = folder / "output"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", script],
            cwd=folder,
            env=_environment(),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = shell.wait(MINUTES * 60)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            _end(shell.pid)
    printed = output.read_text()
    assert code == 0, f"the hello world ended with {code}:\n{printed}"
    parts = re.split(r"^== (\d+)\n", printed, flags=re.MULTILINE)
    return dict(zip(map(int, parts[1::2]), parts[2::2], strict=True))


def test_a_run_from_the_command_line_tells_the_story_that_is_shown(told: dict[int, str]) -> None:
    [story] = blocks(README, "text")[:1]
    assert _without_figures(story.text) in _without_figures(_said(told, "hurlbat run welcome"))


def test_a_run_over_http_is_answered_with_its_output(told: dict[int, str]) -> None:
    assert '"output":"Welcome, Grace!"' in _said(told, "curl -s 'http://127.0.0.1:8420/runs")


def test_the_app_answers_with_the_id_of_a_run_that_is_listed(told: dict[int, str]) -> None:
    said = _said(told, "curl -s http://127.0.0.1:8000/signups")
    run = re.search(r'\{"run":"([0-9a-f-]{36})"\}', said)
    assert run is not None, said
    assert re.search(rf"^{run[1]}  welcome  (queued|running|completed)", said, re.MULTILINE), said


def test_sync_code_waits_for_its_runs(told: dict[int, str]) -> None:
    said = _said(told, "python later.py")
    assert "Welcome, Barbara!\n" in said
    assert "Welcome, Ken!\n" in said


def test_the_commands_of_the_first_table_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^\| `make (\w+)`", README.read_text(), re.MULTILINE)
    assert named == ["demo", "test"]
    assert [name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)] == []


def _script(listed: list[Block], folder: Path) -> str:
    """Return one script of all blocks: files are saved, commands run as printed, each behind a line that names it.

    Before the first run it waits, as the README says, until the worker is ready.
    """
    lines = ["set -e", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    started = False
    for block in listed:
        if block.language == "python":
            assert block.file is not None, f"README.md:{block.line} does not say which file it is"
            (folder / block.file).write_text(block.text)
            continue
        if started:
            lines.append(f"until grep -q {shlex.quote(READY)} output; do sleep 0.1; done")
        lines += [f"printf '\\n== {block.line}\\n'", block.text]
        started = started or "hurlbat dev" in block.text
    server, app = free_port(), free_port()
    script = "\n".join(lines).replace("8420", str(server)).replace("8000", str(app))
    script = script.replace("hurlbat dev ", f"hurlbat dev --app-port {app} ")
    return f"export HURLBAT_PORT={server} HURLBAT_URL=http://127.0.0.1:{server}\n{script}\nwait\n"


def _said(told: dict[int, str], command: str) -> str:
    [line] = [block.line for block in HELLO if block.language == "sh" and block.text.startswith(command)]
    return told[line]


def _without_figures(text: str) -> str:
    """Return the text with ids, seconds and ports made alike."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    return re.sub(r"127\.0\.0\.1:\d+", "HOST", re.sub(r" *\d+\.\d+ s", " N s", text))


def _environment() -> dict[str, str]:
    """Return a clean environment in which `python`, `pip`, `hurlbat` and `uvicorn` are this environment's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HURLBAT_", "PYTHON"))}
    return inherited | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def _end(session: int) -> None:
    """End whatever a shell has left running, by the group that it leads."""
    try:
        os.killpg(session, signal.SIGKILL)
    except ProcessLookupError:
        pass
