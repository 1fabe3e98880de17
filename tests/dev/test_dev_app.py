"""`hurlbat dev --app` as a person uses it: real processes, real files that change, and everything gone at the end."""

import os
import re
import signal
import socket
import textwrap
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.ports import free_port
from tests.support.processes import Processes, Server

SECONDS = 60
HEAD = """
    import subprocess
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from hurlbat import Backoff, Context, Hurlbat

    hurlbat = Hurlbat(public_url="https://app.example.com/hurlbat/")
    helper = subprocess.Popen(["sleep", "600"])
    print("helper", helper.pid)
"""
TAIL = """
    app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], lifespan=hurlbat.lifespan)
"""
GREET = """
    @hurlbat.task(crons=["0 3 * * mon"], on_events=["order:*"])
    async def greet(input: str | None) -> str:
        return f"{input}, VERSION"
"""
SHAKY = """
    @hurlbat.task(retries=1, backoff=Backoff(strategy="fixed", initial=0.1, jitter=False))
    async def shaky(input: None, ctx: Context) -> str:
        ctx.log("on the way")
        if ctx.attempt == 1:
            raise ConnectionError("the bank is away")
        return "paid"
"""


def _app(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in (HEAD, *parts, TAIL))


class Dev:
    """A running `hurlbat dev --app`, and the file of its app."""

    def __init__(self, processes: Processes, folder: Path, *options: str) -> None:
        self.file = folder / "main.py"
        self.app_port = free_port()
        port = free_port()
        command = ["hurlbat_app.cli.main", "dev", "--port", str(port), "--app-port", str(self.app_port), *options]
        self.process: Server = processes.listen(command, port, COLUMNS="1000")  # a sentence is a line
        self._folder = folder

    def write(self, text: str) -> None:
        """Save the app as an editor does, which puts a new file in the place of the old one."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def until(self, text: str, times: int = 1) -> None:
        """Wait until something was printed so many times."""
        self.process.until(lambda: self.process.output.count(text) >= times, repr(text))

    def run(self, task: str, input: Any = None, wait: int = SECONDS) -> dict[str, Any]:
        """Submit a run and return it, by default when it has ended."""
        token = (self._folder / "hurlbat.db-token").read_text()
        answer = httpx.post(
            f"{self.process.url}/runs" + (f"?wait={wait}" if wait else ""),
            json={"task": task, "input": input},
            headers={"authorization": f"Bearer {token}"},
            timeout=2 * SECONDS,
            trust_env=False,
        )
        run: dict[str, Any] = answer.raise_for_status().json()
        return run

    @property
    def helpers(self) -> list[int]:
        """The processes that the app has started."""
        return [int(pid) for pid in re.findall(r"^helper (\d+)$", self.process.output, re.MULTILINE)]


def _is_gone(pid: int) -> bool:
    """Tell whether a process has ended, whoever has yet to bury it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def _until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + SECONDS
    while not all(_is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, f"of {pids} some live on"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A morning's work on an app: what was printed, the runs that were submitted, and how it all ended."""
    folder = tmp_path_factory.mktemp("dev")
    processes = Processes(folder)
    told: dict[str, Any] = {}
    try:
        (folder / "main.py").write_text(_app(GREET))
        dev = Dev(processes, folder, "--app", "main:app", "--logs")
        dev.until("is ready: serves greet\n")
        told["first"] = dev.run("greet", "Ada")
        dev.until("Ada, VERSION")

        dev.write(_app(GREET.replace("VERSION", "anew"), SHAKY))
        dev.until("is ready: serves greet, shaky\n")
        told["second"] = dev.run("greet", "Grace")
        told["shaky"] = dev.run("shaky")
        dev.until('with "paid"')

        dev.write(_app(GREET, "    x = = 1"))
        dev.until("it starts again when a file changes")
        waiting = dev.run("greet", "Linus", wait=0)
        told["while broken"] = waiting["state"], dev.process.running
        dev.write(_app(GREET))
        dev.until("Linus, VERSION")

        dev.write(_app(GREET).replace("[Mount", '[Mount("/other", hurlbat.asgi()), Mount'))
        dev.until("serves Hurlbat at")
        dev.write(_app(GREET, GREET))
        dev.until("is declared twice")
        dev.write(_app(GREET).replace('Mount("/hurlbat", hurlbat.asgi())', ""))
        dev.until("does not serve its tasks")
        told["helpers"] = dev.helpers
        dev.process.signal(signal.SIGINT)
        told["status"] = dev.process.wait()
        _until_gone(dev.helpers)
        told["output"] = dev.process.output
        with socket.socket() as probe:
            told["app port"] = probe.connect_ex(("127.0.0.1", dev.app_port))
        yield told
    finally:
        processes.close()


def test_it_shows_where_everything_is_and_what_starts_the_tasks(story: dict[str, Any]) -> None:
    shown = story["output"].partition("is ready")[0]

    assert re.search(r"^    server  http://127\.0\.0\.1:\d+  \(.*hurlbat\.db\)$", shown, re.MULTILINE)
    assert re.search(r"^    app     http://127\.0\.0\.1:\d+  \(main:app, ASGI; starts again", shown, re.MULTILINE)
    assert re.search(r"^    worker  http://127\.0\.0\.1:\d+/hurlbat/$", shown, re.MULTILINE)
    assert "      greet  cron 0 3 * * mon  on order:*\n" in shown
    assert re.search(r"^      export HURLBAT_TOKEN=\S{20,}$", shown, re.MULTILINE)
    assert re.search(r"^      hurlbat run greet --input '\S+' --wait$", shown, re.MULTILINE)
    assert "HURLBAT_SIGNING_SECRET" not in shown  # nobody has to do anything with it


def test_runs_are_done_before_and_after_a_reload_by_the_code_of_their_time(story: dict[str, Any]) -> None:
    assert (story["first"]["output"], story["second"]["output"]) == ("Ada, VERSION", "Grace, anew")
    for run, output in (("first", "Ada, VERSION"), ("second", "Grace, anew")):
        assert re.search(rf'✓ greet  {story[run]["id"]}  completed after .* with "{output}"', story["output"])


def test_tasks_that_come_and_go_are_told(story: dict[str, Any]) -> None:
    assert re.findall(r"^· task (.*)$", story["output"], re.MULTILINE) == ["shaky has come", "shaky has gone"]


def test_a_retry_is_told_with_its_reason_and_with_logs_what_the_task_says(story: dict[str, Any]) -> None:
    of_it = [line for line in story["output"].splitlines() if story["shaky"]["id"] in line and line[:1].isdigit()]

    assert ["on the way" in line for line in of_it].count(True) == 2
    assert any("attempt 1 failed: ConnectionError: the bank is away; again in 0.1 s" in line for line in of_it)
    assert "2 attempts" in of_it[-1]


def test_a_mistake_in_the_app_is_shown_and_runs_wait_uncharged_until_it_is_mended(story: dict[str, Any]) -> None:
    shown = story["output"]

    assert re.search(r'File ".*main\.py", line \d+\n +x = = 1\n', shown)
    assert "main:app cannot be imported: SyntaxError: invalid syntax" in shown
    assert story["while broken"][1]
    assert "importlib" not in shown  # what is around the app is nobody's mistake
    assert re.search(r'✓ greet  \S+  completed after .* with "Linus, VERSION"', shown)


def test_what_an_app_may_lack_is_said_in_a_sentence(story: dict[str, Any]) -> None:
    assert "! main:app serves Hurlbat at /other/ and /hurlbat/; say by --path which one is meant\n" in story["output"]
    assert "TaskInvalid: task greet is declared twice; give one of them another name" in story["output"]
    assert "! main:app does not serve its tasks at /hurlbat/, /hurlbat, /, " in story["output"]


def test_ctrl_c_ends_the_server_the_app_and_what_the_app_has_started(story: dict[str, Any]) -> None:
    assert story["status"] == 0
    assert len(story["helpers"]) >= 5
    assert story["app port"] != 0
    assert "Traceback" not in story["output"].rpartition("stopping")[2]


def test_the_app_ends_with_a_server_that_was_killed(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(_app(GREET).replace(', "600"]', ', "600"], start_new_session=True'))
    dev = Dev(processes, tmp_path, "--app", "main:app", "--no-reload")
    dev.until("is ready: serves greet")
    [child] = [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _is_child_of(int(pid), dev.process.pid)]

    dev.process.kill()

    _until_gone([child])
    os.kill(dev.helpers[0], signal.SIGKILL)


def _is_child_of(pid: int, parent: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent
    return False


WSGI = """
from flask import Flask
from hurlbat import Hurlbat

hurlbat = Hurlbat()

@hurlbat.task
def add(input: int) -> int:
    return input + NUMBER

def make():
    app = Flask("shop")
    app.get("/hello")(lambda: "hello")
    app.wsgi_app = hurlbat.mount_wsgi(app.wsgi_app, "/work")
    return app
"""


def test_a_wsgi_app_is_served_with_reload_too(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(WSGI.replace("NUMBER", "1"))
    dev = Dev(processes, tmp_path, "--app", "main:make")
    dev.until("is ready: serves add")
    before = dev.run("add", 1)
    dev.write(WSGI.replace("NUMBER", "1000"))
    dev.until("is ready: serves add", 2)
    after = dev.run("add", 1)
    hello = httpx.get(f"http://127.0.0.1:{dev.app_port}/hello", timeout=SECONDS, trust_env=False).text

    assert dev.process.terminate() == 0
    assert (before["output"], after["output"], hello) == (2, 1001, "hello")
    assert "(main:make, WSGI; starts again" in dev.process.output
    assert '"GET /hello HTTP/1.1" 200' in dev.process.output
    assert "/work" not in dev.process.output.partition("is ready")[2].replace("/work/ is ready", "")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("main:ap", "main:ap: main has no ap; it has hurlbat, app"),
        ("main:number", "main:number is a int, and no ASGI or WSGI application"),
    ],
)
def test_a_name_that_is_no_app_ends_it_with_a_sentence(
    processes: Processes, tmp_path: Path, target: str, said: str
) -> None:
    lines = ("from hurlbat import Hurlbat", "hurlbat = Hurlbat()", "app = hurlbat.asgi()", "number = 7")
    (tmp_path / "main.py").write_text("\n".join(lines))
    dev = Dev(processes, tmp_path, "--app", target)

    assert dev.process.wait(SECONDS) == 2
    assert dev.process.output.endswith(f"hurlbat: {said}.\n")
