"""`hurlbat expressions`."""

import json
from typing import Annotated, Any

import typer

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.payload import read_json
from hurlbat_app.cli.remote import AsJson, Remote, Token, Url

expressions = typer.Typer(help="Try the expressions of a task's policy.", no_args_is_help=True, add_completion=False)


@expressions.callback()
def _expressions() -> None:
    """Try the expressions of a task's policy."""


@expressions.command("check")
def check(
    expression: Annotated[
        str,
        typer.Argument(metavar="EXPRESSION", help="The expression, such as input.user_id; in quotes for the shell."),
    ],
    input: Annotated[
        str | None, typer.Option("--input", "-i", help="JSON to try it on, or @file, or - for standard input.")
    ] = None,
    metadata: Annotated[str | None, typer.Option(help="A JSON object, or @file.")] = None,
    run: Annotated[str | None, typer.Option(help="A JSON object with members of `run`, or @file.")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON: the payload of a filter, or @file.")] = None,
    event: Annotated[str | None, typer.Option(help="A JSON object with members of `event`, or @file.")] = None,
    kind: Annotated[str | None, typer.Option(help="What it is for: key, number, duration or filter.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    token: Token = None,
) -> None:
    """Compile an expression, and with --input say what comes of it. Leaves with 1 where it is wrong, or fails."""
    body = [f'"expression": {json.dumps(expression)}']
    given = {"input": input, "metadata": metadata, "run": run, "payload": payload, "event": event}
    for name, text in given.items():
        if text is not None:
            body.append(f'"{name}": {read_json(text, f"--{name}")}')
    if kind is not None:
        body.append(f'"kind": {json.dumps(kind)}')
    response = Remote(url, token).post("/expressions/check", f"{{{', '.join(body)}}}")
    said: dict[str, Any] = response.json()
    error = said["error"]
    if as_json:
        typer.echo(response.text)
        if error is not None:
            raise typer.Exit(Exit.REFUSED)
        return
    if error is not None:
        raise Failure(_pointed(expression, error))
    if not said["evaluated"]:
        typer.echo(f"The expression is good; give --input to see what comes of it (type: {said['type']}).")
        return
    typer.echo(f"{json.dumps(said['value'], ensure_ascii=False)} ({said['type']})")
    if kind == "key":
        typer.echo("no key: the rule does not apply" if said["key"] is None else f"key: {said['key']}")


def _pointed(expression: str, error: dict[str, Any]) -> str:
    """Say what is wrong, and point to where."""
    sentence = f"{error['message']} ({error['code']})."
    position = error["position"]
    if position is None or "\n" in expression or not expression.isprintable():
        return sentence
    return f"{sentence}\n  {expression}\n  {' ' * (position - 1)}^"
