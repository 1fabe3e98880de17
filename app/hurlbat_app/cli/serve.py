"""`hurlbat serve` and `hurlbat migrate`."""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from hurlbat_app.cli.environment import environment
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.misspelt import unknown_variables
from hurlbat_app.logs import configure_logs
from hurlbat_app.server import Beside, CannotListen, listen
from hurlbat_app.server import serve as serve_until_stopped
from hurlbat_dispatcher import CannotOpen, DatabaseTrouble, Engine, Settings, SettingsError, WrongKey, load_settings
from hurlbat_dispatcher import migrate as bring_up_to_date

_log = logging.getLogger("hurlbat.server")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [env var: HURLBAT_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 is a free one.  [env var: HURLBAT_PORT]")] = None,
    database: Annotated[str | None, typer.Option(help="URL of the database.  [env var: HURLBAT_DATABASE_URL]")] = None,
) -> None:
    """Run the server.

    All settings are HURLBAT_… variables, from the environment or a .env file. SIGTERM drains, a second one is quick.
    """
    serve_with(read_settings(host=host, port=port, database_url=database), _announce)


def migrate(
    database: Annotated[str | None, typer.Option(help="URL of the database.  [env var: HURLBAT_DATABASE_URL]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Bring the database's schema up to this version."""
    settings = read_settings(database_url=database)
    _begin_to_log(settings)
    run_loop(bring_up_to_date(settings))
    typer.echo('{"migrated":true}' if as_json else "The schema is up to date.")


def read_settings(**overrides: Any) -> Settings:
    """Return the settings; an override that is None counts as not given. Raises `Failure` with all mistakes."""
    try:
        return load_settings(**{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        sentences = [*error.problems, *unknown_variables(environment())]
        raise Failure("\n         ".join(sentences), Exit.BAD_INPUT) from None


def serve_with(settings: Settings, beside: Beside, log: logging.Handler | None = None) -> None:
    """Serve until a signal comes; `log` takes what is logged. Raises `Failure` where that cannot be."""
    _begin_to_log(settings, log)
    try:
        listening, settings = listen(settings)
    except CannotListen as error:
        raise Failure(f"{error}.") from error
    with listening:
        run_loop(serve_until_stopped(settings, listening, beside))


def _begin_to_log(settings: Settings, handler: logging.Handler | None = None) -> None:
    configure_logs(settings, handler)
    for sentence in unknown_variables(environment()):
        _log.warning(sentence)


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on uvloop where there is one."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            runner.run(work)
        except (CannotOpen, WrongKey, DatabaseTrouble) as error:
            raise Failure(f"{error}.") from error


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # Windows has none
        return None
    return uvloop.new_event_loop


async def _announce(engine: Engine) -> None:
    settings = engine.settings
    reached = f", and is reached at {settings.external_url}" if settings.external_url else ""
    say(f"Hurlbat listens on {settings.local_url}{reached}")
    if engine.first_token is not None:
        say_exports(
            "The API token, made for this database and shown this once:",
            HURLBAT_URL=settings.base_url,
            HURLBAT_TOKEN=engine.first_token,
        )
    if settings.database_file is None and settings.external_url is None:
        _log.warning(
            "HURLBAT_EXTERNAL_URL is not set, so workers report late results to %s, to this server alone; "
            "set it to an address that reaches any server of this database",
            settings.base_url,
        )


def say_exports(sentence: str, **variables: str) -> None:
    """Tell the variables that the commands and the apps need."""
    lines = "\n".join(f"    export {name}={value}" for name, value in variables.items())
    say(f"\n  {sentence}\n\n{lines}\n\n  Then try `hurlbat workers list`.\n")


def say(text: str) -> None:
    """Tell the user something that is no log line, in one write, so that no log line falls into it."""
    with contextlib.suppress(OSError):  # nobody may be listening, and the server goes on
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
