"""The clocks of a world: skewed, jumping, and resting where nothing happens."""

import asyncio
import itertools

from hurlbat_dispatcher.simulation.clock import BEGIN_MS, LONGEST_REST, RestingClock, VirtualClock
from hurlbat_dispatcher.simulation.world import Simulation

DAY = 86_400


def test_a_clock_is_off_by_its_skew_and_jumps_while_its_monotonic_time_goes_on() -> None:
    with Simulation() as world:
        clock = VirtualClock(world.loop, skew=-3_600, uptime=500)
        world.run(asyncio.sleep(10))
        assert (clock.now_ms() - BEGIN_MS, clock.monotonic()) == (-3_590_000, 510)
        clock.jump(7_200)
        assert (clock.now_ms() - BEGIN_MS, clock.monotonic()) == (3_610_000, 510)


def naps(world: Simulation, clock: VirtualClock, seconds: float, span: float) -> list[float]:
    """Return when a duty that sleeps again and again woke."""
    woke: list[float] = []

    async def duty() -> None:
        while True:
            await clock.sleep(seconds)
            woke.append(world.loop.time())

    async def main() -> None:
        task = asyncio.create_task(duty())
        await asyncio.sleep(span)
        task.cancel()

    world.run(main())
    return woke


def test_a_duty_rests_longer_and_longer_where_nothing_happens() -> None:
    with Simulation() as world:
        woke = naps(world, RestingClock(world.loop, world.history), 2, 30 * DAY)
        pauses = [after - before for before, after in itertools.pairwise(woke)]
        assert set(pauses[:30]) == {2}
        assert max(pauses) == LONGEST_REST
        assert len(woke) < 200


def test_what_happens_wakes_a_duty_whose_time_has_come() -> None:
    with Simulation() as world:
        clock = RestingClock(world.loop, world.history)
        world.loop.call_later(DAY, world.note, "something")
        world.loop.call_later(DAY + 1, world.note, "something more")
        woke = naps(world, clock, 2, DAY + 10)
        assert [at - DAY for at in woke if at >= DAY] == [0, 2, 4, 6, 8]


def test_who_sleeps_briefly_has_something_to_do_and_does_not_rest() -> None:
    """Or a server whose database was lost for a moment tries again hours later."""
    with Simulation() as world:
        assert len(naps(world, RestingClock(world.loop, world.history), 0.5, 2_000.1)) == 4_000


def test_other_clocks_do_not_rest() -> None:
    with Simulation() as world:
        assert len(naps(world, world.clock, 2, 1_001)) == 500
