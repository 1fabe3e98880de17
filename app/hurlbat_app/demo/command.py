"""`hurlbat demo`: a server, a worker, and a handful of runs to look at."""

import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import httpx
import typer
from rich.console import Console
from rich.markup import escape

from hurlbat.signing import new_secret
from hurlbat_app.cli.failure import Failure
from hurlbat_app.demo.story import ending, short, tell
from hurlbat_app.local import Access, Local, LocalFailure, local_server, local_worker

PACKAGED = "hurlbat_app.demo.worker:app"
WORKER = "photo-shop"
WAIT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Scene:
    """Something that starts runs: what it shows, what is posted where, and how its runs must end."""

    title: str
    path: str
    body: Mapping[str, Any]
    ends: str

    @classmethod
    def run(cls, title: str, task: str, input: Any, ends: str, **more: Any) -> Self:
        """Return a scene of one run that is submitted."""
        return cls(title, "/runs", {"task": task, "input": input, **more}, ends)


SCENES = (
    Scene.run("A task that succeeds", "greet", {"name": "Ada"}, "completed"),
    Scene.run("A long task tells how far it has come", "resize", {"photo": "sunset.jpg", "width": 1200}, "completed"),
    Scene.run("A task that fails twice is tried again, by its policy", "fetch_rates", "EUR", "completed"),
    Scene.run(
        "A task that knows better is not tried again", "charge", {"card": "4000000000000002", "amount": 1290}, "failed"
    ),
    Scene.run("An input that the task's model refuses is not tried again either", "greet", {"nmae": "Ada"}, "failed"),
    Scene.run("A run for later starts at its time", "greet", {"name": "Grace"}, "completed", delay=1),
    Scene(
        "An event starts every task that listens, and each filter that is true",
        "/events",
        {"key": "user.signed_up", "payload": {"name": "Ada", "newsletter": True}},
        "completed",
    ),
    Scene("A task that runs every night, run by hand", "/schedules/tidy_up.0/trigger", {}, "completed"),
)


def demo(
    app: Annotated[str, typer.Option(help="The worker: an ASGI app, module:name, with the demo's tasks.")] = PACKAGED,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port of the server; 0 is a free one.")] = 0,
) -> None:
    """Start a server and a worker, run a few tasks and show what happened to each.

    Stays up afterwards, unless DEMO_EXIT=1 is set or the output is not a terminal.
    """
    console = Console(highlight=False, soft_wrap=True)
    access, secret = Access.new(), new_secret()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, with the processes
    with tempfile.TemporaryDirectory(prefix="hurlbat-demo-") as name:
        folder = Path(name)
        try:
            with (
                local_worker(folder, app, env={"HURLBAT_SIGNING_SECRET": secret}) as worker,
                local_server(folder, f"sqlite+aiosqlite:///{folder / 'demo.db'}", access, port=port) as server,
                httpx.Client(
                    base_url=server.url, headers=access.headers, timeout=WAIT_SECONDS + 10, trust_env=False
                ) as api,
            ):
                console.print(f"server  {server.url}   (SQLite, {folder / 'demo.db'})")
                console.print(f"worker  {worker.url}   ({app})\n")
                _register(api, f"{worker.url}/hurlbat/", secret)
                surprises = _play(api, console)
                if not surprises and _is_watched():
                    _stay(console, server, access)
        except (LocalFailure, httpx.HTTPError) as failure:
            raise Failure(str(failure)) from failure
        except KeyboardInterrupt:
            return
    if surprises:
        raise Failure("\n".join(surprises))


def _register(api: httpx.Client, url: str, secret: str) -> None:
    answer = api.post("/workers", json={"name": WORKER, "url": url, "secret": secret})
    if answer.is_error or answer.json()["state"] != "ready":
        raise LocalFailure(f"the worker was not accepted: {answer.text}")


def _play(api: httpx.Client, console: Console) -> list[str]:
    """Post every scene, show its runs when they have ended, and return what ended otherwise than it must."""
    begun = []
    for scene in SCENES:
        answer = api.post(scene.path, json=scene.body)
        answer.raise_for_status()
        begun.append((scene, _runs_of(answer.json())))
    surprises = []
    for scene, run_ids in begun:
        console.print(f"[bold]{escape(scene.title)}[/bold]")
        if not run_ids:
            surprises.append(f"{scene.title}: it started no run")
        for run_id in run_ids:
            answer = api.get(f"/runs/{run_id}", params={"wait": WAIT_SECONDS})
            answer.raise_for_status()
            run = answer.json()
            _show(console, run)
            if run["state"] != scene.ends:
                surprises.append(
                    f"{scene.title}: the run should be {scene.ends} and is {run['state']}: {short(run['error'])}"
                )
    return surprises


def _runs_of(answer: Mapping[str, Any]) -> list[str]:
    """Return the ids of the runs that the answer to a scene tells of."""
    starts = answer.get("starts")
    return [answer["id"]] if starts is None else [start["run"] for start in starts if start["run"]]


def _show(console: Console, run: Mapping[str, Any]) -> None:
    color = "green" if run["state"] == "completed" else "red"
    console.print(f"  {run['task']}  [dim]{run['id']}[/dim]  [{color}]{ending(run)}[/{color}]")
    for moment in tell(run):
        console.print(f"  [dim]{moment.after:7.3f} s[/dim]  {escape(moment.text)}")
    console.print()


def _is_watched() -> bool:
    return sys.stdout.isatty() and os.environ.get("DEMO_EXIT", "") in ("", "0")


def _stay(console: Console, server: Local, access: Access) -> None:
    """Leave everything up for somebody to try, until Ctrl-C."""
    console.print("Server and worker stay up until Ctrl-C. In another terminal:\n")
    console.print(f"  export HURLBAT_URL={server.url} HURLBAT_TOKEN={access.token}", markup=False)
    console.print(f"""  {_command()} run greet --input '{{"name": "you"}}' --wait""", markup=False)
    console.print(f"  {_command()} runs list", markup=False)
    console.print(f'  curl -H "authorization: Bearer $HURLBAT_TOKEN" {server.url}/runs\n', markup=False)
    server.process.wait()
    raise LocalFailure(f"the server has ended; its log: {server.log.read_text(errors='replace')[-4000:]}")


def _command() -> str:
    """Return how the command is called from here: by its name where that finds it, else by the path that found it."""
    called, found = Path(sys.argv[0]), shutil.which("hurlbat")
    if called.name != "hurlbat" or (found is not None and called.exists() and called.samefile(found)):
        return "hurlbat"
    return shlex.quote(str(called))
