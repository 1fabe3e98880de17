"""The commands. Each one's module is imported when it is called, so that `hurlbat --help` is quick."""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from hurlbat_app.cli.failure import Exit, Failure

COMMANDS = {
    "serve": ("hurlbat_app.cli.serve:serve", "Run the server."),
    "dev": ("hurlbat_app.cli.dev:dev", "Run a server for development, on this machine only."),
    "demo": (
        "hurlbat_app.demo.command:demo",
        "Start a server and a worker, run a few tasks and show what happened.",
    ),
    "run": ("hurlbat_app.cli.runs:run", "Submit a run."),
    "runs": ("hurlbat_app.cli.runs:runs", "List, show, watch, move, cancel and replay runs."),
    "attempts": (
        "hurlbat_app.cli.attempts:attempts",
        "List and show what was sent to workers and what came back, and make curl commands of it.",
    ),
    "workers": (
        "hurlbat_app.cli.workers:workers",
        "Add, change, list, prove, pause and remove workers, and rotate their secrets.",
    ),
    "tasks": ("hurlbat_app.cli.tasks:tasks", "List, show, pause and resume the tasks that workers serve."),
    "workflows": ("hurlbat_app.cli.workflows:workflows", "List, show, set and delete workflows."),
    "events": ("hurlbat_app.cli.events:events", "Push, list, show and replay events."),
    "schedules": (
        "hurlbat_app.cli.schedules:schedules",
        "Make, change, list, pause, trigger and delete schedules, and ask for their times.",
    ),
    "rate-limits": (
        "hurlbat_app.cli.rate_limits:rate_limits",
        "Set, list, show, delete, pause and resume rate limits.",
    ),
    "webhooks": ("hurlbat_app.cli.webhooks:webhooks", "Set, list, show and delete incoming webhooks."),
    "expressions": ("hurlbat_app.cli.expressions:expressions", "Try the expressions of a task's policy."),
    "migrate": ("hurlbat_app.cli.serve:migrate", "Bring the database's schema up to this version."),
    "doctor": ("hurlbat_app.cli.doctor:doctor", "Look over a live database, without disturbing it."),
    "conform": ("hurlbat_app.cli.conform:conform_command", "Test a worker's endpoint against the push protocol."),
    "bench": ("hurlbat_app.bench.command:bench", "Measure throughput (submit to stored result) and latency."),
}
"""Where each command is, and what it is for."""


MARKUP = None
"""Help is plain text: as markup, what stands in brackets would be dropped, such as the variable that an option is."""


class Later(TyperCommand):
    """A command that is imported when it is called. A group of commands works as well."""

    def __init__(self, name: str, place: str, help: str) -> None:
        super().__init__(name, help=help, short_help=help)
        self._place = place

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the arguments as the command itself would."""
        return load(self._place).make_context(*args, **kwargs)


class Commands(TyperGroup):
    """All commands, in the order of the table."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: Later(name, *told) for name, told in COMMANDS.items()}


def load(place: str) -> Any:
    """Return the command, or group of commands, at `module:name`."""
    module, _, name = place.partition(":")
    found = getattr(import_module(module), name)
    if not isinstance(found, typer.Typer):
        alone = typer.Typer(add_completion=False)
        alone.command(name)(found)
        found = alone
    found.rich_markup_mode = MARKUP
    return _with_whole_sentences(typer.main.get_command(found))


def _with_whole_sentences(command: Any) -> Any:
    """Let a group's list say of each command what it is for; what is not called short is cut where it is long."""
    for one in getattr(command, "commands", {}).values():
        one.short_help = " ".join((one.help or "").partition("\n\n")[0].split())
        _with_whole_sentences(one)
    return command


app = typer.Typer(
    name="hurlbat", cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=MARKUP
)


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"hurlbat {version('hurlbat')}")
        raise typer.Exit


@app.callback()
def hurlbat(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say the version and leave.")
    ] = False,
) -> None:
    """Durable background tasks, pushed over signed HTTP to the web app you already have."""


def run() -> None:
    """Be the command `hurlbat`."""
    try:
        app()
    except Failure as failure:
        print(f"hurlbat: {failure}", file=sys.stderr)
        sys.exit(failure.status)
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)


if __name__ == "__main__":
    run()
