"""Worlds for pytest: a fixture, and a decorator that runs async tests in its world. No plugin is needed."""

import functools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

from hurlbat.app import Hurlbat
from hurlbat.testing.world import World
from hurlbat_dispatcher.simulation.faults import Faults
from hurlbat_dispatcher.simulation.wire import AsgiApp

AsyncTest = Callable[..., Coroutine[Any, Any, None]]


def simulated(test: AsyncTest) -> Callable[..., None]:
    """Run an async test in the world that is among its fixtures: on virtual time, as a plain sync test.

    Put it on nearest to the function, below markers; leave out the markers of asyncio plugins.
    """

    @functools.wraps(test)
    def run(*args: Any, **named: Any) -> None:
        worlds = [given for given in (*args, *named.values()) if isinstance(given, World)]
        if len(worlds) != 1:
            raise TypeError(f"{test.__name__} needs one fixture that is a World, and has {len(worlds)}")
        worlds[0].run(test(*args, **named))

    return run


def world_fixture(
    hurlbat: Hurlbat,
    app: AsgiApp | None = None,
    *,
    seeds: Iterable[int] = (0,),
    faults: Callable[[int], Faults] | None = None,
    **options: Any,
) -> Any:
    """Make a pytest fixture that gives each test a fresh `World`; put it into `conftest.py` as `world = …`.

    A test runs once for each seed; `faults` says what goes wrong with a seed, e.g. `Faults.from_seed`. The options are
    those of `World`.
    """
    import pytest

    listed = list(seeds)

    def begin(seed: int) -> World:
        return World(hurlbat, app, seed=seed, faults=faults(seed) if faults else None, **options)

    @pytest.fixture
    def world() -> Iterator[World]:
        with begin(listed[0]) as made:
            yield made

    @pytest.fixture(params=listed, ids=lambda seed: f"seed-{seed}")
    def worlds(request: pytest.FixtureRequest) -> Iterator[World]:
        with begin(request.param) as made:
            yield made

    return world if len(listed) == 1 else worlds
