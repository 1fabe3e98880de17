"""The picture is read anew with few statements, however many lanes there are, and what it leaves out is read later."""

import pytest

from hurlbat_dispatcher import Submission
from hurlbat_dispatcher.store.statement import Fetch, Script, T
from hurlbat_dispatcher.turn import due
from tests.engine.world import World

pytestmark = pytest.mark.anyio

RANKED = {"name": "ranked", "concurrency": [{"key": "'one'", "max_runs": 60, "strategy": "CANCEL_NEWEST"}]}
KEYED = {"name": "keyed", "concurrency": [{"key": "string(input)", "max_runs": 1}]}


def counted(script: Script[T], asked: list[Fetch]) -> Script[T]:
    """Run a script, and keep what it asks for."""
    try:
        ask = next(script)
        while True:
            if isinstance(ask, Fetch):
                asked.append(ask)
            ask = script.send((yield ask))
    except StopIteration as done:
        result: T = done.value
        return result


async def test_many_lanes_are_read_at_once_and_read_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(due, "READ_AT_FIRST", 1)
    await world.worker("w", RANKED, KEYED)
    await world.engine.pause_worker("w")
    wanted = [Submission("ranked", "1") for _ in range(60)] + [Submission("keyed", str(n % 40)) for n in range(80)]
    answers = await world.engine.submit_many(wanted)
    runs = [answer.run.id for answer in answers if not isinstance(answer, Exception)]
    asked: list[Fetch] = []
    picture = world.parts.desk.picture
    await world.parts.database.write(counted(due.rebuild(world.parts.desk), asked))
    assert world.parts.desk.picture is not picture
    picture = world.parts.desk.picture
    assert len(asked) < 20, "a statement for each lane"
    held = sorted(len(lane.heap) for lane in picture.lanes.values())
    assert held == [2] * 40 + [due.FEWEST]
    (group,) = [group for group in picture.groups.values() if group.members]
    assert len(group.members) == 60
    await world.engine.resume_worker("w")
    assert {run.state for run in await world.all_ended(runs)} == {"completed"}
    assert len(runs) == 140
