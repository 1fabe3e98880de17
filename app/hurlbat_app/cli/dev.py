"""`hurlbat dev`: a server for development. Workers on this machine are allowed, and watched."""

import asyncio
import os
import re
import secrets
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from hurlbat.errors import SecretInvalid
from hurlbat.signing import check_key, new_secret
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.serve import read_settings, say, say_exports, serve_with
from hurlbat_dispatcher import Engine, Problem, Settings, Worker, WorkerSpec, WorkerState

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
LOOK_SECONDS = 0.5
"""How often a worker that was away is looked for."""
PROVE_SECONDS = 2.0
"""How often a worker that is there but not ready is proved again."""
SYNC_SECONDS = 10.0
"""How often a ready worker is asked for its tasks; it may have been reloaded."""


def dev(
    worker: Annotated[
        list[str] | None, typer.Option(metavar="URL", help="A worker to register and watch. Repeatable.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 is a free one.  [env var: HURLBAT_PORT]")] = None,
    database: Annotated[str | None, typer.Option(help="URL of the database.  [env var: HURLBAT_DATABASE_URL]")] = None,
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="HURLBAT_SIGNING_SECRET", help="The workers' signing secret; one is made and kept without."
        ),
    ] = None,
) -> None:
    """Run a server for development, on this machine only.

    Workers on loopback addresses are allowed and may use plain http. Each --worker is registered, proved when it
    answers, and asked for its tasks again when it comes back or changes.
    """
    settings = read_settings(host="127.0.0.1", port=port, database_url=database)
    networks = (*settings.allowed_networks, *LOOPBACK)
    settings = settings.model_copy(update={"allowed_networks": networks})
    given = _first_key(secret)
    exports = {}
    if settings.api_token is None:
        exports["HURLBAT_TOKEN"] = _kept(settings, "token", lambda: secrets.token_urlsafe(24))
        settings = settings.model_copy(update={"api_token": SecretStr(exports["HURLBAT_TOKEN"])})
    if worker and given is None:
        exports["HURLBAT_SIGNING_SECRET"] = _kept(settings, "secret", new_secret)
    signing = given or exports.get("HURLBAT_SIGNING_SECRET", "")
    watches = [_Watch(url, signing) for url in worker or []]

    async def beside(engine: Engine) -> None:
        say(f"Hurlbat listens on {engine.settings.base_url}, for development")
        say_exports("What the commands and the workers need:", HURLBAT_URL=engine.settings.base_url, **exports)
        async with asyncio.TaskGroup() as group:
            for watch in watches:
                group.create_task(watch.run(engine))

    serve_with(settings, beside)


class _Watch:
    """One worker, registered and kept in step with what it serves."""

    def __init__(self, url: str, secret: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            sentence = f"--worker takes a URL such as http://127.0.0.1:8000/hurlbat/, and {url!r} is none."
            raise Failure(sentence, Exit.BAD_INPUT)
        self._url = url
        self._secret = secret
        self._address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self.name = re.sub(r"[^A-Za-z0-9_.:-]", "-", parts.netloc)[:128]
        """What the worker would call itself."""
        self._told = ""

    async def run(self, engine: Engine) -> None:
        """Register the worker, then prove it whenever that may change something."""
        try:
            registered = await engine.register_worker(WorkerSpec(name=self.name, url=self._url, secret=self._secret))
        except Problem as problem:
            say(f"worker {self._url} cannot be registered: {problem.detail}")
            return
        self._tell(registered.worker)
        clock = asyncio.get_running_loop().time
        was_here, prove_at = False, 0.0
        while True:
            is_here = await self._answers()
            if is_here and (not was_here or clock() >= prove_at):
                worker = await self._sync(engine)
                ready = worker is not None and worker.state is WorkerState.READY
                prove_at = clock() + (SYNC_SECONDS if ready else PROVE_SECONDS)
            was_here = is_here
            await asyncio.sleep(LOOK_SECONDS)

    async def _sync(self, engine: Engine) -> Worker | None:
        try:
            worker = await engine.sync_worker(self.name)
        except Problem as problem:
            say(f"worker {self.name}: {problem.detail}")
            return None
        self._tell(worker)
        return worker

    def _tell(self, worker: Worker) -> None:
        tasks = ", ".join(worker.tasks) or "no tasks"
        text = worker.problem or f"serves {tasks}"
        told = f"worker {self.name} at {self._url} is {worker.state}: {text}"
        if told != self._told:
            self._told = told
            say(told)

    async def _answers(self) -> bool:
        """Tell whether something listens there; asks nothing, so that the worker has nothing to log."""
        try:
            async with asyncio.timeout(2):
                _, writer = await asyncio.open_connection(*self._address)
        except OSError:
            return False
        writer.close()
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
