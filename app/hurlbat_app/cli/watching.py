"""`hurlbat runs watch`: tell what happens to a run while it happens."""

import json
import time
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url
from hurlbat_app.cli.show import FINAL, print_moment, print_run_end
from hurlbat_app.demo.story import moment

AGAIN_SECONDS = 1.0
MOST_FAILURES = 30
"""How often in a row the server may not be reached before that is the end of it."""


class Event(NamedTuple):
    """A server-sent event; `data` is parsed."""

    id: int | None
    kind: str
    data: Any


def watch_run(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Tell what happens to a run while it happens, until it has ended.

    It goes on where it was when the connection is lost. With --json each entry of the timeline is a line, and the run
    is the last. The status is 0 for a completed run, and 1 for one that ended otherwise.
    """
    remote = Remote(url, token)
    path = f"/runs/{quote(run_id, safe='')}"
    run: dict[str, Any] = remote.get(path).json()
    if not as_json:
        typer.echo(f"{run['task']}  {run['id']}")
    last: dict[str, Any] | None = None
    for event in _followed(remote, f"{path}/events"):
        if event.kind == "end":
            run = event.data
        if last is not None:
            _print(last, run, as_json)
        last = None if event.kind == "end" else event.data
        if last is not None and last["kind"] not in FINAL:  # what it came to is said with the end
            _print(last, run, as_json)
            last = None
    if as_json:
        typer.echo(json.dumps(run))
    else:
        print_run_end(run)
    if run["state"] != "completed":
        raise typer.Exit(Exit.REFUSED)


def _print(entry: dict[str, Any], run: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(entry))
        return
    print_moment(moment(entry, run))


def _followed(remote: Remote, path: str) -> Iterator[Event]:
    """Yield the events of a run up to its end, over as many connections as it takes."""
    after, failures, over = 0, 0, False
    while not over:
        try:
            with remote.stream(path, {"last-event-id": str(after)}) as lines:
                for event in events(lines):
                    after, failures = event.id or after, 0
                    over = event.kind == "end"
                    yield event
        except Failure as failure:
            failures += 1
            if failure.status is not Exit.NOT_REACHED or failures > MOST_FAILURES:
                raise
        if not over:
            time.sleep(AGAIN_SECONDS)


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a stream; one that was cut short is none."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            fields.setdefault(name, []).append(value.removeprefix(" "))
        elif not line and "data" in fields:
            given = fields.get("id", [""])[-1]
            kind = fields.get("event", ["message"])[-1]
            yield Event(int(given) if given.isdigit() else None, kind, json.loads("\n".join(fields["data"])))
            fields = {}
