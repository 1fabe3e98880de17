"""A protocol worker: it tells its tasks itself, takes several runs at once, streams what happens, can be cancelled."""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import Any

from signed import Answer, serve
from tasks import DECLARED, TASKS, perform

VERSION = hashlib.sha256(json.dumps(DECLARED).encode()).hexdigest()[:16]
MANIFEST = {"protocol": 1, "version": VERSION, "sdk": "python-example", "max_batch": 16, "tasks": DECLARED}
POOL = ThreadPoolExecutor(100)  # as many as the slots with which it is registered
attempts: dict[tuple[str, int], tuple[Future[Any], Event]] = {}  # those that run here, and the last that did
ended: deque[tuple[str, int]] = deque()
lock = Lock()


def take(message: Any) -> Answer:
    match message:
        case {"type": "describe" | "probe"}:  # a probe is content with any 200
            return Answer(200, MANIFEST)
        case {"type": "cancel", "data": {"runs": runs}}:
            return Answer(200, {"runs": cancel(runs)})
        case {"type": "deliver", "data": {"runs": runs, "heartbeat": heartbeat}}:
            return Answer(200, deliver(runs, heartbeat))
    return Answer(400, "this is no message that is known here")


def deliver(runs: list[Any], heartbeat: float) -> Iterator[Any]:
    waiting = {begin(run): run for run in runs}
    yield from (line("started", run) for run in runs if run["task"] in TASKS)
    while waiting:
        done = wait(waiting, heartbeat, FIRST_COMPLETED).done
        yield from (line("result", waiting.pop(one), one.result()) for one in done)
        if not done:
            yield {"type": "heartbeat"}


def line(type: str, run: Any, more: Mapping[str, Any] = {}) -> Any:
    return {"type": type, "run_id": run["run_id"], "attempt": run["attempt"], **more}


def begin(run: Any) -> Future[Any]:
    key = run["run_id"], run["attempt"]
    with lock:
        while len(ended) > 1_000:
            del attempts[ended.popleft()]
        if key not in attempts:  # what was sent twice runs once
            cancelled = Event()
            attempts[key] = POOL.submit(perform, run["task"], run["input"], cancelled), cancelled
            attempts[key][0].add_done_callback(lambda _: ended.append(key))
        return attempts[key][0]


def cancel(runs: list[Any]) -> list[Any]:
    here = [(run, *known) for run in runs if (known := attempts.get((run["run_id"], run["attempt"])))]
    for _, _, cancelled in here:
        cancelled.set()
    wait([result for _, result, _ in here], 3)
    return [{**run, "status": "stopped"} for run, result, _ in here if result.done()]  # only what has ended has stopped


serve(take, {"hurlbat-worker": VERSION})
