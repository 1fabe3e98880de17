"""`hurlbat attempts`."""

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any
from urllib.parse import quote

import typer

from hurlbat.errors import ConfigError
from hurlbat.settings import read_settings
from hurlbat_app.cli.curl import curl_of
from hurlbat_app.cli.environment import environment
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import print_columns, print_rows
from hurlbat_app.cli.wrapping import wrapped

attempts = typer.Typer(
    help="List and show what was sent to workers and what came back, and make curl commands of it.",
    no_args_is_help=True,
    add_completion=False,
)
_JSON = re.compile(r"application/([\w.-]+\+)?json(;.*)?")
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Number = Annotated[int | None, typer.Argument(metavar="N", min=1, help="Which attempt; the last one without.")]


@attempts.command("list")
def list_attempts(
    run: RunId,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """List the attempts of a run, the last one first."""
    response = Remote(url, token).get(_path(run), {"limit": limit, "cursor": cursor})
    if as_json:
        typer.echo(response.text)
        return
    page: dict[str, Any] = response.json()
    rows = [(one["attempt"], one["state"], _charged(one), one["worker"], one["started_at"]) for one in page["items"]]
    print_columns(
        ("attempt", "state", "charged", "worker", "started"),
        rows,
        nothing="The run has not started yet.",
        below=_once([printable(one["sentence"]) for one in page["items"]]),
    )
    if page["next_cursor"]:
        typer.echo(f"There are more: --cursor {page['next_cursor']}")


@attempts.command("show")
def show_attempt(
    run: RunId, number: Number = None, as_json: AsJson = False, url: Url = None, token: Token = None
) -> None:
    """Show an attempt: what was sent to the worker, what came back, and how long it took."""
    text = _read(Remote(url, token), run, number)
    if as_json:
        typer.echo(text)
    else:
        _print(json.loads(text))


@attempts.command("curl")
def curl_attempt(
    run: RunId,
    number: Number = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="The worker's signing secret; - reads it from standard input."
            "  [env var: HURLBAT_SIGNING_SECRETS, HURLBAT_SIGNING_SECRET]"
        ),
    ] = None,
    worker_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where to send it; where the attempt went without.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Print a curl command that sends an attempt to a worker of yours once more, signed now, under another run's id.

    The worker executes its task. The server knows nothing of it, so nothing becomes of what the worker answers.
    """
    keys = _keys(secret)
    attempt = json.loads(_read(Remote(url, token), run, number))
    if attempt["request"] is None:
        which = f"attempt {attempt['attempt']}"
        raise Failure(f"nothing is kept of what was sent for {which}: it was not sent, or it is too long ago.")
    try:
        made = curl_of(attempt, keys, int(time.time()), worker_url)
    except ConfigError as error:
        raise Failure(f"{error}.", Exit.BAD_INPUT) from error
    typer.echo(json.dumps(made.as_json()) if as_json else made.command())


def printable(text: str) -> str:
    """Return what came from elsewhere without what would control a terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def _path(run: str) -> str:
    return f"/runs/{quote(run, safe='')}/attempts"


def _read(remote: Remote, run: str, number: int | None) -> str:
    if number is None:
        found = remote.get(_path(run), {"limit": 1}).json()["items"]
        if not found:
            raise Failure("the run has not started yet: it has no attempt.")
        number = found[0]["attempt"]
    return remote.get(f"{_path(run)}/{number}").text


def _keys(secret: str | None) -> list[str]:
    """Return the keys to sign with."""
    given = sys.stdin.read().strip() if secret == "-" else secret
    try:
        known = read_settings({"signing_secret": given or None}, environment()).keys
    except ConfigError as error:
        raise Failure(f"{error}.", Exit.BAD_INPUT) from error
    keys = [key for key in known if not key.startswith("whpk_")]
    if known and not keys:
        raise Failure("a whpk_ key only checks signatures; sign with the whsk_ key of the pair.", Exit.BAD_INPUT)
    if not keys:
        raise Failure(
            "the secret of your worker is needed to sign: give it by --secret, or HURLBAT_SIGNING_SECRET.",
            Exit.BAD_INPUT,
        )
    return keys


def _charged(one: Mapping[str, Any]) -> str:
    return {None: "-", True: "yes", False: "no"}[one["charged"]]


def _print(one: Mapping[str, Any]) -> None:
    typer.echo(f"{one['task']}  {one['run_id']}  attempt {one['attempt']}")
    print_rows(
        [
            ("state", one["state"]),
            ("charged", _charged(one)),
            ("worker", one["worker"] or "none"),
            ("started", one["started_at"] or "never"),
            *([("finished", one["finished_at"])] if one["finished_at"] else []),
            *([("took", _timings(one["timings"]))] if one["timings"] else []),
        ]
    )
    typer.echo(wrapped(f"  {printable(one['sentence'])}", 2))
    if one["request"] is None:
        typer.echo("\nNothing is kept of what was sent.")
    else:
        _print_request(one["request"])
    if one["response"] is not None:
        _print_response(one["response"])


def _print_request(request: Mapping[str, Any]) -> None:
    runs = "" if request["runs"] == 1 else f", with {request['runs'] - 1} other runs"
    typer.echo(f"\n{request['method']} {printable(request['url'])}   ({request['bytes']} bytes{runs})")
    for name, value in request["headers"].items():
        typer.echo(printable(f"  {name}: {value}"))
    typer.echo("")
    typer.echo(json.dumps(request["body"], indent=2))


def _print_response(response: Mapping[str, Any]) -> None:
    cut = ", of which this is the beginning" if response["cut"] else ""
    typer.echo(f"\n{response['status']}   ({response['bytes']} bytes{cut})")
    for name, value in response["headers"].items():
        typer.echo(printable(f"  {name}: {value}"))
    typer.echo("")
    typer.echo(_readable(response))


def _readable(response: Mapping[str, Any]) -> str:
    """Return the body of an answer; JSON, such as of a problem, with a line for each member."""
    text = printable(response["body"]).rstrip()
    if not _JSON.fullmatch(response["headers"].get("content-type", "")) or response["cut"]:
        return text
    try:
        lines = json.dumps(json.loads(text), indent=2, ensure_ascii=False).split("\n")
    except ValueError:
        return text
    return "\n".join(wrapped(line, len(line) - len(line.lstrip()) + 2) for line in lines)


def _once(sentences: Sequence[str]) -> list[str]:
    """Return sentences for one below the other, without those that only say again what stands above."""
    return ["The same." if before == one else one for before, one in pairwise(["", *sentences])]


def _timings(timings: Mapping[str, Any]) -> str:
    steps = [f"{name} {timings[name]:.3f} s" for name in ("dns", "connect", "tls", "first_byte") if timings[name]]
    if timings["reused"]:
        steps.insert(0, "on a connection that was open")
    total = "it goes on" if timings["total"] is None else f"{timings['total']:.3f} s"
    return total + (f" ({', '.join(steps)})" if steps else "")
