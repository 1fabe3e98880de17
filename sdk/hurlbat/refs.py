"""What a caller holds of a run or a schedule: its id or name, and what can be done with it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from hurlbat.runs import ReplayFrom, Run
from hurlbat.schedules import Schedule

if TYPE_CHECKING:
    from hurlbat.task import Task
    from hurlbat.workflow import Node

    Nodes: TypeAlias = Node[Any, Any] | Sequence[Node[Any, Any] | str]

O = TypeVar("O")  # noqa: E741 -- the output


class RunRef(Generic[O]):
    """A run that was submitted; `id` is all that it is, so it can be made anew from a stored id by `Task.ref`."""

    __slots__ = ("_task", "id")

    def __init__(self, task: "Task[Any, O]", run_id: str) -> None:
        self._task = task
        self.id = run_id

    async def result(self, timeout: float | None = None) -> O:
        """Wait for the run and return its output. Raises `RunFailed`, `RunCancelled`, `RunTimedOut`."""
        return self._task.output_of(await self._task.callers.client.wait_for(self.id, timeout))

    def result_sync(self, timeout: float | None = None) -> O:
        """Wait for the run, in sync code, and return its output."""
        return self._task.output_of(self._task.callers.sync_client.wait_for(self.id, timeout))

    async def status(self) -> Run:
        """Return how the run stands now."""
        return await self._task.callers.client.get_run(self.id)

    def status_sync(self) -> Run:
        """Return, in sync code, how the run stands now."""
        return self._task.callers.sync_client.get_run(self.id)

    async def move(self, at: datetime | None = None, *, delay: float | None = None, priority: int | None = None) -> Run:
        """Let the run start at another time, or so many seconds from now, or with another priority, while it waits.

        Raises `ApiError` with 409 once it is due, runs, or has ended.
        """
        return await self._task.callers.client.move_run(self.id, at, delay=delay, priority=priority)

    def move_sync(self, at: datetime | None = None, *, delay: float | None = None, priority: int | None = None) -> Run:
        """Do as `move`, in sync code."""
        return self._task.callers.sync_client.move_run(self.id, at, delay=delay, priority=priority)

    async def cancel(self, reason: str | None = None) -> Run:
        """Cancel the run."""
        return await self._task.callers.client.cancel_run(self.id, reason)

    def cancel_sync(self, reason: str | None = None) -> Run:
        """Cancel the run, in sync code."""
        return self._task.callers.sync_client.cancel_run(self.id, reason)

    async def replay(self, from_: "ReplayFrom | Nodes | None" = None) -> Run:
        """Queue the run once more, if it has ended.

        Of a workflow's run that is what did not end well and all after it, or with `from_` everything (`"start"`), or
        some nodes, or their names, and all after them; the others keep their outputs.
        """
        return await self._task.callers.client.replay_run(self.id, names_of(from_))

    def replay_sync(self, from_: "ReplayFrom | Nodes | None" = None) -> Run:
        """Do as `replay`, in sync code."""
        return self._task.callers.sync_client.replay_run(self.id, names_of(from_))

    def __repr__(self) -> str:
        return f"RunRef({self._task.name!r}, {self.id!r})"


def names_of(from_: "ReplayFrom | Nodes | None") -> "ReplayFrom | None":
    """Return what is to be run again with nodes by their names."""
    if from_ is None or isinstance(from_, str):
        return from_
    nodes = from_ if isinstance(from_, Sequence) else [from_]
    return [node if isinstance(node, str) else node.node for node in nodes]


class ScheduleRef(Generic[O]):
    """A schedule of a task; `name` is all that it is, so it can be made anew from a stored name by `Task.cron_ref`."""

    __slots__ = ("_task", "name")

    def __init__(self, task: "Task[Any, O]", name: str) -> None:
        self._task = task
        self.name = name

    async def status(self) -> Schedule:
        """Return how the schedule stands now."""
        return await self._task.callers.client.get_schedule(self.name)

    def status_sync(self) -> Schedule:
        """Return, in sync code, how the schedule stands now."""
        return self._task.callers.sync_client.get_schedule(self.name)

    async def next_times(self, count: int = 10) -> list[datetime]:
        """Return the next times at which it makes a run."""
        return await self._task.callers.client.next_times(self.name, count)

    def next_times_sync(self, count: int = 10) -> list[datetime]:
        """Do as `next_times`, in sync code."""
        return self._task.callers.sync_client.next_times(self.name, count)

    async def trigger(self) -> RunRef[O]:
        """Make a run of it now, whatever its times are."""
        return RunRef(self._task, (await self._task.callers.client.trigger_schedule(self.name)).id)

    def trigger_sync(self) -> RunRef[O]:
        """Do as `trigger`, in sync code."""
        return RunRef(self._task, self._task.callers.sync_client.trigger_schedule(self.name).id)

    async def pause(self) -> Schedule:
        """Let it rest; times that pass meanwhile are not made up for."""
        return await self._task.callers.client.pause_schedule(self.name)

    def pause_sync(self) -> Schedule:
        """Do as `pause`, in sync code."""
        return self._task.callers.sync_client.pause_schedule(self.name)

    async def resume(self) -> Schedule:
        """Let it go on."""
        return await self._task.callers.client.resume_schedule(self.name)

    def resume_sync(self) -> Schedule:
        """Do as `resume`, in sync code."""
        return self._task.callers.sync_client.resume_schedule(self.name)

    async def delete(self) -> None:
        """Forget it; the runs that it made stay."""
        await self._task.callers.client.delete_schedule(self.name)

    def delete_sync(self) -> None:
        """Do as `delete`, in sync code."""
        self._task.callers.sync_client.delete_schedule(self.name)

    def __repr__(self) -> str:
        return f"ScheduleRef({self._task.name!r}, {self.name!r})"
