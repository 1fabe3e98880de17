"""What may be said of a task, of a workflow and of a node, as keyword arguments.

For type checkers, so the names of what takes a while to load are but texts here.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from hurlbat.limits import Sticky
from hurlbat.task import Task

if TYPE_CHECKING:
    from hurlbat.graph import AnyOf, OnEvent, Sleep, When
    from hurlbat.policy import Backoff, Concurrency, LabelWish, RateLimit, WantedLabel
    from hurlbat.triggers import Cron, Debounce, Filter, Throttle
    from hurlbat.workflow import Node

    Condition = Sleep | OnEvent | When | AnyOf | Mapping[str, Any]
    Conditions = Condition | Sequence[Condition]
    """One condition, or several of which all must be true."""

Given = Mapping[str, Any]
"""A part of a policy as a dict, as JSON has it."""


class FlowOptions(TypedDict, total=False):
    """What may be said of how runs start. Durations are in seconds."""

    schedule_timeout: float | None
    """From when a run is due to its start; off."""
    priority: int
    """Higher goes first; 2."""
    concurrency: "Concurrency | Sequence[Concurrency]"
    """How many runs at a time, for each value of a key."""
    rate_limits: "RateLimit | Sequence[RateLimit]"
    """What a run draws on."""
    throttle: "Throttle | Given | None"
    """How many runs start in any period."""


class WayOptions(TypedDict, total=False):
    """What may be said of how runs come to be."""

    on_events: str | Sequence[str]
    """Keys of events that start a run, or patterns with `*`."""
    filters: "Filter | Given | Sequence[Filter | Given]"
    """Which of these events do: a run for each filter that is true."""
    crons: "str | Cron | Given | Sequence[str | Cron | Given]"
    """At which times a run is made."""
    debounce: "Debounce | Given | None"
    """Lets one run stand for submits that follow each other closely."""


class AttemptOptions(TypedDict, total=False):
    """What may be said of how runs are carried out. Durations are in seconds."""

    retries: int
    """So many more starts after the first that failed; 0."""
    backoff: "Backoff | None"
    """How long to wait between them."""
    execution_timeout: float
    """From the start of the function; 300."""
    slot_cost: int
    """How many slots of its worker an attempt takes; 1."""
    labels: "Mapping[str, str | WantedLabel | LabelWish] | None"
    """Which workers it wants."""
    sticky: Sticky | None
    """Whether it wants the worker that last had the run's parent."""
    on_failure: str | Task[Any, Any] | None
    """The task that is run when a run has finally failed."""


class TaskOptions(FlowOptions, WayOptions, AttemptOptions, total=False):
    """What may be said of a task, besides how its inputs are gathered in batches."""

    name: str | None
    """What runs are submitted by; the function's name."""


class WorkflowOptions(FlowOptions, WayOptions, total=False):
    """What may be said of a workflow; how its runs are carried out is said of its nodes."""


class PlaceOptions(TypedDict, total=False):
    """What may be said of where a node stands in its workflow."""

    name: str | None
    """What it is called there; the name of its function or task."""
    parents: "Node[Any, Any] | str | Sequence[Node[Any, Any] | str]"
    """The nodes, or names of nodes, that must have ended well before; without any it begins with the workflow."""
    wait_for: "Conditions | None"
    """What must come true before it starts, once its parents have ended."""
    skip_if: "Conditions | None"
    """What lets it be skipped instead."""
    cancel_if: "Conditions | None"
    """What cancels it, and the nodes after it, until it has ended."""


class NodeOptions(PlaceOptions, FlowOptions, AttemptOptions, total=False):
    """What may be said of a function that is a node: where it stands, and its policy as a task."""
