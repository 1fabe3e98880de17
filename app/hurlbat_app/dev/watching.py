"""Watch a worker that runs elsewhere: it is registered, and kept in step with what it serves."""

import asyncio
import re
from typing import Final
from urllib.parse import urlsplit

from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.serve import say
from hurlbat_dispatcher import Engine, Problem, Worker, WorkerSpec, WorkerState

LOOK_SECONDS: Final = 0.5
"""How often a worker that was away is looked for."""
PROVE_SECONDS: Final = 2.0
"""How often a worker that is there but not ready is proved again."""
SYNC_SECONDS: Final = 10.0
"""How often a ready worker is asked for its tasks; it may have been reloaded."""


class Watch:
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
            if was_here and not is_here:
                self._say(f"worker {self.name} at {self._url} is away")
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
        self._say(f"worker {self.name} at {self._url} is {worker.state}: {text}")

    def _say(self, told: str) -> None:
        """Say something that was not said the last time."""
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
