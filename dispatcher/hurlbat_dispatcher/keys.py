"""What a run draws on, by its task's policy: the keys, units and limits that its expressions give for its input."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from hurlbat.policy import Concurrency, TaskPolicy
from hurlbat_dispatcher.crontab import CronInvalid, compile_cron
from hurlbat_dispatcher.domain.gathering import GatherKind
from hurlbat_dispatcher.domain.policies import (
    MAX_DURATION_MS,
    MAX_LIMIT,
    MAX_UNITS,
    MIN_DURATION_MS,
    PLAIN,
    ConcurrencyRule,
    Draws,
    GroupDraw,
    RateDraw,
    RateRule,
    StaticLimit,
    Sticky,
)
from hurlbat_dispatcher.domain.runs import Submission, Task
from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.expressions import (
    EVENT_VARIABLES,
    FILTER,
    KEY,
    MAX_SOURCE,
    NUMBER,
    SECONDS,
    VARIABLES,
    ExpressionError,
    Kind,
    as_key,
    as_seconds,
    as_whole,
    compile_expression,
    compile_for,
)
from hurlbat_dispatcher.graph_keys import check_graph

Number = TypeVar("Number", int, float)

_DECODE: Final = json.JSONDecoder().decode
"""As `json.loads`, in half the time."""


# -- at a submit -------------------------------------------------------------------------------------------------------


def draws_of(
    task: Task,
    submission: Submission,
    run_id: str,
    parent_worker: str | None,
    limits: Mapping[str, StaticLimit],
    scope: "Scope | None" = None,
) -> Draws:
    """Return what a run draws on.

    `parent_worker` is the worker that last had its parent, `limits` are the static ones by key, `scope` is the
    submit's, where there is one already. Raises `Invalid` with the rule and the member of the policy that cannot be:
    nothing may be stored then.
    """
    flow = task.flow
    if flow.is_plain:
        return PLAIN if flow.slot_cost == 1 else Draws(cost=flow.slot_cost)
    if scope is None:
        scope = Scope(task, submission, run_id)
    groups: list[GroupDraw] = []
    for place, rule in enumerate(flow.concurrency):
        group = _group(rule, place, task.name, scope)
        if group is not None:
            groups.append(group)
    rates = _rates(flow.rate_limits, scope, limits) if flow.rate_limits else ()
    if flow.sticky is None or parent_worker is None:
        return Draws(tuple(groups), rates, flow.slot_cost)
    return Draws(tuple(groups), rates, flow.slot_cost, parent_worker, flow.sticky is Sticky.HARD)


def gather_key(task: Task, scope: "Scope") -> str | None:
    """Return the value of the key by which a task gathers its submits, `""` where it has none; None for null.

    A null is not gathered. Raises `Invalid` as `draws_of` does.
    """
    gather = task.gather
    if gather is None or gather.key is None:
        return None if gather is None else ""
    try:
        return as_key(compile_expression(gather.key).evaluate(scope))
    except ExpressionError as error:
        if gather.kind is GatherKind.BATCH:
            raise _At("batch", "").failed(error, "batch_key", gather.key) from None
        raise _At("debounce", "debounce").failed(error, "key", gather.key) from None


class Scope(dict[str, Any]):
    """The variables of one submit, each made when an expression first reads it."""

    __slots__ = ("_run_id", "_submission", "_task")

    def __init__(self, task: Task, submission: Submission, run_id: str) -> None:
        self._task, self._submission, self._run_id = task, submission, run_id

    def __missing__(self, name: str) -> Any:
        made: Any
        if name == "input":
            made = _parsed(self._submission.input, name)
        elif name == "metadata":
            made = _parsed(self._submission.metadata, name)
        elif name == "run":
            task, asked = self._task, self._submission
            priority = task.priority if asked.priority is None else asked.priority
            made = {"id": self._run_id, "task": task.name, "priority": priority, "parent": asked.parent}
        else:
            raise KeyError(name)
        self[name] = made
        return made


def _parsed(text: str, name: str) -> Any:
    try:
        return _DECODE(text)
    except (ValueError, RecursionError):
        raise ExpressionError(f"the {name} of the run is no JSON that can be read") from None


def _group(rule: ConcurrencyRule, place: int, task: str, scope: Scope) -> GroupDraw | None:
    name = rule.id_for(task)
    try:
        value = as_key(compile_expression(rule.key).evaluate(scope))
    except ExpressionError as error:
        raise _At(name, f"concurrency[{place}]").failed(error, "key", rule.key) from None
    return None if value is None else GroupDraw(name, value)


def _rates(rules: Sequence[RateRule], scope: Scope, limits: Mapping[str, StaticLimit]) -> tuple[RateDraw, ...]:
    """Return one draw for each key and duration, as two dynamic rules may come to the same."""
    found: dict[tuple[str, int], RateDraw] = {}
    for place, rule in enumerate(rules):
        draw = _dynamic(rule, place, scope) if rule.key is None else _static(rule, place, scope, limits)
        if draw is None:
            continue
        same = found.get((draw.key, draw.duration))
        if same is not None:
            draw = RateDraw(draw.key, draw.units + same.units, min(draw.limit, same.limit), draw.duration)
            if not draw.is_static and draw.units > draw.limit:
                raise _above(draw.units, draw.limit, _At(draw.name, f"rate_limits[{place}]"))
        found[draw.key, draw.duration] = draw
    return tuple(found.values())


def _static(rule: RateRule, place: int, scope: Scope, limits: Mapping[str, StaticLimit]) -> RateDraw | None:
    key = rule.key or ""
    at = _At(f"static:{key}", f"rate_limits[{place}]")
    limit = limits.get(key)
    if limit is None:
        raise at.refused("rate_limit_unknown", "key", f"there is no rate limit {key}; PUT /rate-limits/{key} first")
    units = _units(rule, scope, at)
    if units > limit.most > 0:
        raise _above(units, limit.most, at)
    return RateDraw(key, units) if units else None


def _dynamic(rule: RateRule, place: int, scope: Scope) -> RateDraw | None:
    source = rule.dynamic_key or ""
    throttles = bool(rule.prefix)
    at = _At("throttle", "throttle") if throttles else _At(f"dynamic:{source}", f"rate_limits[{place}]")
    try:
        key = as_key(compile_expression(source).evaluate(scope))
    except ExpressionError as error:
        raise at.failed(error, "key" if throttles else "dynamic_key", source) from None
    if key is None:
        return None
    key = rule.prefix + key
    units = _units(rule, scope, at)
    most = _number(rule.limit, as_whole, scope, at, "limit", (1, MAX_LIMIT))
    seconds = _number(
        rule.duration, as_seconds, scope, at, "duration", (MIN_DURATION_MS / 1000, MAX_DURATION_MS / 1000)
    )
    if units > most:
        raise _above(units, most, at)
    return RateDraw(key, units, most, round(seconds * 1000)) if units else None


class _At(NamedTuple):
    """A rule, by what identifies it, and its place in the policy; "" for a member of the policy itself."""

    rule: str
    place: str

    def refused(self, code: str, member: str, sentence: str, **more: Any) -> Invalid:
        """Return the refusal of a run for a member of the rule."""
        where = f"{self.place}.{member}" if self.place else member
        return Invalid(code, f"{where}: {sentence}", rule=self.rule, policy=where, **more)

    def failed(self, error: ExpressionError, member: str, source: str) -> Invalid:
        """Return the refusal of a run for which an expression fails."""
        code = error.code
        if code == "expression_invalid":
            code = "expression_failed"
        elif code == "number_wrong_type":
            code = f"{member}_invalid"
        return self.refused(code, member, error.sentence, expression=source)


def _units(rule: RateRule, scope: Scope, at: _At) -> int:
    return _number(rule.units, as_whole, scope, at, "units", (0, MAX_UNITS))


def _number(
    given: float | str | None,
    read: Callable[[Any], Number],
    scope: Scope,
    at: _At,
    member: str,
    bounds: tuple[float, float],
) -> Number:
    if not isinstance(given, str):
        return read(given)
    try:
        number = read(compile_expression(given).evaluate(scope))
    except ExpressionError as error:
        raise at.failed(error, member, given) from None
    low, high = bounds
    if not low <= number <= high:
        shown = f"{number:g}" if abs(number) < 1e300 else "beyond all bounds"
        sentence = f"{member} must be from {low:g} to {high:.0f}; this is {shown}"
        raise at.refused(f"{member}_invalid", member, sentence, expression=given)
    return number


def _above(units: int, most: int, at: _At) -> Invalid:
    sentence = f"the run takes {units} units, and the limit is {most}: it could never start"
    return at.refused("units_above_limit", "units", sentence, units=units, limit=most)


# -- at a registration -------------------------------------------------------------------------------------------------


def check_policy(policy: TaskPolicy) -> None:
    """Raise `ValueError`, with a sentence that names the member, for an expression that could never do.

    What else the rules must be is held by `TaskPolicy` itself.
    """
    for place, rule in enumerate(policy.concurrency):
        _check_expression(rule.key, KEY, f"task {policy.name}: concurrency[{place}].key")
    for place, limit in enumerate(policy.rate_limits):
        at = f"task {policy.name}: rate_limits[{place}]"
        _check_expression(limit.dynamic_key, KEY, f"{at}.dynamic_key")
        _check_expression(limit.units, NUMBER, f"{at}.units")
        _check_expression(limit.limit, NUMBER, f"{at}.limit")
        _check_expression(limit.duration, SECONDS, f"{at}.duration")
    task = f"task {policy.name}"
    if policy.throttle is not None:
        _check_expression(policy.throttle.key, KEY, f"{task}: throttle.key")
    if policy.debounce is not None:
        _check_expression(policy.debounce.key, KEY, f"{task}: debounce.key")
    _check_expression(policy.batch_key, KEY, f"{task}: batch_key")
    for place, cron in enumerate(policy.crons):
        try:
            compile_cron(cron.expression, cron.timezone)
        except CronInvalid as error:
            raise ValueError(f"{task}: crons[{place}].{error.field}: {error}") from None
    for place, one in enumerate(policy.filters):
        _check_expression(
            one.expression, FILTER, f"task {policy.name}: filters[{place}].expression", variables=EVENT_VARIABLES
        )
    if policy.graph is not None:
        check_graph(policy.name, policy.graph)


def check_policies(policies: Sequence[TaskPolicy], others: Mapping[str, TaskPolicy]) -> str | None:
    """Return what is wrong with policies that are to be registered, among `others` that are, by task; or None."""
    try:
        for policy in policies:
            check_policy(policy)
    except ValueError as error:
        return str(error)
    return _shared(policies, others)


def _shared(policies: Sequence[TaskPolicy], others: Mapping[str, TaskPolicy]) -> str | None:
    """Tell of a name of rules that has two strategies: runs of both would be in one group."""
    new = {policy.name for policy in policies}
    if not any(rule.name for policy in policies for rule in policy.concurrency):
        return None
    first: dict[str, tuple[str, Concurrency]] = {}
    for policy in (*policies, *(other for name, other in others.items() if name not in new)):
        for rule in policy.concurrency:
            if rule.name is None:
                continue
            task, known = first.setdefault(rule.name, (policy.name, rule))
            if known.strategy != rule.strategy and {task, policy.name} & new:
                return (
                    f"the concurrency rule {rule.name} has the strategy {known.strategy} in task {task} and"
                    f" {rule.strategy} in task {policy.name}; rules of one name share their groups, so give both one"
                )
    return None


def _check_expression(
    given: float | str | None, kind: Kind, where: str, *, variables: tuple[str, ...] = VARIABLES
) -> None:
    if not isinstance(given, str):
        return
    try:
        compile_for(given, kind, variables)
    except ExpressionError as error:
        place = "" if error.position is None else f", at character {error.position}"
        raise ValueError(f"{where}: the expression {given[:MAX_SOURCE]!r} is wrong{place}: {error.sentence}") from None
