"""`hurlbat schedules`."""

import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_rows, standing

schedules = typer.Typer(
    help="Make, change, list, pause, trigger and delete schedules, and ask for their times.",
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule's name.")]
Expression = Annotated[str | None, typer.Option("--cron", help='As in a crontab, such as "*/15 8-18 * * mon-fri".')]
RunAt = Annotated[str | None, typer.Option(help="Fire once, at this time, e.g. 2027-01-31T12:00:00Z.")]
Zone = Annotated[str | None, typer.Option("--timezone", help="Of the IANA database, such as Europe/Berlin; else UTC.")]
Input = Annotated[str | None, typer.Option("--input", "-i", help="JSON, @file, or - for standard input.")]
Metadata = Annotated[str | None, typer.Option(help="A JSON object that goes with its runs; @file and - too.")]
Priority = Annotated[int | None, typer.Option(help="Of its runs; higher goes first. Else that of the task.")]
Missed = Annotated[str | None, typer.Option(help="What is done for times that were missed: skip, once or all.")]
Overlap = Annotated[str | None, typer.Option(help="What is done while a run of it is alive: allow, skip or cancel.")]
Count = Annotated[int, typer.Option(min=1, max=100, help="How many times.")]


@schedules.command("list")
def list_schedules(
    task: Annotated[str | None, typer.Option(help="Only schedules of this task.")] = None,
    paused: Annotated[
        bool | None, typer.Option("--paused/--not-paused", help="Only those that are paused, or that are not.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1000,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List schedules by name, and when they fire next."""
    only = None if paused is None else "true" if paused else "false"
    query = {"task": task, "paused": only, "limit": limit, "cursor": cursor}
    response = Remote(url, token).get("/schedules", query)
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [(one["name"], one["task"], _when(one), _next(one), one["last_at"]) for one in page["items"]]
    nothing = "There are no such schedules; make one with `hurlbat schedules create TASK --cron EXPRESSION`."
    print_columns(("name", "task", "when", "next", "last"), rows, nothing=nothing)
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@schedules.command("show")
def show_schedule(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a schedule."""
    _print(Remote(url, token).get(_path(name)).text, as_json)


@schedules.command("create")
def create_schedule(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")],
    name: Annotated[str | None, typer.Option(help="The schedule's name; without one it gets one.")] = None,
    cron: Expression = None,
    run_at: RunAt = None,
    timezone: Zone = None,
    input: Input = None,
    metadata: Metadata = None,
    priority: Priority = None,
    missed: Missed = None,
    overlap: Overlap = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Make a schedule, with --cron or --run-at. The same one again changes nothing."""
    if (cron is None) is (run_at is None):
        raise Failure("say when: --cron, to fire again and again, or --run-at, to fire once; not both.", Exit.BAD_INPUT)
    said = _said(cron, run_at, timezone, priority, missed, overlap) | {"task": task, "name": name}
    _print(Remote(url, token).post("/schedules", _body(said, input, metadata)).text, as_json)


@schedules.command("update")
def update_schedule(
    name: Name,
    task: Annotated[str | None, typer.Option(help="Another task.")] = None,
    cron: Expression = None,
    run_at: RunAt = None,
    timezone: Zone = None,
    input: Input = None,
    metadata: Metadata = None,
    priority: Priority = None,
    missed: Missed = None,
    overlap: Overlap = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change what is named of a schedule; new times count from now."""
    said = _said(cron, run_at, timezone, priority, missed, overlap) | {"task": task}
    body = _body(said, input, metadata)
    if body == "{}":
        raise Failure("say what to change, e.g. --cron.", Exit.BAD_INPUT)
    _print(Remote(url, token).patch(_path(name), body).text, as_json)


@schedules.command("pause")
def pause_schedule(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Let a schedule fire no more; times that pass are not made up for."""
    _print(Remote(url, token).post(_path(name, "pause")).text, as_json)


@schedules.command("resume")
def resume_schedule(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Let a schedule fire again, from now on."""
    _print(Remote(url, token).post(_path(name, "resume")).text, as_json)


@schedules.command("delete")
def delete_schedule(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Delete a schedule; its runs stay."""
    Remote(url, token).delete(_path(name))
    typer.echo(json.dumps({"deleted": name}) if as_json else f"{name} is deleted")


@schedules.command("trigger")
def trigger_schedule(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Start a run of a schedule now; its own times stay."""
    text = Remote(url, token).post(_path(name, "trigger")).text
    run: dict[str, Any] = json.loads(text)
    typer.echo(text if as_json else f"{run['task']}  {run['id']}  {standing(run)}")


@schedules.command("next")
def next_times(name: Name, count: Count = 10, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Say when a schedule fires next."""
    text = Remote(url, token).get(_path(name, "next"), {"count": count}).text
    _print_times(text, as_json, nothing="It fires no more; is it paused, or was its only time?")


@schedules.command("fires")
def list_fires(
    name: Name,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List what came of a schedule's due times, the newest first."""
    response = Remote(url, token).get(_path(name, "fires"), {"limit": limit, "cursor": cursor})
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [
        (one["due_at"], f"{one['outcome']}{', by hand' if one['manual'] else ''}", one["run"], one["reason"])
        for one in page["items"]
    ]
    print_columns(("due", "outcome", "run", "reason"), rows, nothing="It has not fired yet.")
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@schedules.command("preview")
def preview(
    expression: Annotated[
        str, typer.Argument(metavar="EXPRESSION", help='As in a crontab, such as "*/15 8-18 * * mon-fri".')
    ],
    timezone: Zone = None,
    count: Count = 10,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Say when an expression would be due next; nothing is stored."""
    body = json.dumps({"expression": expression, "timezone": timezone, "count": count})
    _print_times(Remote(url, token).post("/schedules/preview", body).text, as_json, nothing="It is never due.")


def _said(
    cron: str | None,
    run_at: str | None,
    timezone: str | None,
    priority: int | None,
    missed: str | None,
    overlap: str | None,
) -> dict[str, Any]:
    return {
        "expression": cron,
        "run_at": run_at,
        "timezone": timezone,
        "priority": priority,
        "missed": missed,
        "overlap": overlap,
    }


def _body(said: Mapping[str, Any], input: str | None, metadata: str | None) -> str:
    members = [f'"{name}":{json.dumps(value)}' for name, value in said.items() if value is not None]
    if input is not None:
        members.append(f'"input":{read_json(input, "--input")}')
    if metadata is not None:
        members.append(f'"metadata":{read_json(metadata, "--metadata")}')
    return f"{{{','.join(members)}}}"


def _path(name: str, *more: str) -> str:
    return "/".join(["/schedules", quote(name, safe=""), *more])


def _when(one: Mapping[str, Any]) -> str:
    if one["expression"] is None:
        return f"once, {one['run_at']}"
    return one["expression"] if one["timezone"] == "UTC" else f"{one['expression']} ({one['timezone']})"


def _next(one: Mapping[str, Any]) -> Any:
    return "paused" if one["paused"] else one["next_at"]


def _print_times(text: str, as_json: bool, *, nothing: str) -> None:
    if as_json:
        typer.echo(text)
        return
    for time in json.loads(text)["items"] or [nothing]:
        typer.echo(time)


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
        return
    one: dict[str, Any] = json.loads(text)
    typer.echo(one["name"])
    rows = [
        ("task", one["task"]),
        ("when", _when(one)),
        ("next", _next(one)),
        ("last", one["last_at"]),
        ("last run", one["last_run"]),
        ("problem", one["problem"]),
        ("input", json.dumps(one["input"], ensure_ascii=False)),
        ("priority", one["priority"]),
        ("missed", one["missed"]),
        ("overlap", one["overlap"]),
    ]
    print_rows([(name, value) for name, value in rows if value is not None])
