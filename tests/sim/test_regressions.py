"""What the simulator found that needs a scene of its own: its seed comes by too rarely to be told again by others."""

from contextlib import ExitStack
from dataclasses import replace

from hurlbat_dispatcher import Accepted, Submission
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed
from hurlbat_dispatcher.simulation.faults import Faults
from hurlbat_dispatcher.simulation.world import Server
from hurlbat_dispatcher.turn.operations import AttemptEnd, End, Recall
from hurlbat_dispatcher.writer import Writer
from tests.sim.bugs import swap
from tests.sim.plan import Mood, Plan, plan_of
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


async def one_at_work(story: Story) -> tuple[Server, str]:
    """Start a server, and a run that is with its worker."""
    story.wire.calm = True
    await story.start("s0")
    await story.register()
    server = story.started["s0"]
    task = story.plan.tasks[0].name
    accepted: Accepted = await server.call(lambda engine: engine.submit(Submission(task, "1")))
    while not story.history.executed[accepted.run.id]:
        await story.simulation.clock.sleep(0.1)
    return server, accepted.run.id


def test_what_ends_in_the_turn_of_a_look_at_old_rows_is_not_sent_again(stack: ExitStack) -> None:
    """A look at what this server has in its hands was made from what it knew before the database was in trouble.

    It took an attempt for one that was never sent; the attempt ended in the same turn, was forgotten, and sent again.
    """
    swap(stack, Writer, "_in_hand", lambda _: lambda writer: frozenset())
    story = Story(calm_plan())

    async def main() -> None:
        server, run_id = await one_at_work(story)
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
