"""The far side: workers that answer in every way that the protocol knows, and in some that it does not.

Each lives in a process of its own, so that it goes on when the server that asked it is killed, and dies alone. What it
does is drawn from the seed; what it has executed and what it has said of it goes into the history.
"""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import httpx

from hurlbat import signing
from hurlbat.errors import SignatureError
from hurlbat.wire import (
    HEADER_ASYNC,
    HEADER_WORKER,
    STREAM_TYPE,
    CancelledLine,
    CompletedLine,
    FailedLine,
    HeartbeatLine,
    StartedLine,
    write_line,
)
from hurlbat_dispatcher import Engine, Problem
from hurlbat_dispatcher.errors import Conflict, NotFound
from tests.sim.brood import Brood
from tests.sim.composition_plan import BROOD
from tests.sim.executions import Execution, Stream
from tests.sim.history import Key, name
from tests.sim.plan import Mood, WorkerPlan, chosen
from tests.sim.surroundings import Surroundings
from tests.sim.wire import Lost

SECRET: Final = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
MARK: Final = {HEADER_WORKER: "manifest-1"}
REPORTS: Final = 5
"""How often a final report is tried."""
Result = CompletedLine | FailedLine | CancelledLine


class SimulatedWorker:
    """One worker. `spawn` starts what goes on in its process."""

    def __init__(
        self, plan: WorkerPlan, around: Surroundings, spawn: Callable[[Coroutine[Any, Any, None]], object]
    ) -> None:
        self.plan = plan
        self.spawn = spawn
        self.up = True
        self.calm = False
        self._around = around
        self._history = around.history
        self._chance = random.Random(f"worker {around.plan.seed} {plan.name}")
        self._wishes = random.Random(f"wishes {around.plan.seed} {plan.name}")
        self._composing = random.Random(f"composing {around.plan.seed} {plan.name}")
        self._open: dict[Key, Execution] = {}
        self._seen: dict[Key, None] = {}
        self._streams: list[Stream] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://{self.plan.name}.example.com/hurlbat/"

    def die(self) -> None:
        """Lose everything that is at work here; connections break. Whoever kills must end the process, too."""
        self.up = False
        for stream in self._streams:
            stream.end(httpx.ReadError("the worker died"))
        self._open.clear()
        self._streams.clear()

    def live(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        """Begin again in a new process."""
        self.spawn = spawn
        self.up = True

    # -- what comes ---------------------------------------------------------------------------------------------------

    async def receive(self, request: httpx.Request) -> httpx.Response:
        """Take one request."""
        if not self.up:
            raise httpx.ConnectError("refused", request=request)
        body = await request.aread()
        try:
            signing.verify([SECRET], dict(request.headers), body, self._around.true_time())
        except SignatureError as error:
            return _marked(401, str(error).encode())
        message = json.loads(body)
        match message["type"]:
            case "describe":
                return _marked(200, json.dumps(self._manifest()).encode())
            case "cancel":
                return self._cancel(message["data"]["runs"])
            case "deliver":
                return await self._deliver(message["data"]["runs"])
        return _marked(200)

    def _manifest(self) -> dict[str, Any]:
        policies = [self._around.policies[task] for task in self.plan.tasks]
        return {"tasks": policies, "max_batch": self.plan.max_batch, "version": MARK[HEADER_WORKER]}

    def _cancel(self, runs: Sequence[dict[str, Any]]) -> httpx.Response:
        told = []
        for run in runs:
            key = run["run_id"], run["attempt"]
            execution = self._open.get(key)
            stops = execution is not None and self._chance.random() < self.plan.stops
            if execution is not None and stops:
                execution.cancelled.set()
                self._open.pop(key, None)
            told.append({"run_id": key[0], "attempt": key[1], "status": "stopped" if stops else "unknown"})
        return _marked(200, json.dumps({"runs": told}).encode())

    async def _deliver(self, runs: Sequence[dict[str, Any]]) -> httpx.Response:
        mood = Mood.STREAM if self.calm else chosen(self._chance, self._around.plan.moods)
        self._history.counts[f"mood {mood}"] += 1
        keys = [(run["run_id"], run["attempt"]) for run in runs]
        if any(key in self._seen for key in keys):
            return await self._say_nothing()  # another copy of a request, which the network made and no server sent
        self._seen.update(dict.fromkeys(keys))
        for run in runs:
            self._around.given(run)
        if self.plan.plain:
            return await self._plain(mood, runs[0])
        return await self._protocol(mood, runs)

    async def _say_nothing(self) -> httpx.Response:
        self._history.counts["duplicates"] += 1
        stream = Stream()
        stream.end()
        return _streaming(stream)

    # -- answers of a protocol worker ----------------------------------------------------------------------------------

    async def _protocol(self, mood: Mood, runs: Sequence[dict[str, Any]]) -> httpx.Response:
        match mood:
            case Mood.BUSY:
                wait = self._chance.choice(("1", "3"))
                return _marked(self._chance.choice((429, 503)), retry_after=wait)
            case Mood.OVERLOADED:
                if self._chance.random() < 0.5:
                    self._work([Execution(run, reports=False) for run in runs])
                return httpx.Response(self._chance.choice((502, 504, 503)))
            case Mood.BROKEN:
                return httpx.Response(500)
            case Mood.REFUSES:
                return _marked(self._chance.choice((401, 403)))
            case Mood.GONE:
                return _marked(410)
            case Mood.GARBAGE:
                return self._garbage()
            case Mood.ACCEPT:
                self._work([Execution(run) for run in runs])
                return _marked(202)
            case Mood.WHOLE:
                return await self._whole(runs)
        stream = Stream()
        self._streams = [one for one in self._streams if one.open] + [stream]
        if mood is Mood.BREAK_EARLY:
            stream.end(self._break())
            if self._chance.random() < 0.5:
                self._work([Execution(run, reports=False) for run in runs if run["max_attempts"] > 1])
            return _streaming(stream)
        late = self._chance.choice((0.0, 0.0, 30.0))
        executions = [Execution(run, stream, reports=mood is not Mood.FORGETS or late > 0, late=late) for run in runs]
        for execution in executions:
            execution.late = late if mood in (Mood.FORGETS, Mood.SILENT) else 0.0
            execution.say(write_line(StartedLine(*execution.key)))
        if mood is Mood.MIXED_UP:
            self._mix_up(stream, executions)
        self._work(executions, stream=stream)
        if mood in (Mood.BREAK_LATE, Mood.FORGETS):
            stream.end(self._break())
        elif mood is not Mood.SILENT:
            self.spawn(self._beat(stream))
        return _streaming(stream)

    def _break(self) -> Exception | None:
        return httpx.ReadError("reset") if self._chance.random() < 0.5 else None

    def _garbage(self) -> httpx.Response:
        match self._chance.randrange(4):
            case 0:
                return _marked(200, b"{what")
            case 1:
                return httpx.Response(200, content=b"<html>please log in</html>")
            case 2:
                return httpx.Response(302, headers={"location": "/elsewhere"})
        return httpx.Response(418)

    def _mix_up(self, stream: Stream, executions: Sequence[Execution]) -> None:
        """Speak of attempts that were not sent."""
        run_id, attempt = self._chance.choice(executions).key
        match self._chance.randrange(3):
            case 0 if attempt > 1:
                stream.write(f"{write_line(CompletedLine(run_id, attempt - 1, _output((run_id, 0))))}\n".encode())
            case 1:
                stream.write(f"{write_line(CompletedLine(run_id, attempt + 1, _output((run_id, 0))))}\n".encode())
            case _:
                stream.write(b'{"type":"result","run_id":"00000000-0000-7000-8000-000000000000","attempt":1}\n')

    async def _whole(self, runs: Sequence[dict[str, Any]]) -> httpx.Response:
        executions = [Execution(run, reports=False) for run in runs]
        lines = await self._results(executions)
        listed = ",".join(write_line(line) for line in lines if line is not None)
        return _marked(200, f'{{"results":[{listed}]}}'.encode(), content_type="application/json")

    async def _results(self, executions: Sequence[Execution]) -> list[Result | None]:
        """Execute in the worker's own process, whoever waits for it."""
        loop = asyncio.get_running_loop()
        done: list[asyncio.Future[Result | None]] = [loop.create_future() for _ in executions]
        for execution, future in zip(executions, done, strict=True):
            self._open[execution.key] = execution

            async def work(execution: Execution = execution, future: asyncio.Future[Result | None] = future) -> None:
                line = await self._execute(execution)
                if not future.done():
                    future.set_result(line)

            self.spawn(work())
        return [await future for future in done]

    async def _beat(self, stream: Stream) -> None:
        while stream.open and any(one.stream is stream for one in self._open.values()):
            await asyncio.sleep(self._around.plan.heartbeat)
            stream.write(f"{write_line(HeartbeatLine())}\n".encode())

    # -- answers of a plain worker -------------------------------------------------------------------------------------

    async def _plain(self, mood: Mood, run: dict[str, Any]) -> httpx.Response:
        match mood:
            case Mood.BUSY:
                return httpx.Response(503, headers={"retry-after": "2"})
            case Mood.OVERLOADED:
                return httpx.Response(self._chance.choice((502, 504, 429)))
            case Mood.REFUSES | Mood.GONE:
                return httpx.Response(401 if mood is Mood.REFUSES else 410)
            case Mood.GARBAGE:
                return self._chance.choice((httpx.Response(302, headers={"location": "/"}), httpx.Response(404)))
            case Mood.ACCEPT:
                self._work([Execution(run)])
                return httpx.Response(202, headers={HEADER_ASYNC: "1"})
            case Mood.BREAK_EARLY | Mood.BREAK_LATE | Mood.FORGETS:
                self._work([Execution(run, reports=False)])
                raise httpx.ReadError("reset")
        [line] = await self._results([Execution(run, reports=False)])
        if mood is Mood.SILENT:
            await asyncio.sleep(self._chance.uniform(10.0, 80.0))
        if isinstance(line, CompletedLine) and mood is not Mood.BROKEN:
            return httpx.Response(200, content=line.output.encode())
        retry = {} if not isinstance(line, FailedLine) or line.retryable else {"hurlbat-retry": "no"}
        return httpx.Response(500, headers=retry)

    # -- work ---------------------------------------------------------------------------------------------------------

    def _work(self, executions: Sequence[Execution], stream: Stream | None = None) -> None:
        left = len(executions)

        async def work(execution: Execution) -> None:
            nonlocal left
            line = await self._execute(execution)
            left -= 1
            if line is not None:
                await self._tell(execution, line)
            if left == 0 and stream is not None:
                stream.end()

        for execution in executions:
            self._open[execution.key] = execution
            self.spawn(work(execution))
            if execution.reports:
                self.spawn(self._keep_alive(execution))

    async def _execute(self, execution: Execution) -> Result | None:
        """Do what the task does; nothing comes of what was cancelled."""
        key = execution.key
        self._history.began(key)
        self._around.executed(key)
        self._around.executes(self.plan.name, list(self._open))
        task = self._around.plan.task(execution.run["task"])
        seconds = self._chance.expovariate(1 / task.seconds)
        if not self.calm and self._chance.random() < 0.1:
            seconds += self._chance.uniform(5.0, 40.0)
        try:
            if task.name == BROOD:
                await Brood(self._around, execution, self._composing).breed()
            async with asyncio.timeout(seconds):
                await execution.cancelled.wait()
        except TimeoutError:
            return self._result(key, execution.run)
        else:
            return None
        finally:
            self._open.pop(key, None)

    def _result(self, key: Key, run: Mapping[str, Any]) -> Result:
        if not self.calm and self._chance.random() < self._around.plan.failing:
            wish = self._chance.choice((None, None, 0.0, 2.0))
            self._history.failures[key] = wish
            self._history.note(f"fails {name(key)}")
            retryable = self._chance.random() < 0.8
            limit = None
            if wish and self._wishes.random() < self._around.plan.flow.names_keys and "g" in run["input"]:
                self._history.failures[key] = wish = self._wishes.choice((2.0, 20.0))
                limit = self._wishes.choice(("s", run["input"]["g"]))
            return FailedLine(*key, "ValueError", "boom", retryable=retryable, retry_after=wish, rate_limit_key=limit)
        if not self.calm and not self.plan.plain and self._composing.random() < self._around.plan.composition.gives_in:
            reason = self._history.gave_in[key] = f"{name(key)} gives in"
            return CancelledLine(*key, reason)
        output = self._history.outputs[key] = _output(key)
        self._history.note(f"completes {name(key)}")
        return CompletedLine(*key, output)

    async def _tell(self, execution: Execution, line: Result) -> None:
        if execution.late:
            await asyncio.sleep(execution.late)
        if execution.say(write_line(line)) or not execution.reports:
            return
        for _ in range(REPORTS):
            try:
                await self._around.ask_any(lambda engine: _report(engine, execution, line))
            except (Conflict, NotFound):
                self._history.counts["late reports"] += 1
                return
            except (Problem, Lost):
                await asyncio.sleep(self._chance.uniform(0.2, 2.0))
            else:
                self._history.counts["reports"] += 1
                return

    async def _keep_alive(self, execution: Execution) -> None:
        """Renew the lease of what goes on without a stream, until there is nothing to renew."""
        while execution.key in self._open and self._open[execution.key] is execution:
            await asyncio.sleep(self._around.plan.heartbeat)
            if not execution.detached or execution.late:
                continue
            since = asyncio.get_running_loop().time()
            try:
                reply = await self._around.ask_any(
                    lambda engine: engine.report_heartbeat(*execution.key, execution.token)
                )
            except (Conflict, NotFound):
                return
            except (Problem, Lost):
                continue
            if reply.cancelled:
                execution.cancelled.set()
            else:
                self._around.renewed(execution.key, since)


async def _report(engine: Engine, execution: Execution, line: Result) -> None:
    if isinstance(line, CompletedLine):
        await engine.report_complete(*execution.key, execution.token, line.output, b"completed")
    elif isinstance(line, CancelledLine):
        await engine.report_cancel(*execution.key, execution.token, line, b"cancelled")
    else:
        await engine.report_fail(*execution.key, execution.token, line, b"failed")


def _output(key: Key) -> str:
    return json.dumps({"run": key[0], "attempt": key[1], "v": int(key[0][-1], 16)})


def _streaming(stream: Stream) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": STREAM_TYPE} | MARK, stream=stream)


def _marked(status: int, content: bytes = b"", **headers: str) -> httpx.Response:
    named = {header.replace("_", "-"): value for header, value in headers.items()}
    return httpx.Response(status, headers=named | MARK, content=content)
