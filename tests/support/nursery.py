"""A process that has imported what servers, workers and commands need, and forks one whenever it is asked to.

To import it all costs a second or two of a core, and the tests start hundreds of processes. What is forked here is one
of its own in every other respect: its environment, folder, streams and signals are those that it would have.

Run with the number of a socket. A request is some JSON with four files: standard input, output, error, and one that is
told how the process has ended, as `Popen.returncode` would be. The answer is a line with its pid.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import Any

IMPORTED = (
    *("hurlbat_app.cli.serve", "hurlbat_app.cli.doctor", "hurlbat_app.cli.runs", "hurlbat_app.cli.workers"),
    *("hurlbat_app.cli.tasks", "hurlbat_app.cli.rate_limits", "hurlbat_app.cli.expressions"),
    *("hurlbat", "fastapi", "uvicorn.main", "uvicorn.loops.uvloop", "uvicorn.protocols.http.httptools_impl"),
    *("uvicorn.lifespan.on", "uvicorn.lifespan.off", "httptools", "uvloop", "aiosqlite", "asyncpg", "rich.console"),
    *("sqlalchemy.dialects.sqlite.aiosqlite", "sqlalchemy.dialects.postgresql.asyncpg", "alembic.command"),
)
LONGEST_REQUEST = 1_000_000


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork what is asked for, and return the request in the new process. Here it ends when nobody can ask any more."""
    told, tell = os.pipe()
    os.set_blocking(told, False)
    os.set_blocking(tell, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    children: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([control.fileno(), told], [], [])
        if told in readable:
            os.read(told, 4096)
            _bury(children)
        if control.fileno() not in readable:
            continue
        message, files, _, _ = socket.recv_fds(control, LONGEST_REQUEST, 4)
        if not message:
            break
        pid = os.fork()
        if pid == 0:
            for number, stream in enumerate(files[:3]):
                os.dup2(stream, number)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for file in (control.detach(), told, tell, *files, *children.values()):
                os.close(file)
            request: dict[str, Any] = json.loads(message)
            return request
        for file in files[:3]:
            os.close(file)
        children[pid] = files[3]
        control.sendall(b"%d\n" % pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    sys.exit()


def _bury(children: dict[int, int]) -> None:
    """Tell how each has ended that has."""
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            file = children.pop(pid)
            with suppress(BrokenPipeError):
                os.write(file, b"%d\n" % os.waitstatus_to_exitcode(status))
            os.close(file)


def be(request: dict[str, Any]) -> None:
    """Be `python -m module arguments…` in this environment and folder."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["env"])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [request["folder"], *paths, *sys.path]
    sys.argv[:] = [request["module"], *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    for _name in IMPORTED:
        importlib.import_module(_name)
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads is not to be forked")
    gc.collect()
    gc.freeze()
    be(serve(socket.socket(fileno=int(sys.argv[1]))))
