"""The tests' own tools do what the tests rely on."""

import ast
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import warm
from tests.support.imports import ROOT, Import, When, circles, sources
from tests.support.ports import BLOCK, free_port
from tests.support.postgres import Cluster, running_cluster
from tests.support.processes import Died, Processes

UNREAL = """
import pytest

@pytest.mark.skip(reason="later")
def test_skipped(): ...

def test_skips_itself(): pytest.skip("later")

@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): raise AssertionError

@pytest.mark.xfail(reason="known")
def test_passes_unexpectedly(): ...

def test_warns():
    import warnings
    warnings.warn("old", DeprecationWarning)
"""
TOLD = """
import os, signal, sys, threading

print(__name__, sys.argv[1:], sys.path[0], os.getcwd(), sorted(set(os.environ) - {"LC_CTYPE"}), sys.stdin.read())
print([signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)], threading.active_count())
print(sorted(os.listdir("/proc/self/fd"))[:-1], os.getpgrp(), file=sys.stderr)
sys.exit(7)
"""


def test_a_test_that_skips_or_warns_or_is_expected_to_fail_fails(tmp_path: Path) -> None:
    (tmp_path / "test_unreal.py").write_text(UNREAL)
    options = ["-q", "-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]

    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "4 failed, 1 error in" in done.stdout


def test_every_test_has_a_postgresql_database_of_its_own(postgres_cluster: Cluster) -> None:
    with postgres_cluster.database() as one, postgres_cluster.database() as other:
        postgres_cluster.query("CREATE TABLE here (id int)", one)

        tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'here'"
        assert (postgres_cluster.query(tables, one), postgres_cluster.query(tables, other)) == ("1", "0")

    assert postgres_cluster.query(f"SELECT count(*) FROM pg_database WHERE datname IN ('{one}', '{other}')") == "0"


def test_postgresql_syncs_what_it_acknowledges(postgres_cluster: Cluster) -> None:
    settings = "SELECT string_agg(setting, ' ') FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')"
    assert postgres_cluster.query(settings) == "on on"


def test_a_postgresql_that_comes_back_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.postgres.STARTS", 1)
    with running_cluster() as cluster:
        before = cluster.port
        cluster.stop()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", before))
            other.listen()
            with pytest.raises(RuntimeError, match="did not start"):
                cluster.start()
        cluster.start()

        assert (cluster.port, cluster.query("SELECT 1")) == (before, "1")


def test_two_processes_of_tests_never_choose_the_same_port() -> None:
    ours = {free_port() for _ in range(BLOCK)}
    code = f"from tests.support.ports import free_port; print(*(free_port() for _ in range({BLOCK})))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    theirs = set(map(int, done.stdout.split()))
    assert len(ours) > BLOCK / 2 < len(theirs)
    assert ours.isdisjoint(theirs)


def test_a_process_that_ends_too_early_is_told_with_its_last_words(processes: Processes) -> None:
    process = processes.python("short", "-c", "print('no room'); raise SystemExit(3)")

    with pytest.raises(Died, match="ended with 3 before it was up:\nno room"):
        process.until(lambda: False, "it was up")


def test_closing_kills_what_does_not_listen(processes: Processes) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
    process = processes.python("stubborn", "-c", stubborn)
    process.until(lambda: "up" in process.output, "it was up")
    process.signal(signal.SIGTERM)

    processes.close()

    assert not process.running


def test_a_circle_of_imports_is_found() -> None:
    first, second, third, *_ = sources()
    edges = [(first, second), (second, third), (third, first)]

    assert circles(Import(one, other, None, 1, When.LOADING) for one, other in edges) == [
        sorted((first, second, third))
    ]
    assert circles(Import(one, other, None, 1, When.LOADING) for one, other in edges[:2]) == []


def test_a_forked_process_is_as_one_that_was_started(tmp_path: Path) -> None:
    (tmp_path / "told.py").write_text(TOLD)
    command = [sys.executable, "-m", "told", "one", "2"]
    env = {"PYTHONUNBUFFERED": "1", "COLOUR": "blue"}
    assert warm.can_be(command, env)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background a shell has it ignored
    try:
        cold = subprocess.run(command, env=env, cwd=tmp_path, input="é", capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGINT, before)
    forked = warm.run(command, env, tmp_path, "é")

    assert cold.returncode == 7
    assert (forked.returncode, forked.stdout, forked.stderr) == (7, cold.stdout, cold.stderr)


@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_forked_process_is_ended_by_a_signal_as_any_other(tmp_path: Path, ends: signal.Signals) -> None:
    (tmp_path / "waits.py").write_text("import time\nprint('here')\ntime.sleep(600)\n")
    command = [sys.executable, "-m", "waits"]
    with (tmp_path / "log").open("w+b") as log:
        process = warm.start(command, {"PYTHONUNBUFFERED": "1"}, tmp_path, (log, log, log))
        while not (tmp_path / "log").read_text().startswith("here"):
            assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)

        process.send_signal(ends)

        assert process.wait(30) == process.poll() == -ends


def test_no_test_gives_a_real_server_the_five_seconds_that_httpx_gives_it() -> None:
    """A server on a busy machine may stand still for longer: who calls one says how long that may take."""
    functions = {"get", "post", "put", "patch", "delete", "head", "options", "request", "stream", "Client"}
    texts = {path: path.read_text() for path in (ROOT / "tests").rglob("*.py")}
    hasty = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, text in texts.items()
        if "httpx." in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) == "httpx"
        and node.func.attr in functions
        and {"timeout", "transport"}.isdisjoint(keyword.arg or "" for keyword in node.keywords)
    ]
    assert hasty == []


def test_what_needs_another_interpreter_or_settings_of_it_is_not_forked() -> None:
    here = [sys.executable, "-m", "told"]
    assert not warm.can_be(here, {"LD_PRELOAD": "libfaketime.so"})
    assert not warm.can_be(here, {"PYTHONASYNCIODEBUG": "1"})
    assert not warm.can_be(["/usr/bin/python3", "-m", "told"], {})
    assert not warm.can_be([sys.executable, "told.py"], {})
