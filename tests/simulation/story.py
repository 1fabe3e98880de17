"""A short history with everything in it: `python -m tests.simulation.story SEED` prints its digest."""

import asyncio
import json
import logging
import sys
from typing import Any

import httpx
import structlog

from hurlbat import signing
from hurlbat.errors import SignatureError
from hurlbat.wire import HEADER_WORKER, STREAM_TYPE, CompletedLine, StartedLine, write_line
from hurlbat_dispatcher import Conflict, Engine, Problem, Run, Submission, WorkerSpec
from hurlbat_dispatcher.simulation.faults import Fault, Faults
from hurlbat_dispatcher.simulation.process import Killed
from hurlbat_dispatcher.simulation.wire import answering
from hurlbat_dispatcher.simulation.world import Server, Simulation, server_settings

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
MARK = {HEADER_WORKER: "manifest-1"}
URL = "https://w.example.com/"
RUNS = 20
_SAFE = (Fault.WRONG_STATUS, Fault.CRASH, Fault.STALL)
_RATES: dict[str, Any] = {fault.value: 0.02 for fault in Fault if fault not in _SAFE}
STORMY = Faults(**_RATES, crash=0.004, stall=0.003)


class Worker:
    """A worker that echoes; `took` has the attempts that came."""

    def __init__(self, world: Simulation) -> None:
        self.took: list[tuple[str, int]] = []
        self.process = world.process("w")
        self.process.fragile = False
        self._world = world
        world.network.serve("w.example.com", answering(self.answer), self.process)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        try:
            signing.verify([SECRET], dict(request.headers), request.content, self._world.clock.now_ms() / 1000)
        except SignatureError as error:
            return httpx.Response(401, headers=MARK, text=str(error))
        message = json.loads(request.content)
        runs = message["data"].get("runs", ())
        if message["type"] == "describe":
            manifest = {"tasks": [{"name": "echo", "retries": 30}], "max_batch": 4, "version": "manifest-1"}
            return httpx.Response(200, headers=MARK, json=manifest)
        if message["type"] != "deliver":
            told = [{"run_id": run["run_id"], "attempt": run["attempt"], "status": "stopped"} for run in runs]
            return httpx.Response(200, headers=MARK, json={"runs": told})
        return httpx.Response(200, headers=MARK | {"content-type": STREAM_TYPE}, content=self._work(runs))

    async def _work(self, runs: list[dict[str, Any]]) -> Any:
        for run in runs:
            self.took.append((run["run_id"], run["attempt"]))
            yield f"{write_line(StartedLine(run['run_id'], run['attempt']))}\n".encode()
        await asyncio.sleep(0.5)
        for run in runs:
            yield f"{write_line(CompletedLine(run['run_id'], run['attempt'], json.dumps(run['input'])))}\n".encode()


async def keep(world: Simulation, name: str) -> None:
    """Start a server, and again whenever it has died."""
    while True:
        try:
            server = await world.start_server(name, server_settings(heartbeat=1.0, lease=3.0))
        except (Killed, Exception):
            await asyncio.sleep(1)
            continue
        dead = asyncio.Event()
        server.process.when_killed(dead.set)
        await dead.wait()
        await asyncio.sleep(1)


async def ask(world: Simulation, name: str, work: Any) -> Any:
    """Ask a server until it answers."""
    while True:
        server = world.servers.get(name)
        if server is not None and server.process.alive:
            try:
                async with asyncio.timeout(70):
                    return await server.call(work)
            except Conflict:
                return None
            except (Killed, Problem, TimeoutError):
                pass
        await asyncio.sleep(0.5)


async def history(world: Simulation) -> list[Run]:
    """Register, submit, wait for a while in trouble and then in peace, and return the runs."""
    Worker(world)
    for name in ("a", "b"):
        asyncio.create_task(keep(world, name))  # noqa: RUF006  # the world ends it
    await ask(world, "a", lambda engine: engine.register_worker(WorkerSpec("w", URL, secret=SECRET)))
    while (await ask(world, "a", lambda engine: engine.get_worker("w"))).state != "ready":  # noqa: ASYNC110  # no event tells it
        await asyncio.sleep(1)
    for name in ("nobody", "no-one", "none"):  # are asked again and again, in an order that must be the seed's
        spec = WorkerSpec(name, f"https://{name}.example.com/", secret=SECRET)
        await ask(world, "a", lambda engine, spec=spec: engine.register_worker(spec))
    ids = []
    for n in range(RUNS):
        name = "ab"[n % 2]
        accepted = await ask(world, name, lambda engine, n=n: engine.submit(_echo(n)))
        ids.append(accepted.run.id)
    await asyncio.sleep(60)
    world.trouble.calm()
    return [await ask(world, "a", lambda engine, one=one: _ended(engine, one)) for one in ids]


async def _ended(engine: Engine, run_id: str) -> Run:
    while not (run := await engine.wait(run_id, 30)).is_final:
        pass
    return run


def _echo(n: int) -> Submission:
    return Submission("echo", str(n), idempotency_key=f"k{n}")


def tell(seed: int) -> tuple[Simulation, list[Run]]:
    """Tell the history of a seed; return its world, which is over, and the runs."""
    with Simulation(seed, STORMY) as world:
        return world, world.run(history(world), within=3_600)


async def started(world: Simulation, name: str = "a", **settings: Any) -> tuple[Server, Worker]:
    """Start a server and a worker that it knows."""
    worker = Worker(world)
    server = await world.start_server(name, server_settings(**settings))
    await server.call(lambda engine: engine.register_worker(WorkerSpec("w", URL, secret=SECRET)))
    return server, worker


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(tell(int(sys.argv[1]))[0].digest)
