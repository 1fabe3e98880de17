"""Submissions are checked: the task is known, and what the run draws on is evaluated, once and for all."""

import hashlib
import json

from hurlbat.jsontext import members
from hurlbat_dispatcher.domain.gathering import GatherKind
from hurlbat_dispatcher.domain.graph import Graph
from hurlbat_dispatcher.domain.policies import name_lane
from hurlbat_dispatcher.domain.runs import MAX_METADATA_BYTES, Run, Submission, Task
from hurlbat_dispatcher.domain.workers import WorkerState
from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.keys import Scope, draws_of, gather_key
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store.kin import ParentRow
from hurlbat_dispatcher.turn.operations import Entry


def entry_of(run_id: str, tenant: int, submission: Submission, registry: Registry, parent_worker: str | None) -> Entry:
    """Return what a turn takes in. `parent_worker` is who last had the run's parent. Raises `Invalid`."""
    task = registry.tasks.get(submission.task)
    if task is None:
        raise Invalid("task_unknown", _no_task(registry, submission.task), field="task")
    if task.graph is not None:
        _check_nodes(registry, task.name, task.graph)
    if task.flow.slot_cost > 1:
        _check_cost(registry, task)
    scope = None if task.gather is None else Scope(task, submission, run_id)
    draws, lane = name_lane(draws_of(task, submission, run_id, parent_worker, registry.limits, scope))
    digest = "" if submission.key is None else _digest(submission)
    gather = None if scope is None else _gathers(task, submission, scope, lane)
    return Entry(run_id, tenant, submission, task, draws, lane, digest, gather)


def child_of(parent: ParentRow, run_id: str, tenant: int, submission: Submission, registry: Registry) -> Entry:
    """Return what a turn takes in of a run that another one submits. Raises `Invalid`."""
    inherited = submission._replace(metadata=_inherited(parent.metadata, submission.metadata))
    entry = entry_of(run_id, tenant, inherited, registry, parent.worker)
    return entry._replace(root=parent.root or parent.id, digest=entry.digest and _digest(submission))


def _inherited(parents: str, own: str) -> str:
    """Return the members of both objects, the parent's first; where both have one, the child's own counts."""
    if parents == "{}" or own == "{}":
        return own if parents == "{}" else parents
    said = {name: member.text for text in (parents, own) for name, member in members(text, last_counts=True).items()}
    metadata = "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in said.items()) + "}"
    if len(metadata) > MAX_METADATA_BYTES or len(metadata.encode()) > MAX_METADATA_BYTES:
        raise Invalid(
            "member_too_large",
            f"metadata, with what it inherits from its parent, is larger than {MAX_METADATA_BYTES} bytes",
            field="metadata",
            limit=MAX_METADATA_BYTES,
        )
    return metadata


def without_gathered(run: Run, registry: Registry) -> Run:
    """Return a run as those are shown it whose submissions it took in: without the input that it has gathered.

    A thousand of them may be answered at once, and the input of a batch is as long as all of theirs.
    """
    task = registry.tasks.get(run.task)
    return run if task is None or task.gather is None else run._replace(input="null")


def _gathers(task: Task, submission: Submission, scope: Scope, lane: str) -> str | None:
    """Return what identifies what a submission gathers with; None where its key is null."""
    value = gather_key(task, scope)
    if task.gather is None or value is None:
        return None
    for member, given in (("delay", submission.delay), ("run_at", submission.run_at)):
        if given is not None:
            how = "batch_size" if task.gather.kind is GatherKind.BATCH else "debounce"
            raise Invalid(
                "gathered_not_delayed",
                f"the submits of {task.name} are gathered by its {how}, which decides when they start;"
                f" leave out {member}",
                field=member,
            )
    return task.gather.name(value, lane)


def _check_nodes(registry: Registry, workflow: str, graph: Graph) -> None:
    below, coming = {workflow}, [graph]
    while coming:
        for node in (*coming[-1].nodes.values(), *coming.pop().last):
            found = registry.tasks.get(node.task)
            if found is None or found.graph is None:
                continue
            if node.task == workflow:
                said = f"the workflow {workflow} would run itself without end; take one of the nodes out"
                raise Invalid("policy_invalid", said, field="task")
            if node.task not in below:
                below.add(node.task)
                coming.append(found.graph)
    for node in (*graph.nodes.values(), *graph.last):
        if node.task not in registry.tasks:
            raise Invalid(
                "task_unknown",
                f"the node {node.name} of the workflow {workflow}: {_no_task(registry, node.task)}",
                field="task",
                node=node.name,
            )


def _check_cost(registry: Registry, task: Task) -> None:
    most = max((registry.workers[name].slots for name in task.workers if name in registry.workers), default=None)
    if most is not None and task.flow.slot_cost > most:
        raise Invalid(
            "slot_cost_too_high",
            f"a run of {task.name} takes {task.flow.slot_cost} slots, and no worker that serves it has more than "
            f"{most}; give a worker more slots, or the task a smaller slot_cost",
            field="task",
            limit=most,
        )


def _no_task(registry: Registry, name: str) -> str:
    unproven = [worker.name for worker in registry.workers.values() if worker.state is WorkerState.PENDING]
    hint = f" (not proven yet: {', '.join(unproven[:5])})" if unproven else ""
    return f"there is no task {name}; register a worker that serves it first{hint}"


def _digest(submission: Submission) -> str:
    asked = [submission.task, submission.input, submission.metadata, submission.priority]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
