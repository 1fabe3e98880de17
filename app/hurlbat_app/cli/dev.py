"""`hurlbat dev`: a server for development. Workers on this machine are allowed and watched; an app is run beside it."""

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr

from hurlbat.errors import SecretInvalid
from hurlbat.signing import check_key, new_secret
from hurlbat_app.cli.environment import environment
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.serve import read_settings, serve_with
from hurlbat_app.dev.finding import NoApp, no_module, parts_of
from hurlbat_app.dev.runlines import RunLines
from hurlbat_app.dev.running import DevApp, places_of, url_of
from hurlbat_app.dev.screen import Screen
from hurlbat_app.dev.voice import Voice
from hurlbat_app.dev.watching import Watch
from hurlbat_app.local import free_port
from hurlbat_dispatcher import Engine, Settings

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
APP_PORT = 8000
DRAIN_SECONDS = 5.0
"""How long a stop waits for answers of an app that stops as well, unless HURLBAT_DRAIN_SECONDS says otherwise."""


def dev(
    app: Annotated[
        str | None,
        typer.Option(metavar="MODULE:NAME", help="An ASGI or WSGI app to run, with reload, and to register."),
    ] = None,
    path: Annotated[
        str | None, typer.Option("--path", metavar="PATH", help="Where the app serves Hurlbat, if that is not found.")
    ] = None,
    app_port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help=f"Port of the app.  [default: {APP_PORT}, or a free one]"),
    ] = None,
    logs: Annotated[bool, typer.Option("--logs", help="Print what tasks log, and every start.")] = False,
    reload: Annotated[bool, typer.Option(help="Start the app again when a Python file here changes.")] = True,
    worker: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="A worker that runs elsewhere, to register and watch. Repeatable."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 is a free one.  [env var: HURLBAT_PORT]")] = None,
    database: Annotated[str | None, typer.Option(help="URL of the database.  [env var: HURLBAT_DATABASE_URL]")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="HURLBAT_SIGNING_SECRET",
            help="The workers' signing secret; without it one is made and kept beside the database.",
        ),
    ] = None,
) -> None:
    """Run a server for development, on this machine only; with --app also the app, and nothing is to be configured.

    Runs are told while they happen. The --app is started again when its files change, and its tasks are listed. Workers
    on loopback addresses are allowed and may use plain http. Each --worker is registered, proved when it answers, and
    asked for its tasks again when it comes back or changes.
    """
    if app is not None:
        _check_app(app, path)
    elif (path, app_port, reload) != (None, None, True):
        sentence = "--path, --app-port and --no-reload say how to run an --app, and none is given."
        raise Failure(sentence, Exit.BAD_INPUT)
    settings = read_settings(host="127.0.0.1", port=port, database_url=database)
    settings = settings.model_copy(update={"allowed_networks": (*settings.allowed_networks, *LOOPBACK)})
    given = _first_key(secret)
    exports = {}
    if settings.api_token is None:
        exports["HURLBAT_TOKEN"] = _kept(settings, "token", lambda: secrets.token_urlsafe(24))
        settings = settings.model_copy(update={"api_token": SecretStr(exports["HURLBAT_TOKEN"])})
    if (worker or app) and given is None:
        exports["HURLBAT_SIGNING_SECRET"] = _kept(settings, "secret", new_secret)
    signing = given or exports.get("HURLBAT_SIGNING_SECRET", "")
    settings = settings.model_copy(update=_unless_given(drain_seconds=DRAIN_SECONDS, log_level="warning"))
    screen = Screen()
    watches = [Watch(url, signing, screen) for url in worker or []]
    running = None
    if app is not None:
        running = DevApp(
            app,
            _port_of_app(app_port),
            screen,
            path=path,
            secret=signing,
            token=settings.api_token.get_secret_value() if settings.api_token else "",
            shown={"HURLBAT_TOKEN": exports["HURLBAT_TOKEN"]} if "HURLBAT_TOKEN" in exports else {},
            reload=reload,
        )
    lines = RunLines(screen.say, screen.paint, logs=logs)
    # who says how the log should be gets it as it is
    voice = None if _given("log_level", "log_format") else Voice(screen, {watch.name for watch in watches})
    try:
        serve_with(settings, _Beside(screen, watches, exports, lines, running), voice)
    finally:  # the server may have waited for the app's last answers
        if running is not None:
            running.stop()


class _Beside:
    """What goes on beside the server."""

    def __init__(
        self,
        screen: Screen,
        watches: Sequence[Watch],
        exports: Mapping[str, str],
        lines: RunLines,
        app: DevApp | None,
    ) -> None:
        self._screen = screen
        self._watches = watches
        self._exports = exports
        self._lines = lines
        self._app = app

    async def __call__(self, engine: Engine) -> None:
        """Watch the workers and run the app until cancelled. Raises `Failure` where the app cannot be begun with."""
        self._screen.say(f"Hurlbat listens on {url_of(engine)}, for development")
        self._show(engine)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lines.tell(engine))
                for watch in self._watches:
                    group.create_task(watch.run(engine))
                if self._app is not None:
                    group.create_task(self._app.run(engine))
        except ExceptionGroup as together:
            failures = together.subgroup(Failure)
            if failures is None:
                raise
            raise failures.exceptions[0] from None
        except asyncio.CancelledError:
            seconds = engine.settings.drain_seconds
            self._screen.say(f"stopping; runs may go on for {seconds:g} s, Ctrl-C again stops at once")
            raise

    def _show(self, engine: Engine) -> None:
        """Show what is known before anything answers; an app shows where it is when it is there."""
        if self._app is None:
            self._screen.places(*places_of(engine), *(("worker", watch.url) for watch in self._watches))
        secret = self._exports.get("HURLBAT_SIGNING_SECRET")
        if self._watches and secret is not None:
            self._screen.exports("where the worker runs", {"HURLBAT_SIGNING_SECRET": secret})
        if self._app is None:
            needed = {name: value for name, value in self._exports.items() if name == "HURLBAT_TOKEN"}
            self._screen.exports(
                "in another terminal", {"HURLBAT_URL": url_of(engine), **needed}, "hurlbat workers list"
            )
        if self._watches or self._app is None:
            self._screen.say("")


def _given(*names: str) -> bool:
    """Tell whether one of these settings was given."""
    given = environment()
    return any(f"HURLBAT_{name.upper()}" in given for name in names)


def _unless_given(**values: Any) -> dict[str, Any]:
    """Return those settings that nobody has given."""
    return {name: value for name, value in values.items() if not _given(name)}


def _check_app(app: str, path: str | None) -> None:
    """Look at the app's name before anything is begun. Raises `Failure`."""
    if path is not None and not path.startswith("/"):
        sentence = f"--path takes a path such as /hurlbat/, and {path!r} does not begin with a slash."
        raise Failure(sentence, Exit.BAD_INPUT)
    try:
        top = parts_of(app)[0].partition(".")[0]
    except NoApp as error:
        raise Failure(f"{error}.", Exit.BAD_INPUT) from None
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = find_spec(top)
    finally:
        del sys.path[0]
    if found is None:
        raise Failure(f"{no_module(top)}.", Exit.BAD_INPUT)


def _port_of_app(wanted: int | None) -> int:
    """Return the port that was asked for, else the usual one, or a free one where that is taken. Raises `Failure`."""
    if wanted:
        if not _is_free(wanted):
            raise Failure(f"port {wanted} is in use; stop what listens there, or leave --app-port out for a free one.")
        return wanted
    return APP_PORT if wanted is None and _is_free(APP_PORT) else free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _first_key(secret: str | None) -> str | None:
    """Return the newest of the secrets that were given, or None. Raises `Failure`."""
    listed = [key.strip() for key in (secret or "").split(",") if key.strip()]
    for key in listed:
        try:
            check_key(key)
        except SecretInvalid as error:
            raise Failure(f"--secret (HURLBAT_SIGNING_SECRET): {error}.", Exit.BAD_INPUT) from None
    return listed[0] if listed else None


def _kept(settings: Settings, what: str, make: Callable[[], str]) -> str:
    """Return the token or secret of this database's development server, kept in a file beside it."""
    file = Path(f"{settings.database_file or 'hurlbat-dev'}-{what}")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    except OSError as error:
        raise Failure(f"{file} cannot be written: {error.strerror}.") from error
    made = make()
    with open(descriptor, "w") as new:
        new.write(made)
    return made
