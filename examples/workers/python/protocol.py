"""A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, can be cancelled."""

import hashlib
import json
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import Any, NamedTuple

from signed import SignedHandler, serve
from tasks import DECLARED, TASKS, Failure

VERSION = hashlib.sha256(json.dumps(DECLARED).encode()).hexdigest()[:16]
MANIFEST = {"protocol": 1, "version": VERSION, "sdk": "python-example", "max_batch": 16, "tasks": DECLARED}
POOL = ThreadPoolExecutor(100)  # as many as the slots with which it is registered
Object = dict[str, Any]


class Attempt(NamedTuple):
    result: Future[Object]
    cancelled: Event


attempts: dict[tuple[str, int], Attempt] = {}  # those that run here, and the last that did
ended: deque[tuple[str, int]] = deque()
lock = Lock()


class Worker(SignedHandler):
    def take(self, message: Any) -> None:
        match message:
            case {"type": "describe"}:
                self.answer(200, MANIFEST)
            case {"type": "probe"}:
                self.answer(200, {})
            case {"type": "cancel", "data": {"runs": runs}}:
                self.answer(200, {"runs": cancel(runs)})
            case {"type": "deliver", "data": {"runs": runs, "heartbeat": heartbeat}}:
                self.deliver(runs, heartbeat)
            case _:
                self.answer(400, "this is no message that is known here")

    def deliver(self, runs: list[Object], heartbeat: float) -> None:
        self.head(200, {"content-type": "application/x-ndjson"})
        waiting: dict[Future[Object], Object] = {}
        for run in runs:
            name = {"run_id": run["run_id"], "attempt": run["attempt"]}
            if run["task"] in TASKS:
                waiting[begin(run).result] = name
                self.line(type="started", **name)
            else:
                error = {"type": "unknown_task", "message": f"{run['task']} is not served here"}
                self.line(type="result", **name, state="failed", error=error)
        while waiting:
            done, _ = wait(waiting, heartbeat, FIRST_COMPLETED)
            for result in done:
                self.line(type="result", **waiting.pop(result), **result.result())
            if not done:
                self.line(type="heartbeat")

    def line(self, **members: Any) -> None:
        self.wfile.write(json.dumps(members).encode() + b"\n")


def begin(run: Object) -> Attempt:
    key = run["run_id"], run["attempt"]
    with lock:
        while len(ended) > 1_000:
            del attempts[ended.popleft()]
        if key not in attempts:  # what was sent twice runs once
            cancelled = Event()
            attempts[key] = Attempt(POOL.submit(execute, run, cancelled), cancelled)
            attempts[key].result.add_done_callback(lambda _: ended.append(key))
        return attempts[key]


def execute(run: Object, cancelled: Event) -> Object:
    try:
        output = TASKS[run["task"]](run["input"], cancelled)
        if len(json.dumps(output)) > 1024 * 1024:
            raise Failure("an output of more than 1 MiB", retryable=False)
        return {"state": "completed", "output": output}
    except Exception as error:
        said = {"type": type(error).__name__, "message": str(error), "stack": traceback.format_exc()}
        return {"state": "failed", "error": said, **getattr(error, "told", {})}


def cancel(runs: list[Object]) -> list[Object]:
    found = [attempts.get((run["run_id"], run["attempt"])) for run in runs]
    for attempt in filter(None, found):
        attempt.cancelled.set()
    stopped = wait([attempt.result for attempt in found if attempt], 3).done  # only what has ended has stopped
    status = ["stopped" if attempt and attempt.result in stopped else "unknown" for attempt in found]
    return [{"run_id": r["run_id"], "attempt": r["attempt"], "status": s} for r, s in zip(runs, status, strict=True)]


serve(Worker, {"hurlbat-worker": VERSION})
