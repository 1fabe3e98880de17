"""The engine of Hurlbat: storage, decisions and pushing behind one door, `Engine`."""

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, Submission, Task, TimelineEntry
from hurlbat_dispatcher.domain.workers import Mode, Worker, WorkerState
from hurlbat_dispatcher.engine import Accepted, Engine, HeartbeatReply, Page
from hurlbat_dispatcher.fleet import Registered, WorkerSpec
from hurlbat_dispatcher.store.database import CannotOpen, DatabaseTrouble

__all__ = [
    "Accepted",
    "CannotOpen",
    "DatabaseTrouble",
    "Engine",
    "HeartbeatReply",
    "Mode",
    "Page",
    "Registered",
    "Run",
    "RunState",
    "Submission",
    "Task",
    "TimelineEntry",
    "Worker",
    "WorkerSpec",
    "WorkerState",
]
