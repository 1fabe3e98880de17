"""Names that tasks and workflows would share, where workers declare them in their manifests."""

import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher import Conflict, WorkerState
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

ORDER = {"name": "order", "graph": {"nodes": [{"name": "echo"}]}}


async def test_a_manifest_that_takes_the_name_of_a_workflow_for_a_task_is_rejected_with_a_sentence(
    world: World,
) -> None:
    await world.engine.workflows.put(TaskPolicy.model_validate(ORDER))

    await world.worker("w", "echo", "order")

    found = await world.engine.get_worker("w")
    assert found.state is WorkerState.REJECTED
    assert found.problem == (
        "the name order is that of a workflow; give the task another name, or remove the workflow first:"
        " DELETE /workflows/order"
    )
    assert (await world.engine.get_task("order")).graph is not None


async def test_a_manifest_may_declare_the_workflow_that_is_there(world: World) -> None:
    await world.engine.workflows.put(TaskPolicy.model_validate(ORDER))

    await world.worker("w", "echo", ORDER)

    assert (await world.engine.get_worker("w")).state is WorkerState.READY
    assert (await world.engine.get_task("order")).workers == ("w",)


async def test_a_task_that_is_served_is_not_made_a_workflow_by_another_worker(world: World) -> None:
    await world.worker("w", "echo", "order")

    await world.worker("other", ORDER)
    problem = await refused(world.engine.workflows.put(TaskPolicy.model_validate(ORDER)))

    other = await world.engine.get_worker("other")
    assert (other.state, (await world.engine.get_task("order")).graph) == (WorkerState.REJECTED, None)
    assert "that of a task which worker w serves" in (other.problem or "")
    assert isinstance(problem, Conflict)
    assert problem.code == "name_taken"
