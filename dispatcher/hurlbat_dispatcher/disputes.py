"""What is wrong with tasks that are to be registered, by themselves and among those that are."""

from collections.abc import Sequence

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.errors import Conflict, Invalid
from hurlbat_dispatcher.graph_keys import circle_of_workflows
from hurlbat_dispatcher.keys import check_policies
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store import workflows as store
from hurlbat_dispatcher.store.database import Database


class Disputes:
    """Settles what policies may be registered."""

    def __init__(self, tenant: int, database: Database, registry: Registry) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry

    async def settle(self, policies: Sequence[TaskPolicy], worker: str | None = None, **more: str) -> None:
        """Return when these policies may be registered: by a worker, or by someone for no worker.

        Raises `Invalid` for what can never work, with what `more` is to say, and `Conflict` for a name that is taken.
        """
        wrong = check_policies(policies, self._others(worker)) or circle_of_workflows(policies, self._registry.policies)
        if wrong is not None:
            raise Invalid("policy_invalid", wrong, **more)
        for policy in policies:
            taken = self._taken(policy, worker)
            if taken is not None:
                raise Conflict("name_taken", taken, **more)
        await self._check_open_runs(policies, more)

    def _others(self, worker: str | None) -> dict[str, TaskPolicy]:
        """Return the policies of tasks that have a say besides those of this worker.

        A task that nobody else serves has none any more when its own worker leaves it out.
        """
        known = self._registry
        return {
            name: known.policies[name]
            for name, task in known.tasks.items()
            if task.is_served and task.workers != (worker,)
        }

    def _taken(self, policy: TaskPolicy, worker: str | None) -> str | None:
        """Return why a name may not be that of a workflow, or of a task, as it is the other now; or None."""
        known = self._registry.tasks.get(policy.name)
        if known is None or not known.is_served or known.workers == (worker,) or not _turns(policy, known):
            return None
        if known.graph is None:
            return (
                f"the name {policy.name} is that of a task which {_listed(known)} serves; give the workflow another"
                " name, or register the worker without the task first"
            )
        declared = f", which {_listed(known)} declares" if known.workers else ""
        return (
            f"the name {policy.name} is that of a workflow{declared}; give the task another name, or remove the"
            f" workflow first: DELETE /workflows/{policy.name}"
        )

    async def _check_open_runs(self, policies: Sequence[TaskPolicy], more: dict[str, str]) -> None:
        """Raise `Conflict` for a workflow that was a task, or the other way round, while it has runs as such."""
        known = self._registry.tasks | self._registry.removed
        for policy in policies:
            task = known.get(policy.name)
            if task is None or not _turns(policy, task):
                continue
            was = "a task" if task.graph is None else "a workflow"
            script = store.open_run(self._tenant, policy.name, of_workflow=task.graph is not None)
            run = await self._database.read(script)
            if run is not None:
                raise Conflict(
                    "name_taken",
                    f"{policy.name} was {was}, and run {run} of it has not ended; let its runs end, or cancel them",
                    **more,
                )


def _turns(policy: TaskPolicy, known: Task) -> bool:
    """Tell whether a task becomes a workflow, or the other way round."""
    return (policy.graph is None) is not (known.graph is None)


def _listed(task: Task) -> str:
    return f"worker {task.workers[0]}" + (f" (and {len(task.workers) - 1} more)" if len(task.workers) > 1 else "")
