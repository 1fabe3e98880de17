"""A whole engine in process on a real database, its workers in memory, and ways to look behind the curtain.

Time is never waited out: what is due later is moved to now in the rows, and the engine is told to look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import sqlalchemy as sa
from cryptography.fernet import Fernet
from pydantic import SecretStr

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher import Engine, Mode, Outside, Run, Settings, Submission, Worker, WorkerSpec
from hurlbat_dispatcher.assembly import Parts
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.store.statement import Script, Statement
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.due import read_waiting, rebuild
from hurlbat_dispatcher.turn.operations import Operation, Refresh, Tick
from tests.engine.far_side import SECRET, FakeWorker, Network

SOON: Final = 120.0
"""Seconds within which everything that is waited for happens."""
LEASE: Final = 300.0
"""Seconds of a lease: so slow is no machine that one ends by itself."""
KEY = SecretStr(Fernet.generate_key().decode())
LATER_MS: Final = 3_600_000


def settings_for(url: str, **more: Any) -> Settings:
    """Return settings for a server of the tests."""
    usual: dict[str, Any] = {
        "database_url": url,
        "secret_key": (KEY,),
        "external_url": "http://hurlbat.test",
        "heartbeat": more.get("lease", LEASE) / 3,
        "lease": LEASE,
    }
    return Settings(**usual | more)


class World:
    """One engine and its workers. Use it as a context: it is started, stopped and looked over at the end."""

    def __init__(self, url: str, network: Network | None = None, **settings: Any) -> None:
        self.settings = settings_for(url, **settings)
        self.network = network or Network()
        self.engine = Engine(self.settings, Outside(network=self.network.transport()))

    async def __aenter__(self) -> Self:
        await self.engine.start()
        return self

    async def __aexit__(self, failed: object, *_: object) -> None:
        try:
            if failed is None and self.engine._parts is not None:
                await self.agrees_with_its_rows()
        finally:
            await self.engine.stop(0)

    @property
    def parts(self) -> Parts:
        """What the engine is made of."""
        parts = self.engine._parts
        assert parts is not None
        return parts

    # -- arrange -----------------------------------------------------------------------------------------------------

    async def worker(
        self, name: str = "w", *tasks: str | dict[str, Any], slots: int | None = None, plain: bool = False, **more: Any
    ) -> FakeWorker:
        """Register a worker that serves these tasks: names, or policies. Without any it serves `echo`, tried once."""
        policies = [{"name": task} if isinstance(task, str) else task for task in tasks or ("echo",)]
        fake = FakeWorker(name, policies, plain=plain, **more)
        self.network.workers[name] = fake
        await self.register(fake, slots=slots)
        return fake

    async def register(self, fake: FakeWorker, *, slots: int | None = None) -> Worker:
        """Register a worker that the network knows."""
        declared = tuple(TaskPolicy(**policy) for policy in fake.tasks) if fake.plain else None
        mode = Mode.PLAIN if fake.plain else Mode.PROTOCOL
        spec = WorkerSpec(fake.name, fake.url, slots=slots, mode=mode, tasks=declared, secret=SECRET)
        return (await self.engine.register_worker(spec)).worker

    async def submit(self, task: str = "echo", input: str = "null", **more: Any) -> Run:
        """Submit a run."""
        async with asyncio.timeout(SOON):
            return (await self.engine.submit(Submission(task, input, **more))).run

    async def submit_all(self, count: int, task: str = "echo", **more: Any) -> list[str]:
        """Submit so many runs at once; return their ids in order."""
        outcomes = await self.engine.submit_many([Submission(task, str(n), **more) for n in range(count)])
        return [outcome.run.id for outcome in outcomes if not isinstance(outcome, Exception)]

    # -- wait --------------------------------------------------------------------------------------------------------

    async def ended(self, run: Run | str) -> Run:
        """Wait for the end of a run."""
        run_id = run if isinstance(run, str) else run.id
        found = await self.engine.wait(run_id, SOON)
        assert found.is_final, found
        return found

    async def all_ended(self, runs: Sequence[Run | str]) -> list[Run]:
        """Wait for the end of all these runs."""
        return list(await asyncio.gather(*map(self.ended, runs)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until this is so."""
        async with asyncio.timeout(SOON):
            while not condition():  # noqa: ASYNC110  # rows and workers set no events
                await asyncio.sleep(0.002)

    async def until_run(self, run: Run | str, condition: Callable[[Run], bool]) -> Run:
        """Wait until this is so of a run."""
        run_id = run if isinstance(run, str) else run.id
        async with asyncio.timeout(SOON):
            while not condition(found := await self.engine.get_run(run_id)):  # noqa: ASYNC110  # rows and workers set no events
                await asyncio.sleep(0.005)
        return found

    async def put_back(self, run: Run | str, kind: str) -> Run:
        """Wait until an attempt of a run was put back, for this reason."""
        return await self.until_run(
            run, lambda found: found.state == "queued" and any(entry.kind == kind for entry in found.timeline)
        )

    async def do(self, operation: Operation) -> Any:
        """Put an operation into the queue and wait for its turn."""
        operation.reply = asyncio.get_running_loop().create_future()
        self.parts.writer.put(operation)
        async with asyncio.timeout(SOON):
            return await operation.reply

    async def nothing_left(self, before: set[asyncio.Task[Any]]) -> None:
        """Wait until no task goes on but those that did before; the duties of the engine have some for a moment."""
        await self.until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()})

    async def turns(self, count: int = 2) -> None:
        """Wait until everything that was asked for so far has had its turn, and what was put off by it, too."""
        for _ in range(count):
            await self.do(Refresh())

    # -- look, and lend a hand ---------------------------------------------------------------------------------------

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Read rows."""

        def script() -> Script[list[tuple[Any, ...]]]:
            rows = yield Statement(sa.text(sql)).fetch()
            return [tuple(row) for row in rows]

        return await self.parts.database.read(script())

    async def change(self, sql: str) -> None:
        """Change rows behind the engine's back."""

        def script() -> Script[None]:
            yield Statement(sa.text(sql)).write([()])

        await self.parts.database.write(script())

    async def until_rows(self, sql: str, wanted: list[tuple[Any, ...]]) -> None:
        """Wait until a query has these rows."""
        async with asyncio.timeout(SOON):
            while await self.rows(sql) != wanted:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def time_comes(self, run: Run | str, *columns: str) -> None:
        """Let what a run waits for in these columns be over, and the engine see it."""
        run_id = run if isinstance(run, str) else run.id
        moved = ", ".join(f"{column} = {column} - {LATER_MS}" for column in columns)
        await self.change(f"UPDATE run SET {moved} WHERE id = '{run_id}'")
        await self.tick()

    async def until_detached(self, run: Run | str) -> None:
        """Wait until the running attempt has a lease of its own."""
        run_id = run if isinstance(run, str) else run.id
        async with asyncio.timeout(SOON):
            while await self.rows(f"SELECT lease_until FROM run WHERE id = '{run_id}'") == [(None,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def tick(self, *, sweep: bool = False) -> None:
        """Let the engine look at what is due."""
        self.parts.writer.put(Tick(sweep=sweep))
        await self.turns()

    async def load(self, worker: str = "w") -> int:
        """Return how many attempts the engine counts at a worker."""
        return (await self.engine.get_worker(worker)).in_flight

    async def agrees_with_its_rows(self) -> None:
        """Hold what is counted in memory against what the rows say; a turn may be on its way, so look again."""
        parts = self.parts
        if not parts.desk.owns:
            return
        try:
            async with asyncio.timeout(SOON):
                while (kept := _counted(parts.desk.picture)) != (read := await self._read_anew()):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            assert kept == read, "the picture in memory is not what the rows say"

    async def _read_anew(self) -> Any:
        desk = Desk(
            me=self.parts.desk.me,
            registry=self.parts.registry,
            chance=self.parts.desk.chance,
            lease=self.parts.desk.lease,
            report_base="",
            lease_tokens=self.parts.lease_tokens,
        )

        def read() -> Script[None]:
            yield from rebuild(desk)
            yield from read_waiting(desk)

        await self.parts.database.write(read())
        return _counted(desk.picture)

    # -- end ---------------------------------------------------------------------------------------------------------

    async def crash(self) -> None:
        """Abandon the engine as a kill would: nothing more is written, the connections and the lock are gone."""
        parts = self.parts
        parts.deliveries._closed = True
        tasks = [*parts._duties, *parts._telling, *parts.outbox._tasks, *parts.health._tasks]
        tasks += [parts._writing] if parts._writing is not None else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await parts.transport.aclose()
        await parts.database.close()
        self.engine._parts = None

    async def restart(self) -> None:
        """Start another engine on the same database."""
        self.engine = Engine(self.settings, Outside(network=self.network.transport()))
        await self.engine.start()


def _counted(picture: Picture) -> Any:
    running = {run_id: (one.slots.worker, one.attempt, one.sender) for run_id, one in picture.running.items()}
    used = {name: slots.used for name, slots in picture.slots.items() if slots.used}
    waiting = {
        lane.id: sorted(run for run in lane.heap if run not in lane.gone)
        for lane in picture.lanes.values()
        if lane.head() is not None
    }
    return running, used, waiting


async def refused(work: Awaitable[Any]) -> BaseException:
    """Return what a call is refused with."""
    with suppress(asyncio.CancelledError):
        try:
            result = await work
        except Exception as problem:
            return problem
        raise AssertionError(f"it was not refused: {result!r}")
    raise AssertionError("it was cancelled")
