"""`hurlbat run` and `hurlbat runs`."""

import json
import time
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli import bulk
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.paging import listed, print_more
from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import TIMEOUT, AsJson, Remote, Token, Url
from hurlbat_app.cli.show import FINAL, print_columns, print_run, standing
from hurlbat_app.cli.tree import show_tree
from hurlbat_app.cli.watching import watch_run
from hurlbat_app.cli.wrapping import wrapped

POLL_SECONDS = 30.0
SOON_SECONDS = 3.0
"""After so long it is told what holds a run that has not started."""

runs = typer.Typer(help="List, show, watch, move, cancel and replay runs.", no_args_is_help=True, add_completion=False)
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")],
    input: Annotated[str, typer.Option("--input", "-i", help="JSON, @file, or - for standard input.")] = "null",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait for the end, and show what happened.")] = False,
    timeout: Annotated[float | None, typer.Option(min=0.001, help="Wait no longer than so many seconds.")] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object that goes with the run; @file and - too.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    delay: Annotated[float | None, typer.Option(help="Start in so many seconds.")] = None,
    run_at: Annotated[str | None, typer.Option(help="Start at this time, e.g. 2027-01-31T12:00:00Z.")] = None,
    ttl: Annotated[float | None, typer.Option(help="Drop the run if it has not started in so many seconds.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="A repeat with this key makes no other run.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Submit a run.

    With --wait the status is 0 for a completed run, 1 for one that ended otherwise, and 5 where the --timeout was over
    first: the run goes on then.
    """
    if timeout is not None and not wait:
        raise Failure("--timeout says how long to --wait; give both, or neither.", Exit.BAD_INPUT)
    said = {
        "task": task,
        "priority": priority,
        "delay": delay,
        "run_at": run_at,
        "ttl": ttl,
        "idempotency_key": idempotency_key,
    }
    members = [f'"{name}":{json.dumps(value)}' for name, value in said.items() if value is not None]
    members.append(f'"input":{read_json(input, "--input")}')
    if metadata is not None:
        members.append(f'"metadata":{read_json(metadata, "--metadata")}')
    body = f"{{{','.join(members)}}}"
    remote = Remote(url, token)
    if not wait:
        _print(remote.post("/runs", body).text, as_json)
        return
    text = _until_final(remote, body, timeout)
    _print(text, as_json, story=True)
    found = json.loads(text)
    if found["state"] not in FINAL:
        raise Failure(f"the run goes on; look at it with `hurlbat runs show {found['id']}`.", Exit.GOES_ON)
    if found["state"] != "completed":
        raise typer.Exit(Exit.REFUSED)


def _until_final(remote: Remote, body: str, timeout: float | None) -> str:
    """Submit a run, and return it when it has ended or the time is over."""
    deadline = None if timeout is None else time.monotonic() + timeout

    def patience(most: float = POLL_SECONDS) -> float:
        return most if deadline is None else min(most, max(0.001, deadline - time.monotonic()))

    seconds, told = patience(SOON_SECONDS), False
    response = remote.post("/runs", body, {"wait": f"{seconds:.3f}"}, timeout=seconds + TIMEOUT)
    while (found := response.json())["state"] not in FINAL:
        if not told and found["state"] == "queued":
            told = _say_why(remote, found["id"])
        if deadline is not None and time.monotonic() >= deadline:
            break
        seconds = patience()
        response = remote.get(f"/runs/{found['id']}", {"wait": f"{seconds:.3f}"}, timeout=seconds + TIMEOUT)
    return response.text


def _say_why(remote: Remote, run_id: str) -> bool:
    """Tell whoever waits what holds the run, beside what the command prints; return whether it still does."""
    explanation = remote.find(f"/runs/{run_id}/explain")
    holds = explanation is not None and explanation["state"] == "queued"
    if holds:
        typer.echo(wrapped(f"The run waits. {explanation['summary']}"), err=True)
    return holds


@runs.command("list")
def list_runs(
    task: Annotated[str | None, typer.Option(help="Only runs of this task.")] = None,
    state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None,
    delayed: Annotated[bool, typer.Option("--delayed", help="Only runs that wait for their time.")] = False,
    created_after: Annotated[
        str | None, typer.Option(help="Only runs of then or later, e.g. 2027-01-31T12:00:00Z.")
    ] = None,
    created_before: Annotated[str | None, typer.Option(help="Only runs from before then.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only nodes and children of this run.")] = None,
    root: Annotated[str | None, typer.Option(help="Only runs below this one, at the top of them all.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only tasks by themselves (task), workflows, or nodes.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List runs, the newest first."""
    query = {
        "task": task,
        "state": state,
        "delayed": "true" if delayed else None,
        "created_after": created_after,
        "created_before": created_before,
        "parent": parent,
        "root": root,
        "kind": kind,
        "cursor": cursor,
    }
    remote = Remote(url, token)
    if as_json:
        typer.echo(remote.get("/runs", {**query, "limit": limit}).text)
        return
    page = listed(remote, "/runs", query, limit)
    heads = ["id", "task", "state", "attempt", "worker", "created"]
    members = ["id", "task", "state", "attempt", "worker", "created_at"]
    if delayed:
        heads[3:5], members[3:5] = ["due"], ["due_at"]
    if parent is not None or root is not None:
        heads.insert(1, "node")
        members.insert(1, "node")
    nothing = "No such runs were found so far." if page["next_cursor"] else "There are no such runs."
    print_columns(heads, [[run[name] for name in members] for run in page["items"]], nothing=nothing)
    print_more(page, limit)


@runs.command("show")
def show_run(run_id: RunId, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a run and what happened to it."""
    remote = Remote(url, token)
    text = remote.get(_path(run_id)).text
    _print(text, as_json, story=True)
    run: dict[str, Any] = json.loads(text)
    if run["state"] in ("queued", "suspended") and not as_json:
        explained: dict[str, Any] = remote.get(_path(run_id, "explain")).json()
        typer.echo(wrapped(f"  {explained['summary']} More: hurlbat runs explain {run_id}", 2))


@runs.command("explain")
def explain_run(run_id: RunId, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Say why a run waits, or why it ended so."""
    text = Remote(url, token).get(_path(run_id, "explain")).text
    if as_json:
        typer.echo(text)
        return
    found: dict[str, Any] = json.loads(text)
    typer.echo(wrapped(found["summary"]))
    if found["frees"]:
        typer.echo(wrapped(f"Freed by: {found['frees'][:1].lower()}{found['frees'][1:]}"))
    if found["earliest_start"]:
        typer.echo(f"The earliest start is {found['earliest_start']}.")
    heads = ("budget", "name", "key", "used", "of", "takes", "room", "occupied by")
    rows = [
        (
            f"{one['kind']}{' *' if one['holds'] else ''}",
            one["name"],
            one["key"],
            one["used"],
            one["limit"],
            one["units"],
            "yes" if one["room"] else "no",
            ", ".join(one["occupied_by"][:3]) + (", …" if len(one["occupied_by"]) > 3 else ""),
        )
        for one in found["budgets"]
    ]
    if rows:
        typer.echo()
        print_columns(heads, rows, nothing="")


runs.command("watch")(watch_run)
runs.command("tree")(show_tree)


@runs.command("move")
def move_run(
    run_id: RunId,
    run_at: Annotated[str | None, typer.Option(help="Start at this time, e.g. 2027-01-31T12:00:00Z.")] = None,
    delay: Annotated[float | None, typer.Option(help="Start in so many seconds from now.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Let a run that waits for its time start at another, or with another priority."""
    said = {"run_at": run_at, "delay": delay, "priority": priority}
    body = json.dumps({name: value for name, value in said.items() if value is not None})
    if body == "{}":
        raise Failure("say what to change: --run-at, --delay or --priority.", Exit.BAD_INPUT)
    _print(Remote(url, token).patch(_path(run_id), body).text, as_json)


@runs.command("cancel")
def cancel_run(
    run_id: bulk.OneRun = None,
    task: bulk.OfTask = None,
    state: bulk.InState = None,
    created_after: bulk.After = None,
    created_before: bulk.Before = None,
    reason: Annotated[str | None, typer.Option(help="Why; the runs remember it.")] = None,
    dry_run: bulk.DryRun = False,
    yes: bulk.Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Cancel a run, at once; or all runs of a task, in a state, of a time, those that have not ended."""
    meant = bulk.filter_of(run_id, task, state, created_after, created_before)
    if meant is not None:
        bulk.do_to_many(Remote(url, token), bulk.Asked("cancel", meant, reason, dry_run, yes, as_json))
    elif dry_run:
        raise Failure("--dry-run goes with --task, --state and the like, not with one run.", Exit.BAD_INPUT)
    else:
        body = json.dumps({"reason": reason}) if reason else None
        _print(Remote(url, token).post(_path(run_id or "", "cancel"), body).text, as_json)


@runs.command("replay")
def replay_run(
    run_id: bulk.OneRun = None,
    task: bulk.OfTask = None,
    state: bulk.InState = None,
    created_after: bulk.After = None,
    created_before: bulk.Before = None,
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="NODE",
            help="Of a workflow: failed (the default), start, or a node; several times for more.",
        ),
    ] = None,
    dry_run: bulk.DryRun = False,
    yes: bulk.Yes = False,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Queue a run again that has ended; or all runs of a task, in a state, of a time, those that have failed.

    Of a workflow that runs anew which did not end well, and what comes after it; --from says otherwise.
    """
    meant = bulk.filter_of(run_id, task, state, created_after, created_before)
    if meant is not None and from_:
        raise Failure("--from goes with one run's id, not with --task, --state and the like.", Exit.BAD_INPUT)
    if meant is not None:
        bulk.do_to_many(Remote(url, token), bulk.Asked("replay", meant, None, dry_run, yes, as_json))
    elif dry_run:
        raise Failure("--dry-run goes with --task, --state and the like, not with one run.", Exit.BAD_INPUT)
    else:
        named = from_[0] if from_ in (["failed"], ["start"]) else from_
        body = json.dumps({"from": named}) if named else None
        _print(Remote(url, token).post(_path(run_id or "", "replay"), body).text, as_json)


def _path(run_id: str, *more: str) -> str:
    return "/".join(["/runs", quote(run_id, safe=""), *more])


def _print(text: str, as_json: bool, *, story: bool = False) -> None:
    if as_json:
        typer.echo(text)
        return
    run: dict[str, Any] = json.loads(text)
    if story:
        print_run(run)
    else:
        state = run["state"] if run["state"] in FINAL else standing(run)
        typer.echo(f"{run['task']}  {run['id']}  {state}")
