"""Who listens to an event, and which runs it is to start: patterns, then filters, then what any submit is held to.

A task listens by its policy, as long as a registered worker serves it. One without filters gets a run for each event
of its keys; one with filters gets a run for each of them that is true, and nothing else.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.clock import Ids
from hurlbat_dispatcher.domain.events import EventFilter, Listeners, StartOutcome
from hurlbat_dispatcher.domain.runs import Submission
from hurlbat_dispatcher.domain.triggers import by_event
from hurlbat_dispatcher.entries import entry_of
from hurlbat_dispatcher.errors import Problem
from hurlbat_dispatcher.expressions import EVENT_VARIABLES, ExpressionError, as_bool, compile_expression
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.turn.operations import EventStart, Publication

_DECODE: Final = json.JSONDecoder().decode


class Listening:
    """Knows who listens, by the registry as it is."""

    def __init__(self, registry: Registry, ids: Ids) -> None:
        self._registry = registry
        self._ids = ids
        self._policies: Mapping[str, TaskPolicy] = {}
        self._listeners = Listeners(())
        self._filters: dict[str, tuple[EventFilter, ...]] = {}

    def starts(self, event: Publication) -> list[EventStart]:
        """Return what is to come of an event for each that listens, by task and in the order of its filters."""
        return list(self._starts(event))

    def own_filters(self, task: str) -> tuple[EventFilter, ...]:
        """Return the filters that stand in a task's policy."""
        self._learn()
        return self._filters.get(task, ())

    def _starts(self, event: Publication) -> Iterator[EventStart]:
        self._learn()
        scope = _Scope(event)
        for name in self._listeners.of(event.key):
            task = self._registry.tasks.get(name)
            if task is None or not task.is_served:
                continue
            filters = self._filters.get(name, ()) + self._registry.filters.get(name, ())
            seeing = [one for one in filters if one.sees(event.scope)]
            if not filters:
                yield self._start(event, name, None)
            elif not seeing:
                yield _unseen(event, name, filters)
            for one in seeing:
                yield self._judge(event, name, one, scope)

    def _judge(self, event: Publication, task: str, one: EventFilter, scope: "_Scope") -> EventStart:
        if one.expression is not None:
            try:
                scope["payload"] = _parsed(one.payload, "filter's payload")
                passes = as_bool(compile_expression(one.expression, EVENT_VARIABLES).evaluate(scope))
            except ExpressionError as error:
                return EventStart(task, one.expression, StartOutcome.FAILED, reason=f"the filter: {error.sentence}")
            if not passes:
                return EventStart(task, one.expression, StartOutcome.FILTERED)
        return self._start(event, task, one)

    def _start(self, event: Publication, task: str, one: EventFilter | None) -> EventStart:
        expression, payload = (None, None) if one is None else (one.expression, one.payload)
        trigger = by_event(event.id, event.key, event.scope, filter=expression, payload=payload)
        asked = Submission(task, event.payload, event.metadata, event.priority, trigger=trigger)
        try:
            entry = entry_of(self._ids.new(), event.tenant, asked, self._registry, None)
        except Problem as problem:
            return EventStart(task, expression, StartOutcome.FAILED, reason=problem.detail)
        return EventStart(task, expression, StartOutcome.STARTED, entry)

    def _learn(self) -> None:
        """Look who listens, if the tasks have changed since."""
        policies = self._registry.policies
        if self._policies is not policies:
            self._policies = policies
            self._listeners = Listeners((name, policy.on_events) for name, policy in policies.items())
            self._filters = {name: _own(policy) for name, policy in policies.items() if policy.filters}


class _Scope(dict[str, Any]):
    """The variables of one event, each made when a filter first reads it."""

    __slots__ = ("_event",)

    def __init__(self, event: Publication) -> None:
        self._event = event

    def __missing__(self, name: str) -> Any:
        event, made = self._event, None
        if name == "input":
            made = _parsed(event.payload, "event's payload")
        elif name == "metadata":
            made = _parsed(event.metadata, "event's metadata")
        elif name == "event":
            made = {"id": event.id, "key": event.key, "scope": event.scope}
        else:
            raise KeyError(name)
        self[name] = made
        return made


def _parsed(text: str, what: str) -> Any:
    try:
        return _DECODE(text)
    except (ValueError, RecursionError):
        raise ExpressionError(f"the {what} is no JSON that can be read") from None


def _own(policy: TaskPolicy) -> tuple[EventFilter, ...]:
    return tuple(
        EventFilter(f"policy.{place}", one.expression, one.scope, json.dumps(one.payload, separators=(",", ":")))
        for place, one in enumerate(policy.filters)
    )


def _unseen(event: Publication, task: str, filters: tuple[EventFilter, ...]) -> EventStart:
    """Tell once of a task whose filters are all for other scopes, however many they are."""
    only = filters[0].expression if len(filters) == 1 else None
    scope = "an event without a scope" if event.scope is None else f"the scope {event.scope}"
    return EventStart(task, only, StartOutcome.FILTERED, reason=f"no filter of the task is for {scope}")
