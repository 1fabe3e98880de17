"""`hurlbat runs tree`: a run with its nodes and children, and what is below these."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from hurlbat_app.cli.remote import AsJson, Remote, Token, Url

MOST: Final = 1_000
"""Runs below the top that are looked at."""

Run = Mapping[str, Any]


def show_tree(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a run with its nodes and children, their states and how long they took, as a tree.

    With --json it is the run with `below`, a list of what has it for a parent, each with `below` in turn.
    """
    remote = Remote(url, token)
    run: dict[str, Any] = remote.get(f"/runs/{quote(run_id, safe='')}").json()
    page: dict[str, Any] = remote.get("/runs", {"root": run["root"] or run["id"], "limit": MOST}).json()
    below: dict[str, list[Run]] = {}
    for one in reversed(page["items"]):
        if one["was_node"] is None:
            below.setdefault(one["parent"], []).append(one)
    if as_json:
        typer.echo(json.dumps(_nested(run, below)))
        return
    typer.echo(_said(run))
    for line in _lines(run, below, ""):
        typer.echo(line)
    if page["next_cursor"]:
        typer.echo(f"These are of the newest {MOST:,}; list all: hurlbat runs list --root {run['root'] or run['id']}")


def _nested(run: Run, below: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    return {**run, "below": [_nested(one, below) for one in below.get(run["id"], ())]}


def _lines(run: Run, below: Mapping[str, Sequence[Run]], indent: str) -> Iterator[str]:
    """Yield a line for each run below one, and for each node that was not reached yet."""
    runs = list(below.get(run["id"], ()))
    waiting = [node for node in run.get("nodes", ()) if node["run"] is None]
    count = len(runs) + len(waiting)
    for n, one in enumerate(runs, 1):
        last = n == count
        yield f"{indent}{'└─' if last else '├─'} {_said(one)}"
        yield from _lines(one, below, indent + ("   " if last else "│  "))
    for n, node in enumerate(waiting, len(runs) + 1):
        after = f" after {', '.join(node['parents'])}" if node["parents"] else ""
        yield f"{indent}{'└─' if n == count else '├─'} {node['name']}  {node['task']}  {node['state']}{after}"


def _said(run: Run) -> str:
    name = f"{run['node']}  {run['task']}" if run["node"] is not None else str(run["task"])
    reason = f": {run['reason']}" if run["reason"] else ""
    return f"{name}  {run['id']}  {run['state']}{_took(run)}{reason}"


def _took(run: Run) -> str:
    if run["started_at"] is None:
        return ""
    ended = run["finished_at"]
    end = datetime.now(UTC) if ended is None else datetime.fromisoformat(ended)
    seconds = (end - datetime.fromisoformat(run["started_at"])).total_seconds()
    return f" {'for' if ended is None else 'after'} {max(0.0, seconds):.2f} s"
