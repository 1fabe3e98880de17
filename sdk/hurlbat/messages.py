"""Read the dispatcher's requests on the worker's side.

A message is read only after its signature was found good, so this is about what other dispatchers might get wrong, not
about attacks.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hurlbat.wire import HEARTBEAT_SECONDS, MessageType

Key = tuple[str, int]
"""What names an attempt: the run's id and the attempt's number."""


class BadMessage(ValueError):
    """A signed body that is not in the protocol."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """One attempt as it came in a `deliver` message, with its payloads as values."""

    run_id: str
    task: str
    attempt: int
    max_attempts: int
    input: Any = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    execution_timeout: float
    lease_token: str = field(repr=False)
    report_url: str
    trigger: Mapping[str, Any] | None = field(default=None, repr=False)
    parents: Mapping[str, Any] | None = field(default=None, repr=False)
    """Of a workflow's node, the output of each parent by its name."""

    @property
    def key(self) -> Key:
        """What names this attempt."""
        return self.run_id, self.attempt


@dataclass(frozen=True, slots=True)
class Cancellation:
    """One attempt that a `cancel` message names."""

    run_id: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class Message:
    """A request: what it asks for, for which worker at which URL, and about which attempts."""

    type: MessageType
    worker: str
    url: str
    deliveries: tuple[Delivered, ...] = ()
    cancellations: tuple[Cancellation, ...] = ()
    heartbeat: float = HEARTBEAT_SECONDS
    """Seconds of silence after which the sender wants a sign of life."""


def read_message(body: bytes) -> Message:
    """Return what a signed body says. Raises `BadMessage` with a sentence."""
    try:
        found = json.loads(body)
        kind, data = MessageType(found["type"]), found["data"]
        worker, url = data["worker"], data["url"]
        if not (isinstance(worker, str) and isinstance(url, str)):
            raise BadMessage("data.worker and data.url must be strings")
        match kind:
            case MessageType.DELIVER:
                deliveries = tuple([_delivered(run) for run in data["runs"]])
                return Message(kind, worker, url, deliveries=deliveries, heartbeat=_heartbeat(data))
            case MessageType.CANCEL:
                return Message(kind, worker, url, cancellations=tuple([_cancellation(run) for run in data["runs"]]))
        return Message(kind, worker, url)
    except KeyError as error:
        raise BadMessage(f"the member {error.args[0]!r} is missing") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage(str(error) or "the body is nested too deep") from error


def _heartbeat(data: Any) -> float:
    seconds = data.get("heartbeat", HEARTBEAT_SECONDS)
    if isinstance(seconds, bool) or not seconds > 0:
        raise BadMessage("heartbeat must be a number above 0")
    return float(seconds)


def _delivered(run: Any) -> Delivered:
    timeout = run["execution_timeout"]
    read = Delivered(
        run["run_id"],
        run["task"],
        run["attempt"],
        run["max_attempts"],
        run.get("input"),
        run.get("metadata") or {},
        timeout,
        run["lease_token"],
        run["report_url"],
        run.get("trigger"),
        run.get("parents"),
    )
    texts = (read.run_id, read.task, read.lease_token, read.report_url)
    if not all(type(text) is str for text in texts) or type(read.metadata) is not dict:
        raise BadMessage("run_id, task, lease_token and report_url must be strings, metadata an object")
    for name, value in (("trigger", read.trigger), ("parents", read.parents)):
        if value is not None and type(value) is not dict:
            raise BadMessage(f"{name} must be an object")
    if type(run["attempt"]) is not int or type(run["max_attempts"]) is not int:
        raise BadMessage("attempt and max_attempts must be integers")
    if isinstance(timeout, bool) or not timeout > 0:
        raise BadMessage("execution_timeout must be a number above 0")
    return read


def _cancellation(run: Any) -> Cancellation:
    if type(run["run_id"]) is not str or type(run["attempt"]) is not int:
        raise BadMessage("run_id must be a string and attempt an integer")
    return Cancellation(run["run_id"], run["attempt"], str(run.get("reason") or "cancelled"))
