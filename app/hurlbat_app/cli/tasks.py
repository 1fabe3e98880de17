"""`hurlbat tasks`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.filters import filters
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_task

tasks = typer.Typer(
    help="List, show, pause and resume the tasks that workers serve.", no_args_is_help=True, add_completion=False
)
tasks.add_typer(filters, name="filters")
Name = Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]


@tasks.command("list")
def list_tasks(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1000,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the tasks by name."""
    response = Remote(url, token).get("/tasks", {"limit": limit, "cursor": cursor})
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [
        (task["name"], task["retries"], task["priority"], "yes" if task["paused"] else "no", ", ".join(task["workers"]))
        for task in page["items"]
    ]
    heads = ("name", "retries", "priority", "paused", "workers")
    print_columns(heads, rows, nothing="There are no tasks; add a worker.")
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@tasks.command("show")
def show_task(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a task with the policy in force."""
    _print(Remote(url, token).get(_path(name)).text, as_json)


@tasks.command("pause")
def pause_task(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Start no more runs of a task; they are held."""
    _print(Remote(url, token).post(_path(name, "pause")).text, as_json)


@tasks.command("resume")
def resume_task(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Start a task's runs again."""
    _print(Remote(url, token).post(_path(name, "resume")).text, as_json)


def _path(name: str, *more: str) -> str:
    return "/".join(["/tasks", quote(name, safe=""), *more])


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
    else:
        print_task(json.loads(text))
