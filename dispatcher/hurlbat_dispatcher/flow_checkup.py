"""What must hold of flow control in the rows of one snapshot: lanes, groups and rate limits."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from hurlbat_dispatcher.domain.budgets import SUB_WINDOWS
from hurlbat_dispatcher.domain.policies import Draws, GroupDraw, read_draws
from hurlbat_dispatcher.findings import Code, Finding, Severity
from hurlbat_dispatcher.store.flow_checkup import FlowSight, SeenLane, SeenUse

REPORT: Final = "nothing that Hurlbat does leaves such a row: if nobody changed it by hand, please report it"


def slots_taken(flow: FlowSight) -> Counter[str]:
    """Return how many slots are taken of each worker."""
    costs = {lane.id: draws.cost for lane, draws in _read(flow)}
    taken: Counter[str] = Counter()
    for load in flow.loads:
        taken[load.worker] += load.attempts * costs.get(load.lane, 1)
    return taken


def may_be_held(flow: FlowSight) -> frozenset[int]:
    """Return the lanes whose runs may wait for something besides a slot: of their keys, their worker, or a pause."""
    paused = {task.name for task in flow.tasks if task.paused}
    return frozenset(
        lane.id
        for lane, draws in _read(flow)
        if lane.task in paused or draws.groups or draws.rates or draws.worker or draws.cost > 1
    )


def flow_violations(flow: FlowSight, now: int, settling: int) -> Iterator[Finding]:
    """Find what must never be; `settling` (ms) is how long what was changed may be unknown to a server."""
    for lane in flow.lanes:
        if _draws(lane) is None or lane.digest != hashlib.sha256(lane.draws.encode()).hexdigest()[:40]:
            says = f"lane {lane.id} of the task {lane.task} has a digest that is not that of what its runs draw on"
            yield Finding(Code.LANE_MISNAMED, Severity.VIOLATION, str(lane.id), f"{says}; {REPORT}")
    yield from _groups(flow, settling)
    for use in flow.uses:
        if use.units < 1 or use.duration < 0 or use.bucket != use.last // max(1, use.duration // SUB_WINDOWS):
            says = f"the rate limit {use.key} has {use.units} units in the part {use.bucket} of its {use.duration} ms"
            yield Finding(Code.USE_IMPOSSIBLE, Severity.VIOLATION, use.key, f"{says}, last at {use.last}; {REPORT}")
    yield from _rates(flow, now, settling)


def _groups(flow: FlowSight, settling: int) -> Iterator[Finding]:
    """Hold groups to the largest number that a task says: a task that nobody serves does not count."""
    caps: dict[str, int] = {}
    changed: dict[str, int] = {}
    for task in flow.tasks:
        for rule in json.loads(task.policy).get("concurrency", ()):
            own = f"name:{rule['name']}" if rule.get("name") is not None else f"task:{task.name}:{rule['key']}"
            caps[own] = max(caps.get(own, 0), rule["max_runs"])
            changed[own] = max(changed.get(own, 0), task.updated_at)
    draws = {lane.id: found for lane, found in _read(flow)}
    used: Counter[GroupDraw] = Counter()
    started: defaultdict[GroupDraw, int] = defaultdict(int)
    for load in flow.loads:
        for group in draws[load.lane].groups if load.lane in draws else ():
            used[group] += load.attempts
            started[group] = max(started[group], load.started_at)
    for group, count in sorted(used.items()):
        cap = caps.get(group.rule)
        if cap is not None and count > cap and started[group] > changed[group.rule] + settling:
            yield Finding(
                Code.GROUP_OVERSOLD,
                Severity.VIOLATION,
                group.rule,
                f"the concurrency group {group.value} of {group.rule} has {count} runs, and may have {cap};"
                " please report it",
            )


def _rates(flow: FlowSight, now: int, settling: int) -> Iterator[Finding]:
    """Hold what counts now to the limit; where runs bring limits of their own, to the largest of them."""
    most = {(f"static:{limit.key}", limit.duration): (limit.most, limit.updated_at) for limit in flow.limits}
    for _, draws in _read(flow):
        for rate in draws.rates:
            if not rate.is_static:
                key = rate.name, rate.duration
                most[key] = max(most.get(key, (0, 0))[0], rate.limit), 0
    counting: defaultdict[tuple[str, int], list[SeenUse]] = defaultdict(list)
    for use in flow.uses:
        if use.last <= now < use.last + use.duration:
            counting[use.key, use.duration].append(use)
    for key, uses in sorted(counting.items()):
        if key not in most:
            continue
        limit, changed = most[key]
        units, last = sum(use.units for use in uses), max(use.last for use in uses)
        if units > limit and last > changed + settling:
            says = f"{units} units of the rate limit {key[0]} started within {key[1]} ms, and {limit} may"
            yield Finding(Code.RATE_OVERSOLD, Severity.VIOLATION, key[0], f"{says}; please report it")


def _read(flow: FlowSight) -> Iterator[tuple[SeenLane, Draws]]:
    for lane in flow.lanes:
        draws = _draws(lane)
        if draws is not None:
            yield lane, draws


def _draws(lane: SeenLane) -> Draws | None:
    try:
        return read_draws(lane.draws)
    except (ValueError, TypeError, AttributeError):
        return None
