"""Run the app beside the server: start it, register it, start it again when a file changes, and end it last.

The app listens by itself, and not on a socket that is kept open for it: while it is away, because it starts again or
because there is a mistake in it, connections are refused. Then runs wait, uncharged. In the backlog of an open socket
they would have been sent, and their attempts would be lost.
"""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from watchfiles import PythonFilter, awatch

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.dev.placing import NotPlaced, Place, place
from hurlbat_app.dev.process import AppProcess
from hurlbat_app.dev.screen import Screen, gist
from hurlbat_app.dev.words import Found, Refused, Serving
from hurlbat_dispatcher import Engine, Problem, Worker, WorkerSpec, WorkerState

GRACE_SECONDS: Final = 2.0
"""How long running tasks may go on when the app starts again, unless HURLBAT_GRACE says otherwise."""
PROVE_SECONDS: Final = 2.0
"""How often a worker that is not ready is proved again."""
MOST_FILES: Final = 3
"""Files that are named when they have changed."""


class DevApp:
    """The app that is developed."""

    def __init__(
        self,
        target: str,
        port: int,
        screen: Screen,
        *,
        path: str | None,
        secret: str,
        token: str,
        shown: Mapping[str, str],
        reload: bool,
    ) -> None:
        self._target = target
        self._port = port
        self._screen = screen
        self._path = path
        self._secret = secret
        self._token = token
        self._shown = shown
        self._reload = reload
        self._base = f"http://127.0.0.1:{port}"
        self._grace = GRACE_SECONDS
        self._process: AppProcess | None = None
        self._registered: Place | None = None
        self._name = ""
        self._changed = asyncio.Event()
        self._files: set[str] = set()

    async def run(self, engine: Engine) -> None:
        """Keep the app running until cancelled; it goes on then, so that it can answer what it has. See `stop`.

        Raises `Failure` where it cannot be begun with.
        """
        watching = asyncio.create_task(self._watch()) if self._reload else None
        try:
            first = True
            while True:
                await self._once(engine, first=first)
                first = False
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    def stop(self) -> None:
        """End the app and all that it has started."""
        if self._process is not None:
            self._process.stop(self._grace)

    async def _once(self, engine: Engine, *, first: bool) -> None:
        """Run the app once, until a file changes."""
        process = self._process = AppProcess(self._target, self._port, self._environment(engine))
        living = asyncio.create_task(self._live(engine, process, first=first))
        changing = asyncio.create_task(self._changed.wait())
        try:
            await asyncio.wait({living, changing}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                status = living.result()
                if not self._reload:
                    raise Failure(f"the app has ended, with status {status}.")
                self._screen.note(f"the app has ended, with status {status}; it starts again when a file changes")
                await changing
        finally:
            living.cancel()
            changing.cancel()
            await asyncio.gather(living, changing, return_exceptions=True)
            process.hear_no_more()
        self._changed.clear()
        files, self._files = self._files, set()
        self._screen.note(f"{_listed(files)} changed; the app starts again")
        await asyncio.to_thread(process.stop, self._grace)

    async def _live(self, engine: Engine, process: AppProcess, *, first: bool) -> int:
        """Hear what the app says until it ends; return its status."""
        found: Found | None = None
        placing: asyncio.Task[None] | None = None
        try:
            while (word := await process.word()) is not None:
                match word:
                    case Found():
                        found = word
                        self._grace = found.grace
                    case Serving() if found is not None:
                        placing = asyncio.create_task(self._place(engine, found))
                    case Refused():
                        if word.mistaken and first:
                            raise Failure(f"{word.sentence}.", Exit.BAD_INPUT)
                        self._screen.warn(word.sentence)
            return await process.ended()
        finally:
            if placing is not None:
                placing.cancel()
                await asyncio.gather(placing, return_exceptions=True)

    async def _place(self, engine: Engine, found: Found) -> None:
        """Find the app's worker, and register it until it is ready."""
        self._name = found.names[0] if found.names else self._target
        for url in [url for url in found.servers if url.rstrip("/") != url_of(engine)][:1]:
            self._screen.warn(
                f"the app says itself that its server is {url}: what it submits goes there, not to {url_of(engine)}; "
                "leave url= out of Hurlbat(), so that HURLBAT_URL says it"
            )
        try:
            placed = await place(self._target, self._base, found, self._name, self._path, self._secret)
        except NotPlaced as error:
            self._screen.warn(str(error))
            return
        told = ""
        while True:
            worker, problem = await self._prove(engine, placed)
            if worker is not None and worker.state is WorkerState.READY:
                break
            if gist(problem) != told:
                self._screen.warn(problem)
                told = gist(problem)
            await asyncio.sleep(PROVE_SECONDS)
        self._tell(engine, found, placed)
        await self._warn_of_others(engine, worker)

    async def _prove(self, engine: Engine, placed: Place) -> tuple[Worker | None, str]:
        """Register the worker where it is new or has moved, else prove it; return it, and what is wrong with it."""
        before = self._registered
        try:
            if before is not None and (before.url, before.secret) == (placed.url, placed.secret):
                worker = await engine.sync_worker(self._name)
            else:
                spec = WorkerSpec(name=self._name, url=placed.url, secret=placed.secret)
                worker = (await engine.register_worker(spec)).worker
        except Problem as problem:
            return None, f"the worker {placed.url} cannot be registered: {problem.detail}"
        return worker, f"worker {worker.name} at {placed.url} is {worker.state}: {worker.problem or 'not proved yet'}"

    def _tell(self, engine: Engine, found: Found, placed: Place) -> None:
        """Tell where everything is, or what has changed since that was told."""
        before, self._registered = self._registered, placed
        tasks = ", ".join(task.name for task in placed.manifest.tasks) or "no tasks"
        ready = f"worker {self._name} at {placed.url} is ready: serves {tasks}"
        if before is not None:
            self._screen.changes(before.manifest, placed.manifest)
            self._screen.note(ready)
            return
        again = "starts again when a file changes" if self._reload else "does not start again by itself"
        self._screen.places(
            *places_of(engine),
            ("app", f"{self._base}  ({self._target}, {found.interface.upper()}; {again})"),
            ("worker", placed.url),
        )
        self._screen.tasks(placed.manifest)
        self._screen.first_steps(placed.manifest, {"HURLBAT_URL": url_of(engine), **self._shown})
        self._screen.note(ready)

    async def _warn_of_others(self, engine: Engine, worker: Worker) -> None:
        """Tell of workers of another time that serve the same tasks and are not there: they would be tried as well."""
        for other in (await engine.list_workers(limit=500)).items:
            shared = sorted(set(other.tasks) & set(worker.tasks))
            if other.name != worker.name and shared and other.state is not WorkerState.PAUSED:
                self._screen.warn(
                    f"worker {other.name} at {other.url} is registered for {shared[0]} as well, and gets some of its "
                    f"runs; if it is one of another time: hurlbat workers remove {other.name}"
                )

    async def _watch(self) -> None:
        """Set `_changed` when a file has changed."""
        here = Path.cwd()
        try:
            async for changes in awatch(here, watch_filter=PythonFilter()):
                self._files |= {name.removeprefix(f"{here}{os.sep}") for _, name in changes}
                self._changed.set()
        except (OSError, RuntimeError) as error:
            self._screen.warn(f"the files in {here} cannot be watched, so the app does not start again: {error}")

    def _environment(self, engine: Engine) -> dict[str, str]:
        """Return the environment of the app: nothing in it need be set by hand."""
        inherited = dict(os.environ)
        inherited.pop("HURLBAT_PUBLIC_URL", None)
        inherited.setdefault("HURLBAT_GRACE", f"{GRACE_SECONDS:g}")
        return inherited | {
            "HURLBAT_URL": url_of(engine),
            "HURLBAT_TOKEN": self._token,
            "HURLBAT_SIGNING_SECRET": self._secret,
            "PYTHONUNBUFFERED": "1",
        }


def url_of(engine: Engine) -> str:
    """Return where the server is from here, whatever workers elsewhere are told."""
    return f"http://{engine.settings.host}:{engine.settings.port}"


def places_of(engine: Engine) -> list[tuple[str, str]]:
    """Return where the server is, and what it says of itself."""
    kept = engine.settings.database_file or "PostgreSQL"
    return [("server", f"{url_of(engine)}  ({kept})"), ("API", f"{url_of(engine)}/docs")]


def _listed(files: set[str]) -> str:
    names = sorted(files)
    more = len(names) - MOST_FILES
    return ", ".join(names[:MOST_FILES]) + (f" and {more} more" if more > 0 else "")
