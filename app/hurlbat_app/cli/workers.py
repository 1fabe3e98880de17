"""`hurlbat workers`."""

import json
import re
import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.payload import read_json, read_pairs
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_worker

workers = typer.Typer(
    help="Add, change, list, prove, pause and remove workers, and rotate their secrets.",
    no_args_is_help=True,
    add_completion=False,
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The worker's name.")]

Window = Annotated[
    str | None, typer.Option(help="How many of its slots are used: a number pins it, auto lets it adapt.")
]

PROOF_SECONDS = 90.0


@workers.command("add")
def add_worker(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="WORKER_URL", help="Where deliveries go.")],
    slots: Annotated[int | None, typer.Option(help="How many attempts may run there at once.")] = None,
    window: Window = None,
    mode: Annotated[str | None, typer.Option(help="protocol or plain.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="A task of a plain worker: its name, or its policy in JSON. Repeatable."),
    ] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar=["HURLBAT_SIGNING_SECRETS", "HURLBAT_SIGNING_SECRET"],
            help="The signing secret; of several the first. The server makes one without.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Which tasks may ask for in a worker. Repeatable.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Sent with every request. Repeatable.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Register a worker, or change the one of that name; fails if it is rejected."""
    if mode == "plain" and not task:
        raise Failure("a plain worker does not tell its tasks: name each with --task.", Exit.BAD_INPUT)
    if task and mode != "plain":
        raise Failure("--task is for --mode plain; any other worker tells its tasks itself.", Exit.BAD_INPUT)
    said = {
        "name": name,
        "url": address,
        "slots": slots,
        "window": _window(window),
        "mode": mode,
        "tasks": [_policy(text) for text in task] if task else None,
        "secret": re.split(r"[,\s]+", secret.strip(", \t\n"))[0] if secret else None,
        "labels": read_pairs(label, "--label"),
        "headers": read_pairs(header, "--header"),
    }
    body = json.dumps({key: value for key, value in said.items() if value is not None})
    text = Remote(url, token).post("/workers", body, timeout=PROOF_SECONDS).text
    _print(text, as_json)
    if json.loads(text)["state"] == "rejected":
        raise typer.Exit(Exit.REFUSED)


@workers.command("update")
def update_worker(
    name: Name,
    slots: Annotated[int | None, typer.Option(help="How many attempts may run there at once.")] = None,
    window: Window = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Change how much a worker gets at a time."""
    said = {"slots": slots, "window": _window(window)}
    changes = {key: value for key, value in said.items() if value is not None}
    if not changes:
        raise Failure("say what to change: --slots or --window.", Exit.BAD_INPUT)
    _print(Remote(url, token).patch(_path(name), json.dumps(changes), timeout=PROOF_SECONDS).text, as_json)


@workers.command("list")
def list_workers(as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """List the workers."""
    response = Remote(url, token).get("/workers", {"limit": 1000})
    if as_json:
        typer.echo(response.text)
        return
    rows = [
        (worker["name"], worker["state"], worker["mode"], worker["in_flight"], worker["slots"], worker["url"])
        for worker in response.json()["items"]
    ]
    heads = ("name", "state", "mode", "running", "slots", "url")
    print_columns(heads, rows, nothing="There are no workers; add one with `hurlbat workers add NAME URL`.")


@workers.command("show")
def show_worker(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Show a worker."""
    _print(Remote(url, token).get(_path(name)).text, as_json)


@workers.command("sync")
def sync_worker(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Prove a worker again and take its tasks; fails unless it is ready then."""
    text = Remote(url, token).post(_path(name, "sync"), timeout=PROOF_SECONDS).text
    _print(text, as_json)
    if json.loads(text)["state"] not in ("ready", "unverified", "paused"):
        raise typer.Exit(Exit.REFUSED)


@workers.command("rotate")
def rotate_secret(
    name: Name,
    secret: Annotated[
        str | None,
        typer.Option(help="The new signing secret; - reads it from standard input. The server makes one without."),
    ] = None,
    algorithm: Annotated[
        str | None, typer.Option(help="Of the key that the server makes: v1 (HMAC-SHA256) or v1a (Ed25519).")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="For how many seconds the old key still signs, a day without; 0 ends it at once."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Sign a worker's requests by a new key, and by the old one for a while; fails if the worker is rejected."""
    given = sys.stdin.read().strip() if secret == "-" else secret
    said = {"secret": given, "algorithm": algorithm, "overlap": overlap}
    body = json.dumps({member: value for member, value in said.items() if value is not None})
    text = Remote(url, token).post(_path(name, "rotate-secret"), body, timeout=PROOF_SECONDS).text
    _print(text, as_json)
    if json.loads(text)["state"] == "rejected":
        raise typer.Exit(Exit.REFUSED)


@workers.command("pause")
def pause_worker(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Send no more runs to a worker; they are held."""
    _print(Remote(url, token).post(_path(name, "pause")).text, as_json)


@workers.command("resume")
def resume_worker(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Send runs to a worker again."""
    _print(Remote(url, token).post(_path(name, "resume")).text, as_json)


@workers.command("remove")
def remove_worker(name: Name, as_json: AsJson = False, url: Url = None, token: Token = None) -> None:
    """Remove a worker; runs wait for another one that serves their tasks."""
    Remote(url, token).delete(_path(name))
    typer.echo(json.dumps({"removed": name}) if as_json else f"{name} is removed")


def _path(name: str, *more: str) -> str:
    return "/".join(["/workers", quote(name, safe=""), *more])


def _policy(text: str) -> Any:
    return json.loads(read_json(text, "--task")) if text.lstrip().startswith(("{", "@")) else {"name": text}


def _window(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdecimal():
        raise Failure(f"--window takes a number or auto, and {text!r} is neither.", Exit.BAD_INPUT)
    return int(text)


def _print(text: str, as_json: bool) -> None:
    if as_json:
        typer.echo(text)
    else:
        print_worker(json.loads(text))
