"""The tasks. Each gets its run's input, and an event that is set when the run is cancelled. It returns the output."""

import json
import traceback
from collections.abc import Callable
from threading import Event
from typing import Any


class Failure(Exception):
    """What a task raises to say whether it may be tried again, and after how many seconds."""

    def __init__(self, message: str, retryable: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.told = {"retryable": retryable, "retry_after": retry_after}


def shout(input: Any, _: Event) -> Any:
    return input["text"].upper()


def echo(input: Any, _: Event) -> Any:
    return input


def sleep(input: Any, cancelled: Event) -> Any:
    if cancelled.wait(input["seconds"]):
        raise Failure("cancelled")
    return {"slept": input["seconds"]}


def fail(input: Any, _: Event) -> Any:
    raise Failure(**input)


TASKS: dict[str, Callable[[Any, Event], Any]] = {
    "shout": shout,
    # what `hurlbat conform` tests with
    "conform.echo": echo,
    "conform.sleep": sleep,
    "conform.fail": fail,
}

# what the server is told of them: their names and policies
DECLARED = [{"name": name, "retries": 3} for name in TASKS]


def perform(task: str, input: Any, cancelled: Event) -> Any:
    """Run a task and return its run's result as it is told."""
    if task not in TASKS:
        return {"state": "failed", "error": {"type": "unknown_task", "message": f"{task} is not served here"}}
    try:
        output = TASKS[task](input, cancelled)
        if len(json.dumps(output, allow_nan=False)) > 1024 * 1024:
            raise Failure("an output of more than 1 MiB", retryable=False)
        return {"state": "completed", "output": output}
    except Exception as error:
        said = {"type": type(error).__name__, "message": str(error), "stack": traceback.format_exc()}
        return {"state": "failed", "error": said, **getattr(error, "told", {})}
