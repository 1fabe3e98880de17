"""Watch a worker that runs elsewhere: it is registered, and kept in step with what it serves."""

import asyncio
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.dev.placing import described
from hurlbat_app.dev.screen import Screen, gist
from hurlbat_dispatcher import Engine, Problem, Worker, WorkerSpec, WorkerState

LOOK_SECONDS: Final = 0.5
"""How often a worker that was away is looked for."""
PROVE_SECONDS: Final = 2.0
"""After how long a worker that is there but not ready is proved again; then after twice as long, and so on."""
SYNC_SECONDS: Final = 10.0
"""How often a ready worker is asked for its tasks, as it may have been reloaded; any other is proved as rarely."""


CHECKS: Final = (
    "what it logged as refused with 401 (Unauthorized) were the server's own checks: so it proves, now and when the "
    "worker changes, that the worker takes work from nobody else"
)
"""Said once, as the log of a worker in good order begins with three refusals."""


class Watch:
    """One worker, registered and kept in step with what it serves."""

    def __init__(self, url: str, secret: str, screen: Screen) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            sentence = f"--worker takes a URL such as http://127.0.0.1:8000/hurlbat/, and {url!r} is none."
            raise Failure(sentence, Exit.BAD_INPUT)
        self.url = url
        self.name = re.sub(r"[^A-Za-z0-9_.:-]", "-", parts.netloc)[:128]
        """What the worker would call itself."""
        self._secret = secret
        self._screen = screen
        self._address = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._told = ""
        self._was_ready = False

    async def run(self, engine: Engine) -> None:
        """Register the worker, then prove it whenever that may change something."""
        try:
            worker: Worker | None = (
                await engine.register_worker(WorkerSpec(name=self.name, url=self.url, secret=self._secret))
            ).worker
        except Problem as problem:
            self._screen.warn(f"worker {self.url} cannot be registered: {problem.detail}")
            return
        self._tell(worker)
        clock = asyncio.get_running_loop().time
        was_here, look_at, wait = False, 0.0, PROVE_SECONDS
        while True:
            is_here = await self._answers()
            if is_here and (not was_here or clock() >= look_at):
                if not (was_here and await self._is_as(worker)):
                    worker = await self._sync(engine)
                ready = worker is not None and worker.state is WorkerState.READY
                # what refuses the proof logs each: it is asked at once when it comes back, and else ever more rarely
                wait = min(2 * wait, SYNC_SECONDS) if was_here else PROVE_SECONDS
                look_at = clock() + (SYNC_SECONDS if ready else wait)
            if was_here and not is_here:
                self._say(self._screen.note, f"worker {self.name} at {self.url} is away")
            was_here = is_here
            await asyncio.sleep(LOOK_SECONDS)

    async def _is_as(self, worker: Worker | None) -> bool:
        """Tell whether a ready worker still serves what it served; that is one request, and a proof is four."""
        if worker is None or worker.state is not WorkerState.READY:
            return False
        manifest = await described(self.url, self.name, self._secret)
        return manifest is not None and manifest.version == worker.manifest

    async def _sync(self, engine: Engine) -> Worker | None:
        try:
            worker = await engine.sync_worker(self.name)
        except Problem as problem:
            self._say(self._screen.warn, f"worker {self.name}: {problem.detail}")
            return None
        self._tell(worker)
        return worker

    def _tell(self, worker: Worker | None) -> None:
        if worker is None:
            return
        ready = worker.state is WorkerState.READY
        said = f"worker {self.name} at {self.url} is {worker.state}"
        if ready:
            self._say(self._screen.note, f"{said}: serves {', '.join(worker.tasks) or 'no tasks'}")
        else:
            waits = worker.state in (WorkerState.PENDING, WorkerState.UNREACHABLE)
            told = f"{said}: {worker.problem}" if worker.problem else said
            self._say(self._screen.remark if waits else self._screen.warn, told, by=gist)
        if ready and not self._was_ready:
            self._was_ready = True
            self._screen.remark(CHECKS)

    def _say(self, say: Callable[[str], None], told: str, *, by: Callable[[str], str] = str) -> None:
        """Say something that was not said the last time, seen by its gist."""
        meant = by(told)
        if meant != self._told:
            self._told = meant
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
