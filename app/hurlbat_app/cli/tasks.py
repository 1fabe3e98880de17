"""`hurlbat tasks`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_task

tasks = typer.Typer(help="List and show the tasks that workers serve.", no_args_is_help=True, add_completion=False)


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
    rows = [(task["name"], task["retries"], task["priority"], ", ".join(task["workers"])) for task in page["items"]]
    print_columns(("name", "retries", "priority", "workers"), rows, nothing="There are no tasks; add a worker.")
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@tasks.command("show")
def show_task(
    name: Annotated[str, typer.Argument(help="The task's name.")],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Show a task with the policy in force."""
    text = Remote(url, token).get(f"/tasks/{quote(name, safe='')}").text
    if as_json:
        typer.echo(text)
    else:
        print_task(json.loads(text))
