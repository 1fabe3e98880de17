"""`hurlbat conform`."""

import json
import re
import sys
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.status import Status

from hurlbat.errors import ConfigError
from hurlbat.settings import read_settings
from hurlbat.wire import NAME_PATTERN
from hurlbat_app.cli.environment import environment
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.payload import read_json, read_pairs
from hurlbat_app.conform import CHECKS, GROUPS, Audience, chosen, conform, listed, told
from hurlbat_app.conform.checks import Check, Finding

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_SECRETS = ("HURLBAT_SIGNING_SECRET", "HURLBAT_SIGNING_SECRETS")


class Mode(StrEnum):
    """What kind of worker it is."""

    PROTOCOL = "protocol"
    PLAIN = "plain"


def conform_command(
    url: Annotated[str | None, typer.Argument(metavar="URL", help="Where the worker takes deliveries.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            help="Its signing secret; several with commas, newest first.  [env var: HURLBAT_SIGNING_SECRET, "
            "HURLBAT_SIGNING_SECRETS]"
        ),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="What kind of worker it is.")] = Mode.PROTOCOL,
    worker: Annotated[str, typer.Option(help="What it is called: its HURLBAT_WORKER, if it has one.")] = "conform",
    task: Annotated[str | None, typer.Option(help="A task of its own, for the checks that need any.")] = None,
    input: Annotated[str | None, typer.Option(help="That task's input: JSON, @file, or - for standard input.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Sent with every request. Repeatable.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.5, max=300, help="Seconds that it gets for an answer.")] = 10.0,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Make only these: a group or a check. Repeatable.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="Leave these out: a group or a check. Repeatable.")
    ] = None,
    list_them: Annotated[bool, typer.Option("--list", help="Only tell all checks, and why they matter.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Test a worker's endpoint against the push protocol: signed as a server would, and worse.

    It needs no server. Leaves with 0 when nothing failed, 1 when something did, 2 when it cannot look.
    """
    wanted, unwanted = _named(only, "--only"), _named(skip, "--skip")
    if list_them:
        _list([check for check in CHECKS if any(chosen(check, one, wanted, unwanted) for one in check.modes)], as_json)
        return
    if url is None:
        raise Failure("give the URL of a worker, or --list to see what is looked at.", Exit.BAD_INPUT)
    if input is not None and task is None:
        raise Failure("--input is the input of a task; name it with --task.", Exit.BAD_INPUT)
    keys = _keys(secret)
    with _Progress(quiet=as_json) as progress:
        report = conform(
            _url(url),
            keys,
            mode=mode.value,
            worker=_name(worker, "--worker"),
            task=None if task is None else _name(task, "--task"),
            input="null" if input is None else read_json(input, "--input"),
            headers=_headers(header),
            timeout=timeout,
            only=wanted,
            skip=unwanted,
            audience=progress,
        )
    typer.echo(json.dumps(report.as_json()) if as_json else f"\n{report.summary}")
    if not report.ok:
        raise typer.Exit(Exit.REFUSED)


class _Progress(Audience):
    """Tells what came of each check when it is there; on a terminal also which one is under way."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._status = Status("", console=Console(stderr=True)) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._clear()

    def begins(self, check: Check) -> None:
        """Show which check begins."""
        if self._status is not None:
            self._status.update(check.id)
            self._status.start()

    def found(self, finding: Finding) -> None:
        """Tell what came of a check."""
        if not self._quiet:
            self._clear()
            for line in told(finding):
                typer.echo(line)

    def _clear(self) -> None:
        if self._status is not None:
            self._status.stop()


def _named(listed: list[str] | None, option: str) -> tuple[str, ...]:
    known = {*GROUPS, *(check.id for check in CHECKS)}
    for name in listed or ():
        if name not in known:
            raise Failure(
                f"{option} takes a group ({', '.join(GROUPS)}) or a check, and {name!r} is none.", Exit.BAD_INPUT
            )
    return tuple(listed or ())


def _keys(secret: str | None) -> tuple[str, ...]:
    known = environment()
    try:
        keys = read_settings({"signing_secret": secret}, {name: known[name] for name in _SECRETS if name in known}).keys
    except ConfigError as error:
        raise Failure(f"{str(error).replace('signing_secret=', '--secret')}.", Exit.BAD_INPUT) from error
    if not keys:
        raise Failure("give the worker's signing secret: --secret, or HURLBAT_SIGNING_SECRET.", Exit.BAD_INPUT)
    if any(key.startswith("whpk_") for key in keys):
        raise Failure("a whpk_ key can only verify; give the whsk_ key of the pair.", Exit.BAD_INPUT)
    return keys


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Failure(f"{url!r} is not a URL with http:// or https:// and a host.", Exit.BAD_INPUT)
    return url


def _name(name: str, option: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name):
        raise Failure(f"{option} {name!r} is not a name of 1 to 128 letters, digits and _ . : -", Exit.BAD_INPUT)
    return name


def _headers(listed: list[str] | None) -> dict[str, str] | None:
    pairs = read_pairs(listed, "--header")
    for name, value in (pairs or {}).items():
        if not _TOKEN.fullmatch(name):
            raise Failure(f"--header {name!r} is no name of a header.", Exit.BAD_INPUT)
        if not _VALUE.fullmatch(value):
            raise Failure(f"the value of --header {name} has characters that no header may have.", Exit.BAD_INPUT)
    return pairs


def _list(checks: list[Check], as_json: bool) -> None:
    if as_json:
        rows = [
            {"check": check.id, "group": check.group, "modes": sorted(check.modes), "says": check.says}
            | {"why": check.why, "fix": check.fix}
            for check in checks
        ]
        typer.echo(json.dumps({"checks": rows}))
        return
    for check in checks:
        for line in listed(check):
            typer.echo(line)
