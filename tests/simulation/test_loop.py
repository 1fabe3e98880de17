"""The virtual loop: time, order, and what it refuses."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hurlbat_dispatcher.clock import Chance
from hurlbat_dispatcher.simulation import loop as loops
from hurlbat_dispatcher.simulation.loop import Deadlock, Livelock, VirtualLoop
from hurlbat_dispatcher.simulation.process import Process


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


def nobody_notes(who: str, what: str) -> None:
    """Write nothing down."""


def test_a_year_is_slept_in_no_time(loop: VirtualLoop) -> None:
    began = time.monotonic()
    loop.run_until_complete(asyncio.sleep(365 * 86_400))
    assert loop.time() == 365 * 86_400
    assert time.monotonic() - began < 30


def test_timers_fire_in_the_order_of_their_time(loop: VirtualLoop) -> None:
    fired: list[tuple[str, float]] = []

    async def after(seconds: float, name: str) -> None:
        await asyncio.sleep(seconds)
        fired.append((name, loop.time()))

    async def main() -> None:
        await asyncio.gather(after(3, "c"), after(1, "a"), after(2, "b"))

    loop.run_until_complete(main())
    assert fired == [("a", 1.0), ("b", 2.0), ("c", 3.0)]


def test_a_timeout_is_one_of_virtual_time(loop: VirtualLoop) -> None:
    async def main() -> None:
        async with asyncio.timeout(3_600):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(main())
    assert loop.time() == 3_600


def test_waiting_for_what_can_never_come_is_an_error(loop: VirtualLoop) -> None:
    task = loop.create_task(asyncio.Event().wait())
    with pytest.raises(Deadlock):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_a_circle_without_time_is_an_error(loop: VirtualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "MAX_AT_ONCE", 1_000)

    async def turn() -> None:
        while True:  # noqa: ASYNC110  # this is what is looked for
            await asyncio.sleep(0)

    task = loop.create_task(turn())
    with pytest.raises(Livelock):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)


def test_threads_are_refused(loop: VirtualLoop) -> None:
    with pytest.raises(RuntimeError, match="threads are refused"):
        loop.run_until_complete(asyncio.to_thread(time.monotonic))


def test_a_thread_from_outside_cannot_call_in(loop: VirtualLoop) -> None:
    refused: list[BaseException] = []

    def call_in() -> None:
        try:
            loop.call_soon_threadsafe(print)
        except RuntimeError as error:
            refused.append(error)

    async def main() -> None:
        thread = threading.Thread(target=call_in)
        thread.start()
        thread.join()

    loop.run_until_complete(main())
    assert "threads are refused" in str(refused[0])


def test_time_passes_as_it_really_does_while_an_allowed_thread_works() -> None:
    loop = VirtualLoop(threads=True)
    release = threading.Event()

    async def main() -> float:
        async with asyncio.timeout(60):  # would be over at once if time were virtual
            working = loop.run_in_executor(pool, release.wait, 10)
            loop.call_later(0.05, release.set)
            await working
            return loop.time()

    with ThreadPoolExecutor(1) as pool:
        assert 0.05 <= loop.run_until_complete(main()) < 10
    loop.close()


def order_of(seed: int | None) -> str:
    loop = VirtualLoop(None if seed is None else Chance(seed))
    said: list[str] = []

    async def say(name: str) -> None:
        for n in range(8):
            said.append(f"{name}{n}")
            await asyncio.sleep(0)

    for name in "xy":
        Process(name, loop, nobody_notes).spawn(say(name))
    loop.run_until_complete(asyncio.sleep(1))
    loop.close()
    assert [word for word in said if word[0] == "x"] == [f"x{n}" for n in range(8)]
    return "".join(word[0] for word in said)


def test_the_seed_decides_which_process_goes_first() -> None:
    orders = {order_of(seed) for seed in range(20)}
    assert len(orders) > 10
    assert order_of(7) == order_of(7)
    assert order_of(None) == "xy" * 8


def test_tasks_and_futures_have_the_same_place_in_a_set_in_every_loop() -> None:
    def places() -> list[int]:
        loop = VirtualLoop()
        futures = {loop.create_future(): n for n in range(9)}
        tasks = {loop.create_task(asyncio.sleep(0)): n for n in range(9)}
        order = [futures[one] for one in set(futures)] + [tasks[one] for one in set(tasks)]
        loop.run_until_complete(asyncio.gather(*tasks))
        loop.close()
        return order

    assert places() == places()


def test_timers_that_were_cancelled_do_not_pile_up_and_the_others_fire(loop: VirtualLoop) -> None:
    fired: list[int] = []

    async def main() -> None:
        for n in range(1_000):
            loop.call_later(10_000 + n, fired.append, -1).cancel()
            await asyncio.sleep(1)
        loop.call_later(5, fired.append, 1)
        assert len(loop._scheduled) < 250
        await asyncio.sleep(20_000)

    loop.run_until_complete(main())
    assert fired == [1]
