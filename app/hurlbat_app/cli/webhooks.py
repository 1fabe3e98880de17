"""`hurlbat webhooks`."""

import json
import re
import sys
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_rows

webhooks = typer.Typer(help="Set, list, show and delete incoming webhooks.", no_args_is_help=True, add_completion=False)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name.")]

_SECRETS: Final = {"basic": "passwords", "api_key": "keys"}
"""What the secrets of an authentication are called, where they are not `secrets`."""
_SAID: Final = ("type", "secret_count")
_RATE: Final = re.compile(r"(\d+)/(\d+(?:\.\d+)?)", re.ASCII)


@webhooks.command("put")
def put_webhook(
    name: Name,
    auth: Annotated[
        str | None, typer.Option(help="standard, github, stripe, slack, hmac, basic or api_key; as before without.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="The secret, password or key. Repeatable; - reads one a line from standard input."),
    ] = None,
    username: Annotated[str | None, typer.Option(help="Of basic.")] = None,
    header: Annotated[str | None, typer.Option(help="Of hmac and api_key: where the signature or key is.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="Of hmac: sha256, sha512 or sha1.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of hmac: hex or base64.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Of hmac: what is in front of the signature.")] = None,
    key: Annotated[str | None, typer.Option(help="An expression: the event's key.")] = None,
    scope: Annotated[str | None, typer.Option(help="An expression: the event's scope.")] = None,
    id: Annotated[str | None, typer.Option(help="An expression: what the sender calls the event.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of a body.")] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="LIMIT/SECONDS", help="At most so many deliveries in any so many seconds.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Set a webhook, or change the one of that name; what is left out, but for --auth, has its default."""
    more = {"username": username, "header": header, "algorithm": algorithm, "encoding": encoding, "prefix": prefix}
    said = {
        "auth": _auth(auth, _read_secrets(secret or []), more),
        "key": key,
        "scope": scope,
        "id": id,
        "max_bytes": max_bytes,
        "rate": _read_rate(rate),
    }
    body = json.dumps({member: value for member, value in said.items() if value is not None})
    _print(Remote(url, token).put(_path(name), body).text, as_json)


@webhooks.command("list")
def list_webhooks(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 1000,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the webhooks by name."""
    response = Remote(url, token).get("/webhooks", {"limit": limit, "cursor": cursor})
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [(one["name"], one["auth"]["type"], _key_of(one), one["scope"], _rate_of(one)) for one in page["items"]]
    nothing = "There are no webhooks; set one with `hurlbat webhooks put NAME --auth github --secret …`."
    print_columns(("name", "auth", "key", "scope", "rate"), rows, nothing=nothing)
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@webhooks.command("show")
def show_webhook(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a webhook, without its secrets."""
    _print(Remote(url, token).get(_path(name)).text, as_json)


@webhooks.command("delete")
def delete_webhook(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Delete a webhook; the events that came of it stay."""
    Remote(url, token).delete(_path(name))
    typer.echo(json.dumps({"deleted": name}) if as_json else f"{name} is deleted")


def _auth(kind: str | None, secrets: list[str], more: dict[str, str | None]) -> dict[str, Any] | None:
    given = {name: value for name, value in more.items() if value is not None}
    if kind is None:
        if secrets or given:
            raise Failure("say by --auth what the secret is for.", Exit.BAD_INPUT)
        return None
    named = _SECRETS.get(kind, "secrets")
    return {"type": kind, **({named: secrets} if secrets else {}), **given}


def _read_secrets(given: list[str]) -> list[str]:
    found: list[str] = []
    for one in given:
        found += [line for line in sys.stdin.read().splitlines() if line] if one == "-" else [one]
    return found


def _read_rate(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise Failure("--rate must be such as 100/60: so many deliveries in so many seconds.", Exit.BAD_INPUT)
    return {"limit": int(match[1]), "duration": float(match[2])}


def _path(name: str) -> str:
    return f"/webhooks/{quote(name, safe='')}"


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
        return
    one = json.loads(text)
    typer.echo(one["name"])
    more = [f"{name} {value}" for name, value in sorted(one["auth"].items()) if value and name not in _SAID]
    count = one["auth"]["secret_count"]
    print_rows(
        [
            ("url", one["url"]),
            ("auth", ", ".join([one["auth"]["type"], f"{count} secret{'s' * (count > 1)}", *more])),
            ("key", _key_of(one)),
            *((name, one[name]) for name in ("scope", "id") if one[name] is not None),
            *([("size", f"{one['max_bytes']} bytes at most")] if one["max_bytes"] is not None else []),
            *([("rate", _rate_of(one))] if one["rate"] is not None else []),
        ]
    )


def _key_of(one: dict[str, Any]) -> str:
    return f"webhook.{one['name']}" if one["key"] is None else str(one["key"])


def _rate_of(one: dict[str, Any]) -> str | None:
    return None if one["rate"] is None else f"{one['rate']['limit']} in {one['rate']['duration']:g} s"
