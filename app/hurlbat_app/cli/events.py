"""`hurlbat events`."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.paging import listed, print_more
from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns
from hurlbat_app.demo.story import short

KNOWN = 200
"""How a server answers a push of an event that it has."""

events = typer.Typer(help="Push, list, show and replay events.", no_args_is_help=True, add_completion=False)
EventId = Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")]


@events.command("push")
def push_event(
    key: Annotated[str, typer.Argument(metavar="KEY", help="What has happened, such as order.paid.")],
    payload: Annotated[
        str | None, typer.Option("--payload", "-p", help="JSON, @file, or - for standard input.")
    ] = None,
    event_id: Annotated[str | None, typer.Option("--id", help="An event with this id is taken in once.")] = None,
    scope: Annotated[str | None, typer.Option(help="Filters that have a scope see only events of that scope.")] = None,
    metadata: Annotated[
        str | None, typer.Option(help="A JSON object that goes with its runs; @file and - too.")
    ] = None,
    priority: Annotated[int | None, typer.Option(help="Of the runs that it starts; higher goes first.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Push an event, and say what it started."""
    said = {"key": key, "id": event_id, "scope": scope, "priority": priority}
    members = [f'"{name}":{json.dumps(value)}' for name, value in said.items() if value is not None]
    if payload is not None:
        members.append(f'"payload":{read_json(payload, "--payload")}')
    if metadata is not None:
        members.append(f'"metadata":{read_json(metadata, "--metadata")}')
    response = Remote(url, token).post("/events", f"{{{','.join(members)}}}")
    known = response.status_code == KNOWN
    _print(response.text, as_json, ["it was there already; this started nothing"] if known else ())


@events.command("list")
def list_events(
    key: Annotated[str | None, typer.Option(help="Only events of this key.")] = None,
    scope: Annotated[str | None, typer.Option(help="Only events of this scope.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List events, the newest first."""
    remote, query = Remote(url, token), {"key": key, "scope": scope, "cursor": cursor}
    if as_json:
        typer.echo(remote.get("/events", {**query, "limit": limit}).text)
        return
    page = listed(remote, "/events", query, limit)
    rows = [(event["id"], event["key"], event["scope"], event["created_at"]) for event in page["items"]]
    nothing = "No such events were found so far." if page["next_cursor"] else "There are no such events."
    print_columns(("id", "key", "scope", "created"), rows, nothing=nothing)
    print_more(page, limit)


@events.command("show")
def show_event(event_id: EventId, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show an event, and what became of it for each task that listens."""
    text = Remote(url, token).get(_path(event_id)).text
    event: dict[str, Any] = json.loads(text)
    more = [f"pushed at {event['created_at']} with {short(event['payload'])}"]
    more += [f"metadata {short(event['metadata'])}"] if event["metadata"] else []
    more += [] if event["priority"] is None else [f"priority {event['priority']}"]
    _print(text, as_json, more)


@events.command("replay")
def replay_event(event_id: EventId, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Push an event's content again, as a new event, to those who listen now."""
    _print(Remote(url, token).post(_path(event_id, "replay")).text, as_json)


def _path(event_id: str, *more: str) -> str:
    return "/".join(["/events", quote(event_id, safe=""), *more])


def _print(text: str, as_json: bool, more: Sequence[str] = ()) -> None:
    if as_json:
        typer.echo(text)
        return
    event: dict[str, Any] = json.loads(text)
    scope = "" if event["scope"] is None else f"  of {event['scope']}"
    again = "" if event["replay_of"] is None else f"  again, of {event['replay_of']}"
    typer.echo(f"{event['key']}  {event['id']}{scope}{again}")
    for line in more:
        typer.echo(f"  {line}")
    if not event["starts"]:
        typer.echo("  no task listens to it; nodes of workflows that wait for it were told")
    for start in event["starts"]:
        typer.echo(f"  {_told(start)}")


def _told(start: Mapping[str, Any]) -> str:
    """Return what came of an event for one who listens."""
    by = "" if start["filter"] is None else f" by {start['filter']}"
    if start["outcome"] == "started":
        return f"{start['task']} started{by}: {start['run']}"
    reason = "" if start["reason"] is None else f": {start['reason']}"
    return f"{start['task']} {start['outcome']}{by}{reason}"
