"""Workers and tasks as they are registered, in memory: read from the database at start and after every change."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.domain.events import EventFilter
from hurlbat_dispatcher.domain.gathering import DEFAULT_BATCH_MS, Gather, GatherKind
from hurlbat_dispatcher.domain.policies import (
    ConcurrencyRule,
    FlowPolicy,
    Label,
    RateRule,
    StaticLimit,
    Sticky,
    Strategy,
    throttle_prefix,
)
from hurlbat_dispatcher.domain.runs import Backoff, Task
from hurlbat_dispatcher.domain.workers import Mode, Worker, WorkerState
from hurlbat_dispatcher.graphs import to_graph
from hurlbat_dispatcher.incoming.auth import stored_auth
from hurlbat_dispatcher.incoming.making import Webhook
from hurlbat_dispatcher.keyring import Stored, signing, told_of
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.secrecy import Vault
from hurlbat_dispatcher.store.events import FilterRow
from hurlbat_dispatcher.store.limits import Limited
from hurlbat_dispatcher.store.webhooks import WebhookRow
from hurlbat_dispatcher.store.workers import Registered, TaskRow, WorkerRow

WAYS: Final = {
    "on_events",
    "filters",
    "crons",
    "debounce",
    "batch_size",
    "batch_timeout",
    "batch_key",
    "throttle",
    "on_failure",
    "graph",
}
"""Members of a policy that are shown as they were declared."""


@dataclass(slots=True)
class Registry:
    """What is registered, by name. Replaced in place, so that whoever holds it sees the newest."""

    workers: dict[str, Worker] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    removed: dict[str, Task] = field(default_factory=dict)
    """Workflows that are there only for the runs that they have."""
    policies: dict[str, TaskPolicy] = field(default_factory=dict)
    secrets: dict[str, list[Stored]] = field(default_factory=dict, repr=False)
    limits: dict[str, StaticLimit] = field(default_factory=dict)
    """Static rate limits by key."""
    pauses: dict[str, int | None] = field(default_factory=dict)
    """Rate limit keys that are paused, as `RateDraw.name` says them, until when (ms); None until they are resumed."""
    filters: dict[str, tuple[EventFilter, ...]] = field(default_factory=dict)
    """Filters that were made by hand, by their task; those of a policy stand in it."""

    webhooks: dict[str, Webhook] = field(default_factory=dict, repr=False)
    _webhook_rows: dict[str, WebhookRow] = field(default_factory=dict, repr=False)

    def replace(self, registered: Registered, vault: Vault, now: int) -> None:
        """Take what was read from the database."""
        workers, tasks = registered
        self.secrets = {row.name: vault.unlock(row.secrets) for row in workers}
        self.workers = {row.name: to_worker(row, self.secrets[row.name], now) for row in workers}
        self.targets = {row.name: to_target(row, vault, now) for row in workers}
        policies = {row.name: TaskPolicy.model_validate_json(row.policy) for row in tasks}
        serving: dict[str, list[str]] = {}
        for worker in self.workers.values():
            for name in worker.tasks:
                serving.setdefault(name, []).append(worker.name)
        known = {row.name: to_task(row, policies[row.name], tuple(sorted(serving.get(row.name, ())))) for row in tasks}
        gone = {row.name for row in tasks if row.removed_at is not None}
        self.policies = {name: policy for name, policy in policies.items() if name not in gone}
        self.tasks = {name: task for name, task in known.items() if name not in gone}
        self.removed = {name: known[name] for name in gone}

    def limit(self, limited: Limited) -> None:
        """Take the rate limits and pauses that were read from the database."""
        limits, pauses = limited
        self.limits = {row.key: StaticLimit(row.key, row.most, row.duration, row.updated_at) for row in limits}
        self.pauses = {row.key: row.until for row in pauses}

    def hook(self, rows: Sequence[WebhookRow], vault: Vault) -> None:
        """Take the webhooks that were read from the database; what has not changed is not decrypted again."""
        known = self._webhook_rows
        self.webhooks = {
            row.name: self.webhooks[row.name] if known.get(row.name) == row else to_webhook(row, vault) for row in rows
        }
        self._webhook_rows = {row.name: row for row in rows}

    def filter(self, rows: Sequence[FilterRow]) -> None:
        """Take the filters of events that were read from the database."""
        found: dict[str, list[EventFilter]] = {}
        for row in rows:
            found.setdefault(row.task, []).append(EventFilter(row.id, row.expression, row.scope, row.payload))
        self.filters = {task: tuple(filters) for task, filters in found.items()}


def to_worker(row: WorkerRow, keys: Sequence[Stored], now: int) -> Worker:
    """Make what is shown of a worker, with those of its keys that sign now (ms)."""
    return Worker(
        name=row.name,
        url=row.url,
        mode=Mode(row.mode),
        slots=row.slots,
        state=WorkerState(row.state),
        problem=row.problem,
        tasks=tuple(json.loads(row.tasks)),
        labels=MappingProxyType(json.loads(row.labels)),
        max_batch=row.max_batch,
        manifest=row.manifest,
        streams=bool(row.streams),
        created_at=row.created_at,
        updated_at=row.updated_at,
        last_seen_at=row.last_seen_at,
        pinned=row.pinned,
        keys=tuple(map(told_of, signing(keys, now))),
    )


def to_target(row: WorkerRow, vault: Vault, now: int) -> Target:
    """Make what is needed to send to a worker, with the secrets that sign now (ms)."""
    headers: dict[str, str] = vault.unlock(row.headers)
    keys: list[Stored] = vault.unlock(row.secrets)
    return Target(
        worker=row.name,
        url=row.url,
        mode=Mode(row.mode),
        keys=tuple(key["secret"] for key in signing(keys, now)),
        told=tuple(map(told_of, keys)),
        headers=MappingProxyType(headers),
        streams=bool(row.streams),
    )


def to_webhook(row: WebhookRow, vault: Vault) -> Webhook:
    """Make what is needed to take a webhook's deliveries in."""
    config = json.loads(row.config)
    rate = config["rate"]
    return Webhook(
        name=row.name,
        auth=stored_auth(config["auth"], vault.unlock(row.secret)),
        key=config["key"],
        scope=config["scope"],
        id=config["id"],
        max_bytes=config["max_bytes"],
        rate=None if rate is None else (rate[0], rate[1]),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def to_task(row: TaskRow, policy: TaskPolicy, workers: tuple[str, ...]) -> Task:
    """Make the part of a policy that the engine acts on."""
    wait = policy.backoff
    return Task(
        name=row.name,
        version=row.version,
        max_attempts=policy.retries + 1,
        backoff=Backoff(wait.strategy, wait.initial, wait.factor, wait.max, wait.delays, wait.jitter),
        execution_timeout=int(policy.execution_timeout * 1000),
        schedule_timeout=None if policy.schedule_timeout is None else int(policy.schedule_timeout * 1000),
        priority=policy.priority,
        workers=workers,
        flow=to_flow(policy),
        paused=bool(row.paused),
        gather=to_gather(policy),
        on_failure=policy.on_failure,
        graph=None if policy.graph is None else to_graph(policy.graph),
        ways=MappingProxyType(policy.model_dump(mode="json", include=WAYS)),
    )


def to_gather(policy: TaskPolicy) -> Gather | None:
    """Make the part of a policy that says how its submits are gathered."""
    wait = policy.debounce
    if wait is not None:
        longest = None if wait.max_wait is None else round(wait.max_wait * 1000)
        return Gather(GatherKind(wait.mode), round(wait.period * 1000), wait.key, longest)
    if policy.batch_size is not None:
        timeout = DEFAULT_BATCH_MS if policy.batch_timeout is None else round(policy.batch_timeout * 1000)
        return Gather(GatherKind.BATCH, timeout, policy.batch_key, size=policy.batch_size)
    return None


def to_flow(policy: TaskPolicy) -> FlowPolicy:
    """Make the part of a policy that says what a task's runs draw on; a throttle is a rate limit of the task's own."""
    throttle = policy.throttle
    own = (
        ()
        if throttle is None
        else (
            RateRule(
                None,
                throttle.key or "run.task",
                1,
                throttle.limit,
                throttle.period,
                prefix=throttle_prefix(policy.name),
            ),
        )
    )
    return FlowPolicy(
        concurrency=tuple(
            ConcurrencyRule(rule.key, rule.max_runs, Strategy(rule.strategy), rule.name) for rule in policy.concurrency
        ),
        rate_limits=tuple(
            RateRule(rule.key, rule.dynamic_key, rule.units, rule.limit, rule.duration) for rule in policy.rate_limits
        )
        + own,
        slot_cost=policy.slot_cost,
        labels=tuple(
            Label(key, wanted) if isinstance(wanted, str) else Label(key, wanted.value, wanted.required, wanted.weight)
            for key, wanted in sorted(policy.labels.items())
        ),
        sticky=None if policy.sticky is None else Sticky(policy.sticky),
    )
