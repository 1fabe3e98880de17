"""Test an app with its tasks in a virtual world: the real server, no sockets, and days that pass in milliseconds.

    world = world_fixture(hurlbat, app)          # in conftest.py: a pytest fixture

    @simulated
    async def test_a_reminder_is_sent_after_three_days(world: World) -> None:
        ref = await remind.run_no_wait(delay=3 * 86_400)
        await world.advance(days=3)
        assert (await ref.status()).state == "completed"

The engine, its database, the signed deliveries and the worker's handler are those of production; what is virtual is
time, and what is simulated is the network and the disk below. Needs `pip install hurlbat[server]`.
"""

try:
    from hurlbat.testing.fixtures import simulated, world_fixture
    from hurlbat.testing.world import World, WrongLoop
    from hurlbat_dispatcher.simulation.faults import Faults
except ImportError as error:
    raise ImportError(f"hurlbat.testing runs the real server: pip install 'hurlbat[server]' ({error})") from error

__all__ = ["Faults", "World", "WrongLoop", "simulated", "world_fixture"]
