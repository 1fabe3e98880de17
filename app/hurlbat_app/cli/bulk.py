"""What `hurlbat runs cancel` and `hurlbat runs replay` do to many runs: ask first, and show how far it is."""

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import Remote

POLL_SECONDS: Final = 0.2
COUNT_SECONDS: Final = 300.0
"""How long the server may take to count the runs."""
AWAY_SECONDS: Final = 60.0
"""How long the server may be away while it is at it: it goes on after a restart."""

OneRun = Annotated[
    str | None, typer.Argument(metavar="RUN", help="The run's id. Or say by --task, --state, … which runs.")
]
OfTask = Annotated[str | None, typer.Option("--task", help="All runs of this task.")]
InState = Annotated[
    list[str] | None, typer.Option("--state", metavar="STATE", help="All runs in this state; several times for more.")
]
After = Annotated[str | None, typer.Option("--created-after", help="Created then or later: 2027-01-31T12:00:00Z.")]
Before = Annotated[str | None, typer.Option("--created-before", help="Created before: 2027-01-31T12:00:00Z.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many runs it would be.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")]

_DONE: Final = {"cancel": "cancelled", "replay": "replayed"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be done (`cancel` or `replay`) to which runs, and how."""

    kind: str
    filter: Mapping[str, Any]
    reason: str | None
    dry_run: bool
    yes: bool
    as_json: bool

    @property
    def body(self) -> dict[str, Any]:
        """Return what the server is asked."""
        return {"filter": self.filter} | ({} if self.reason is None else {"reason": self.reason})


def filter_of(
    run_id: str | None, task: str | None, state: list[str] | None, after: str | None, before: str | None
) -> dict[str, Any] | None:
    """Return which runs are meant; None for the one that is named. Raises `Failure` for both, and for neither."""
    said = {"task": task, "state": state or None, "created_after": after, "created_before": before}
    found = {name: value for name, value in said.items() if value is not None}
    if run_id is not None and found:
        raise Failure("give a run's id, or say by options which runs are meant; not both.", Exit.BAD_INPUT)
    if run_id is None and not found:
        raise Failure(
            "give a run's id, or say which runs: --task, --state, --created-after, --created-before.", Exit.BAD_INPUT
        )
    return found or None


def do_to_many(remote: Remote, asked: Asked) -> None:
    """Do it to all runs that are meant, after a question, and show how far it is."""
    path = f"/runs/{asked.kind}"
    count: int = remote.post(path, json.dumps(asked.body | {"dry_run": True}), timeout=COUNT_SECONDS).json()["matched"]
    if asked.dry_run:
        typer.echo(json.dumps({"matched": count}) if asked.as_json else f"{_runs(count)} would be {_DONE[asked.kind]}.")
        return
    if not count and not asked.as_json:
        typer.echo("There are no such runs.")
        return
    if not asked.yes:
        _ask(asked, count)
    found = _until_done(remote, asked, remote.post(path, json.dumps(asked.body), timeout=COUNT_SECONDS).json())
    typer.echo(json.dumps(found) if asked.as_json else _told(found))


def _ask(asked: Asked, count: int) -> None:
    if asked.as_json or not sys.stdin.isatty():
        raise Failure(
            f"{_runs(count)} would be {_DONE[asked.kind]}; say --yes to do it without being asked.", Exit.BAD_INPUT
        )
    typer.confirm(f"{asked.kind.capitalize()} {_runs(count)}?", abort=True)


def _until_done(remote: Remote, asked: Asked, found: dict[str, Any]) -> dict[str, Any]:
    path, console = f"/operations/{found['id']}", Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, disable=asked.as_json or not console.is_terminal) as progress:
            bar = progress.add_task(_DONE[asked.kind], total=found["matched"])
            heard = time.monotonic()
            while found["state"] == "running":
                time.sleep(POLL_SECONDS)
                try:
                    found, heard = remote.get(path).json(), time.monotonic()
                except Failure as failure:
                    if failure.status is Exit.NOT_ALLOWED or time.monotonic() - heard > AWAY_SECONDS:
                        raise
                progress.update(bar, completed=found["done"] + found["skipped"], total=found["matched"])
    except KeyboardInterrupt:
        typer.echo(f"The server goes on with it; {path} says how far it is.", err=True)
        raise
    return found


def _told(found: Mapping[str, Any]) -> str:
    said = f"{_runs(found['done'])} {'is' if found['done'] == 1 else 'are'} {_DONE[found['kind']]}"
    return f"{said}, {found['skipped']:,} skipped." if found["skipped"] else f"{said}."


def _runs(count: int) -> str:
    return f"{count:,} run{'' if count == 1 else 's'}"
