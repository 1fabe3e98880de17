"""`hurlbat doctor`."""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.serve import read_settings
from hurlbat_dispatcher import CannotOpen, DatabaseTrouble, Examination, Severity, examine

AGREES = 0.1
"""Seconds of a difference between clocks that says nothing."""


def doctor(
    database: Annotated[
        str | None,
        typer.Option("--database", "--database-url", help="URL of the database.  [env var: HURLBAT_DATABASE_URL]"),
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="Runs of a kind to look at, of a large database.")] = 20_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look over a live database, without disturbing it, for what must not be.

    Leaves with 0 when no promise is broken (there may be warnings), 1 when one is, 2 when it cannot look.
    """
    settings = read_settings(database_url=database)
    try:
        found = asyncio.run(examine(settings, most=most))
    except (CannotOpen, DatabaseTrouble) as error:
        raise Failure(f"{error}.", Exit.BAD_INPUT) from error
    if as_json:
        typer.echo(json.dumps(asdict(found) | {"violations": _count(found, Severity.VIOLATION)}))
    else:
        _print(found)
    if _count(found, Severity.VIOLATION):
        raise typer.Exit(Exit.REFUSED)


def _count(found: Examination, severity: Severity) -> int:
    return sum(finding.severity is severity for finding in found.findings)


def _print(found: Examination) -> None:
    scope = "all of them" if found.whole else "the newest and oldest, and what is under way"
    rows = [
        ("database", f"{found.database}, schema {found.schema}"),
        ("clock", _clock(found.clock_ahead)),
        ("servers", _servers(found)),
        ("runs", f"{found.runs} looked at, {scope}; {found.running} are running"),
    ]
    for name, text in rows:
        typer.echo(f"{name:<10} {text}")
    for sentence in found.waits:
        typer.echo(f"{'':<10} {sentence}")
    for finding in found.findings:
        typer.echo(f"\n{finding.severity}: {_sentence(finding.sentence)}")
    violations, warnings = (_count(found, severity) for severity in Severity)
    typer.echo(f"\n{_verdict(violations, warnings)}")


def _clock(ahead: float) -> str:
    if abs(ahead) < AGREES:
        return "agrees with this host's"
    return f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this host's"


def _servers(found: Examination) -> str:
    alive = [server for server in found.servers if server.alive]
    owners = [server.id for server in found.servers if server.owner]
    if not found.servers:
        return "none"
    starts = f"{owners[0]} starts the runs, in epoch {found.epoch}" if owners else "none of them starts runs"
    return f"{len(alive)} of {len(found.servers)} alive; {starts}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _verdict(violations: int, warnings: int) -> str:
    broken = f"{violations} findings break promises"
    if violations < 2:
        broken = "1 finding breaks a promise" if violations else "No promise is broken"
    return f"{broken}; {warnings or 'no'} warning{'' if warnings == 1 else 's'}."
