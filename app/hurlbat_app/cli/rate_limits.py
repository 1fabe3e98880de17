"""`hurlbat rate-limits`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_rate_limit, rate_limit_cells

rate_limits = typer.Typer(
    help="Set, list, show, delete, pause and resume rate limits.", no_args_is_help=True, add_completion=False
)
Key = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Dynamic = Annotated[bool, typer.Option("--dynamic", help="A key that comes of a task's dynamic_key.")]


@rate_limits.command("list")
def list_rate_limits(
    dynamic: Annotated[bool, typer.Option("--dynamic", help="The dynamic ones that are in use or paused.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1000,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the rate limits by key, with what is used of them."""
    query = {"dynamic": "true" if dynamic else None, "limit": limit, "cursor": cursor}
    response = Remote(url, token).get("/rate-limits", query)
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    nothing = (
        "No dynamic rate limit is in use."
        if dynamic
        else "There are no rate limits; set one with `hurlbat rate-limits set KEY LIMIT DURATION`."
    )
    heads = ("key", "limit", "used", "waiting", "paused")
    print_columns(heads, [rate_limit_cells(one) for one in page["items"]], nothing=nothing)
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@rate_limits.command("set")
def set_rate_limit(
    key: Key,
    limit: Annotated[int, typer.Argument(metavar="LIMIT", help="So many units; 0 lets nothing start.")],
    duration: Annotated[float, typer.Argument(metavar="SECONDS", help="In any so many seconds.")],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set a rate limit, or change the one of that key."""
    body = json.dumps({"limit": limit, "duration": duration})
    _print(Remote(url, token).put(_path(key), body).text, as_json)


@rate_limits.command("show")
def show_rate_limit(key: Key, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a rate limit, and what is used of it."""
    _print(Remote(url, token).get(_path(key)).text, as_json)


@rate_limits.command("delete")
def delete_rate_limit(key: Key, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Delete a rate limit; refused while runs draw on it."""
    Remote(url, token).delete(_path(key))
    typer.echo(json.dumps({"deleted": key}) if as_json else f"{key} is deleted")


@rate_limits.command("pause")
def pause_rate_limit(
    key: Key, dynamic: Dynamic = False, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Start nothing that draws on a key until it is resumed."""
    _print(Remote(url, token).post(_path(key, "pause"), query=_kind(dynamic)).text, as_json)


@rate_limits.command("resume")
def resume_rate_limit(
    key: Key, dynamic: Dynamic = False, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Start what draws on a key again."""
    _print(Remote(url, token).post(_path(key, "resume"), query=_kind(dynamic)).text, as_json)


def _path(key: str, *more: str) -> str:
    return "/".join(["/rate-limits", quote(key, safe=""), *more])


def _kind(dynamic: bool) -> dict[str, str]:
    return {"dynamic": "true"} if dynamic else {}


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
    else:
        print_rate_limit(json.loads(text))
