"""The simulated network: what arrives, what does not, and who knows."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher.simulation.faults import Fault, Faults
from hurlbat_dispatcher.simulation.process import Process
from hurlbat_dispatcher.simulation.wire import answering, asgi
from hurlbat_dispatcher.simulation.world import Simulation

URL = "https://far.example.com/path?q=1"
CALM = Faults.none()
PIECES = [b"one", b"two", b"three"]


class Far:
    """A far side that says three words, a second apart."""

    def __init__(self, world: Simulation, name: str = "far") -> None:
        self.seen = 0
        self.said = 0
        self.left = False
        self.process: Process = world.process(name)
        world.network.serve("far.example.com", answering(self.answer), self.process)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen += 1
        return httpx.Response(200, headers={"x-path": request.url.path}, content=self.words())

    async def words(self) -> AsyncIterator[bytes]:
        try:
            for piece in PIECES:
                await asyncio.sleep(1)
                self.said += 1
                yield piece
        except (asyncio.CancelledError, GeneratorExit):
            self.left = True
            raise


async def ask(world: Simulation) -> tuple[int, bytes]:
    async with httpx.AsyncClient(transport=world.network, timeout=None) as client:
        response = await client.post(URL, content=b"{}")
        return response.status_code, response.content


def run(main: Callable[[Simulation, Far], Any], faults: Faults = CALM, seed: int = 0) -> Far:
    with Simulation(seed, faults) as world:
        far = Far(world)
        world.run(main(world, far), within=3_600)
        return far


def test_an_answer_comes_piece_by_piece_in_order() -> None:
    async def main(world: Simulation, far: Far) -> None:
        request = httpx.Request("POST", URL, content=b"{}")
        response = await world.network.handle_async_request(request)
        assert (response.status_code, response.headers["x-path"]) == (200, "/path")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        came = [(piece, int(world.loop.time())) async for piece in response.stream]
        assert came == [(b"one", 1), (b"two", 2), (b"three", 3)]

    run(main)


def test_pieces_sent_at_once_keep_their_order() -> None:
    words = [str(n).encode() for n in range(50)]

    async def all_at_once() -> AsyncIterator[bytes]:
        for word in words:
            yield word

    async def main(world: Simulation, far: Far) -> None:
        async def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(200, content=all_at_once())

        world.network.serve("far.example.com", answering(answer), far.process)
        assert await ask(world) == (200, b"".join(words))

    run(main)


def failing(faults: Faults, error: type[Exception], seed: int = 0) -> Far:
    async def main(world: Simulation, far: Far) -> None:
        with pytest.raises(error):
            await ask(world)
        await asyncio.sleep(30)

    return run(main, faults, seed)


def test_a_refused_request_is_never_seen() -> None:
    assert failing(Faults(refused=1), httpx.ConnectError).seen == 0


def test_a_connection_that_nobody_answers_times_out() -> None:
    assert failing(Faults(unconnected=1), httpx.ConnectTimeout).seen == 0


def test_a_request_whose_answer_is_lost_was_executed() -> None:
    outcomes = set()

    async def main(world: Simulation, far: Far) -> None:
        try:
            async with asyncio.timeout(60):
                await ask(world)
        except (httpx.ReadError, TimeoutError) as error:
            outcomes.add(type(error))
        assert far.seen == 1

    for seed in range(12):
        run(main, Faults(answer_lost=1), seed)
    assert outcomes == {httpx.ReadError, TimeoutError}


def test_a_black_hole_lasts_as_long_as_one_waits() -> None:
    async def main(world: Simulation, far: Far) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(100):
                await ask(world)
        assert world.loop.time() == 100

    assert run(main, Faults(black_hole=1)).seen == 0


def test_whoever_has_a_timeout_for_reading_waits_no_longer() -> None:
    async def main(world: Simulation, far: Far) -> None:
        async with httpx.AsyncClient(transport=world.network, timeout=0.5) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(URL)
        far.process.pause()
        async with httpx.AsyncClient(transport=world.network, timeout=20) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(URL)
        assert 20 < world.loop.time() < 22

    run(main)


def test_a_duplicated_request_is_seen_twice_and_answered_once() -> None:
    async def main(world: Simulation, far: Far) -> None:
        assert await ask(world) == (200, b"onetwothree")
        await asyncio.sleep(60)
        assert (far.seen, far.said) == (2, 6)

    run(main, Faults(duplicated=1))


@pytest.mark.parametrize(("fault", "at_least"), [(Fault.LATE, 20.0), (Fault.SLOW, 3.0)])
def test_a_late_or_slow_answer_comes_whole(fault: Fault, at_least: float) -> None:
    async def main(world: Simulation, far: Far) -> None:
        assert await ask(world) == (200, b"onetwothree")
        assert world.loop.time() > at_least

    faults = {Fault.LATE: Faults(late=1), Fault.SLOW: Faults(slow=1)}
    run(main, faults[fault])


def test_an_answer_that_is_cut_breaks_off_in_the_middle() -> None:
    failing(Faults(cut=1), httpx.ReadError)


def test_an_answer_that_ends_early_looks_whole() -> None:
    lengths = set()

    async def main(world: Simulation, far: Far) -> None:
        status, body = await ask(world)
        assert status == 200
        assert b"onetwothree".startswith(body)
        lengths.add(len(body))

    for seed in range(12):
        run(main, Faults(ended_early=1), seed)
    assert lengths == {1, 4, 8}


def test_garbage_takes_the_place_of_a_piece() -> None:
    async def main(world: Simulation, far: Far) -> None:
        _, body = await ask(world)
        assert body.endswith(b"three")
        assert body != b"onetwothree"

    run(main, Faults(garbage=1))


def test_a_wrong_status_comes_from_between_whether_or_not_the_request_arrived() -> None:
    seen = set()

    async def main(world: Simulation, far: Far) -> None:
        status, body = await ask(world)
        assert status >= 300
        assert body == b"from between"
        await asyncio.sleep(10)
        seen.add(far.seen)

    for seed in range(12):
        run(main, Faults(wrong_status=1), seed)
    assert seen == {0, 1}


def test_a_later_request_may_overtake() -> None:
    order: list[int] = []

    async def main(world: Simulation, far: Far) -> None:
        async def note(request: httpx.Request) -> httpx.Response:
            order.append(int(request.content))
            return httpx.Response(200)

        world.network.serve("far.example.com", answering(note), far.process)
        async with httpx.AsyncClient(transport=world.network, timeout=None) as client, asyncio.TaskGroup() as group:
            for n in range(10):
                group.create_task(client.post(URL, content=str(n).encode()))
                await asyncio.sleep(0.1)

    run(main, Faults(reordered=0.5))
    assert sorted(order) == list(range(10)) != order


def test_nobody_answers_for_a_dead_host_or_one_that_is_away() -> None:
    async def main(world: Simulation, far: Far) -> None:
        world.network.hosts["far.example.com"].away = True
        with pytest.raises(httpx.ConnectError):
            await ask(world)
        world.network.hosts["far.example.com"].away = False
        far.process.kill()
        with pytest.raises(httpx.ConnectError):
            await ask(world)

    assert run(main).seen == 0


def test_a_host_that_dies_resets_its_connections() -> None:
    async def main(world: Simulation, far: Far) -> None:
        world.loop.call_later(1.5, far.process.kill)
        with pytest.raises(httpx.ReadError):
            await ask(world)

    assert run(main).said == 1


def test_a_paused_host_is_silent_until_it_goes_on() -> None:
    async def main(world: Simulation, far: Far) -> None:
        far.process.stall(50)
        assert await ask(world) == (200, b"onetwothree")
        assert world.loop.time() > 50

    run(main)


def test_a_far_side_hears_that_whoever_asked_is_dead() -> None:
    async def main(world: Simulation, far: Far) -> None:
        asking = world.process("asking")
        asking.spawn(ask(world))
        await asyncio.sleep(1.5)
        asking.kill()
        await asyncio.sleep(0.1)
        assert (far.said, far.left) == (1, True)

    run(main)


def test_an_application_streams_and_hears_of_a_disconnect() -> None:
    said: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        said.append(f"{scope['method']} {scope['path']} {scope['query_string'].decode()}")
        said.append((await receive())["body"].decode())
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-one", b"1")]})
        await send({"type": "http.response.body", "body": b"begin", "more_body": True})
        said.append((await receive())["type"])

    async def main(world: Simulation, far: Far) -> None:
        world.network.serve("far.example.com", asgi(app), far.process)
        request = httpx.Request("POST", URL, content=b"hello")
        response = await world.network.handle_async_request(request)
        assert (response.status_code, response.headers["x-one"]) == (201, "1")
        async for piece in response.aiter_raw():
            assert piece == b"begin"
            break
        await response.aclose()
        await asyncio.sleep(1)

    run(main)
    assert said == ["POST /path q=1", "hello", "http.disconnect"]


def test_an_application_that_fails_resets_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("no")

    async def main(world: Simulation, far: Far) -> None:
        world.network.serve("far.example.com", asgi(app), far.process)
        with pytest.raises(httpx.ReadError):
            await ask(world)

    run(main)
