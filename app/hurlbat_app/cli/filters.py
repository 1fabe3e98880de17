"""`hurlbat tasks filters`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns

filters = typer.Typer(
    help="List, add and remove the filters by which a task chooses among events.",
    no_args_is_help=True,
    add_completion=False,
)
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]


@filters.command("list")
def list_filters(task: Task, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List a task's filters: those of its policy, then those made by hand."""
    response = Remote(url, token).get(_path(task), {"limit": 1000})
    if as_json:
        typer.echo(response.text)
        return
    items: list[dict[str, Any]] = response.json()["items"]
    rows = [(one["id"], one["expression"], one["scope"], json.dumps(one["payload"])) for one in items]
    print_columns(("id", "expression", "scope", "payload"), rows, nothing="It has no filters: every event will do.")


@filters.command("add")
def add_filter(
    task: Task,
    expression: Annotated[str | None, typer.Option("--expression", "-e", help="Such as input.amount > 100.")] = None,
    scope: Annotated[str | None, typer.Option(help="Only events of this scope.")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON for the expression and the run; @file and - too.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Give a task one filter more: it gets a run for each that is true for an event."""
    said = {"expression": expression, "scope": scope}
    members = [f'"{name}":{json.dumps(value)}' for name, value in said.items() if value is not None]
    if payload is not None:
        members.append(f'"payload":{read_json(payload, "--payload")}')
    text = Remote(url, token).post(_path(task), f"{{{','.join(members)}}}").text
    typer.echo(text if as_json else f"{json.loads(text)['id']} is added")


@filters.command("remove")
def remove_filter(
    task: Task,
    filter_id: Annotated[str, typer.Argument(metavar="FILTER_ID", help="The filter's id.")],
    url: Url = None,
    token: Token = None,
) -> None:
    """Remove a filter that was made by hand."""
    Remote(url, token).delete(_path(task, filter_id))
    typer.echo(f"{filter_id} is removed")


def _path(task: str, *more: str) -> str:
    return "/".join(["/tasks", quote(task, safe=""), "filters", *(quote(one, safe="") for one in more)])
