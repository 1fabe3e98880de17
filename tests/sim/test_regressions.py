"""What the simulator found that needs a scene of its own: its seed comes by too rarely to be told again by others."""

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from hurlbat_dispatcher import Accepted, EventSpec, Submission
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed
from hurlbat_dispatcher.simulation.faults import Faults
from hurlbat_dispatcher.simulation.world import Server
from hurlbat_dispatcher.turn import composing
from hurlbat_dispatcher.turn.operations import AttemptEnd, End, Operation, Publish, Recall
from hurlbat_dispatcher.writer import Writer
from tests.sim.bugs import swap
from tests.sim.composition_plan import CompositionPlan
from tests.sim.plan import Mood, Plan, TaskPlan, plan_of
from tests.sim.story import Story


def calm_plan() -> Plan:
    """A plan of one server of several, a protocol worker, and nothing that goes wrong."""
    plans = (plan for plan in map(plan_of, range(200)) if not plan.flow.on)
    plan = next(plan for plan in plans if plan.servers == 2 and not plan.workers[0].plain)
    worker = replace(plan.workers[0], tasks=tuple(task.name for task in plan.tasks), slots=4)
    slow = tuple(replace(task, seconds=1_000.0) for task in plan.tasks)
    return replace(
        plan, workers=(worker,), tasks=slow, faults=Faults.none(), moods=((Mood.STREAM, 1.0),), skews=(0.0, 0.0)
    )


def with_a_workflow(plan: Plan) -> Plan:
    """The same plan, whose last task is a workflow of one node, which an event cancels."""
    node = {"name": "a", "task": plan.tasks[-1].name, "parents": [], "cancel_if": [{"event": "stop", "look_back": 0.0}]}
    flow = {"name": "flow", "graph": {"nodes": [node]}}
    worker = replace(plan.workers[0], tasks=(*plan.workers[0].tasks, "flow"))
    tasks = (*plan.tasks, TaskPlan(flow, 0.0))
    return replace(plan, workers=(worker,), tasks=tasks, composition=CompositionPlan(True, (flow,)))


async def one_at_work(story: Story, task: str) -> tuple[Server, str]:
    """Start a server, and a run that is with its worker, or whose node is."""
    story.wire.calm = True
    await story.start("s0")
    await story.register()
    server = story.started["s0"]
    accepted: Accepted = await server.call(lambda engine: engine.submit(Submission(task, "{}")))
    assert accepted.created
    while not story.history.executed:
        await story.simulation.clock.sleep(0.1)
    return server, next(iter(story.history.executed))


def test_what_ends_in_the_turn_of_a_look_at_old_rows_is_not_sent_again(stack: ExitStack) -> None:
    """A look at what this server has in its hands was made from what it knew before the database was in trouble.

    It took an attempt for one that was never sent; the attempt ended in the same turn, was forgotten, and sent again.
    """
    swap(stack, Writer, "_in_hand", lambda _: lambda writer: frozenset())
    story = Story(calm_plan())

    async def main() -> None:
        server, run_id = await one_at_work(story, story.plan.tasks[0].name)
        parts = server.engine._parts
        assert parts is not None
        parts.writer._took = frozenset
        parts.writer.put(Recall())
        parts.writer.put(End([AttemptEnd(run_id, 1, Failed(ErrorCode.TASK_ERROR, "boom", retryable=False))]))
        await story.simulation.clock.sleep(5.0)
        assert story.rows[run_id].state == "failed"
        assert list(story.history.sent) == [(run_id, 1)]

    with story.simulation:
        story.simulation.run(main())
    assert story.history.violations == []


@pytest.mark.parametrize("planted", [False, True])
def test_a_node_is_cancelled_by_what_comes_in_the_turn_that_puts_it_back(planted: bool, stack: ExitStack) -> None:
    """The event was noted as come, and nobody looked at the node again."""
    if planted:
        swap(stack, composing, "_later", lambda _: lambda ledger, kind, run_id: None)
    ending: list[End] = []

    def make(put: Any) -> Any:
        def together(writer: Writer, operation: Operation) -> None:
            put(writer, operation)
            if isinstance(operation, Publish):
                put(writer, ending.pop())

        return together

    swap(stack, Writer, "put", make)
    story = Story(with_a_workflow(calm_plan()))

    async def main() -> None:
        server, node = await one_at_work(story, "flow")
        ending.append(End([AttemptEnd(node, 1, Failed(ErrorCode.TASK_ERROR, "boom"))]))
        await server.call(lambda engine: engine.events.publish(EventSpec("stop", "{}")))
        assert not ending
        assert story.rows[node].attempt == 1
        await story.simulation.clock.sleep(5.0)
        assert story.rows[node].cancelled_by == (None if planted else "condition")

    with story.simulation:
        story.simulation.run(main())
    assert bool(story.history.violations) == planted
