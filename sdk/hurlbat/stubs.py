"""Tasks of other services: called by name and types, and served elsewhere."""

from typing import Any

from hurlbat.errors import TaskInvalid
from hurlbat.lineage import Callers
from hurlbat.shape import shape_elsewhere
from hurlbat.task import Task
from hurlbat.terms import Terms


def stub_of(name: str, input: Any, output: Any, callers: Callers) -> Task[Any, Any]:
    """Return a task that can be submitted and waited for, and nothing else. Raises `TaskInvalid`."""

    def stub(*_: Any, **__: Any) -> Any:
        raise TaskInvalid(f"task {name} is a stub: its function is in another service; have it run, e.g. by run()")

    terms = Terms(f"stub {name!r}", {"name": name}, "stub")
    return Task(stub, terms, shape_elsewhere(name, input, output), callers)
