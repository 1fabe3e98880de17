"""`hurlbat workflows`."""

import json
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import flow_rows, print_columns, print_rows, way_rows

workflows = typer.Typer(help="List, show, set and delete workflows.", no_args_is_help=True, add_completion=False)
_NOT_ITS = {"slot_cost": 1, "labels": {}, "sticky": None, "batch_size": None, "on_failure": None}
"""Members of tasks that a workflow does not have, or otherwise."""
Name = Annotated[str, typer.Argument(metavar="NAME", help="The workflow's name.")]


@workflows.command("list")
def list_workflows(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1000,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the workflows by name."""
    response = Remote(url, token).get("/workflows", {"limit": limit, "cursor": cursor})
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [
        (
            one["name"],
            one["version"],
            len(one["nodes"]),
            "yes" if one["paused"] else "no",
            ", ".join(one["workers"]) or None,
            ", ".join(one["unserved"]) or None,
        )
        for one in page["items"]
    ]
    heads = ("name", "version", "nodes", "paused", "declared by", "not served")
    print_columns(heads, rows, nothing="There are no workflows; declare one in an app, or put one from a file.")
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@workflows.command("show")
def show_workflow(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a workflow with its nodes."""
    _print(Remote(url, token).get(_path(name)).text, as_json)


@workflows.command("put")
def put_workflow(
    name: Name,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSON with its nodes, a file's name, or - for standard input.")
    ],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set a workflow: make a new one, or change the one of that name. Runs that there are keep their nodes."""
    text = read_json("-" if file == "-" else f"@{file}", "the file")
    _print(Remote(url, token).put(_path(name), text).text, as_json)


@workflows.command("delete")
def delete_workflow(name: Name, url: Url = None, token: Token = None) -> None:
    """Delete a workflow; the runs that it has go on."""
    Remote(url, token).delete(_path(name))
    typer.echo(f"{name} is deleted")


def _path(name: str) -> str:
    return f"/workflows/{quote(name, safe='')}"


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
        return
    found: dict[str, Any] = json.loads(text)
    typer.echo(f"{found['name']}, version {found['version']}")
    last = [(found[member], member) for member in ("on_failure", "on_success") if found[member] is not None]
    rows = [_cells(node, ", ".join(node["parents"]) or None, _conditions(node)) for node in found["nodes"]]
    rows += [_cells(node, f"all ({member})", None) for node, member in last]
    print_columns(("  node", "task", "after", "conditions"), rows, nothing="")
    print_rows(
        [
            *([("paused", "until resumed; none of its runs begins")] if found["paused"] else []),
            *([("declared", f"by {', '.join(found['workers'])}")] if found["workers"] else []),
            *([("not served", ", ".join(found["unserved"]))] if found["unserved"] else []),
            ("priority", found["priority"]),
            *flow_rows(found | _NOT_ITS),
            *way_rows(found | _NOT_ITS),
        ]
    )


def _cells(node: Mapping[str, Any], after: str | None, conditions: str | None) -> tuple[str | None, ...]:
    return f"  {node['name']}", node["task"], after, conditions


def _conditions(node: Mapping[str, Any]) -> str | None:
    names = {"wait_for": "waits for", "skip_if": "skipped if", "cancel_if": "cancelled if"}
    said = [f"{what} {' and '.join(map(_clause, node[name]))}" for name, what in names.items() if node[name]]
    return "; ".join(said) or None


def _clause(clause: Mapping[str, Any]) -> str:
    if "any" in clause:
        return f"({' or '.join(map(_clause, clause['any']))})"
    if "sleep" in clause:
        return f"{clause['sleep']:g} s"
    if "event" not in clause:
        return str(clause["expression"])
    scope = clause["scope"] or clause["scope_from"]
    scope = f" of {scope}" if scope else ""
    return f"event {clause['event']}{scope}" + (f" with {clause['expression']}" if clause["expression"] else "")
