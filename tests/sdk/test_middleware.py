"""Middleware: around each attempt, outside of what the task depends on, the first one outermost."""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from hurlbat import ConfigError, Context, Depends, Hurlbat, NonRetryable
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of

pytestmark = pytest.mark.anyio

Next = Callable[[], Awaitable[Any]]


class Order(BaseModel):
    id: int


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 4), failing=st.none() | st.integers(0, 3), lends=st.booleans(), sync=st.booleans())
def test_the_first_is_the_outermost_and_all_are_outside_of_dependencies(
    count: int, failing: int | None, lends: bool, sync: bool
) -> None:
    hurlbat, told = an_app(threads=1), list[str]()

    def add(number: int) -> None:
        @hurlbat.middleware
        async def around(ctx: Context, call_next: Next) -> Any:
            told.append(f"in {number}")
            if number == failing:
                raise LookupError(f"no {number}")
            try:
                return [number, *await call_next()]
            finally:
                told.append(f"out {number}")

    def lend() -> Iterator[str]:
        told.append("enter")
        yield "lent"
        told.append("leave")

    def use(given: str = Depends(lend) if lends else "by default") -> list[str]:
        told.append("task")
        return [given]

    async def use_async(given: str = Depends(lend) if lends else "by default") -> list[str]:
        return use(given)

    for number in range(count):
        add(number)
    hurlbat.task(name="use")(use if sync else use_async)
    result = asyncio.run(result_of(hurlbat, a_run("use")))

    reached = range(count if failing is None or failing >= count else failing)
    inside = ["enter", "task", "leave"] if lends else ["task"]
    within = inside if len(reached) == count else [f"in {failing}"]
    assert told == [*[f"in {n}" for n in reached], *within, *[f"out {n}" for n in reversed(reached)]]
    if len(reached) == count:
        assert result["output"] == [*reached, "lent" if lends else "by default"]
    else:
        assert (result["error"]["type"], result["error"]["message"]) == ("LookupError", f"no {failing}")


async def test_it_sees_the_input_the_task_and_what_comes_of_it(hurlbat: Hurlbat) -> None:
    told: list[Any] = []

    @hurlbat.middleware
    async def tell(ctx: Context, call_next: Next) -> Any:
        try:
            told.append((ctx.task, ctx.input, ctx.attempt))
            return await call_next()
        except ValueError as error:
            told.append(str(error))
            raise NonRetryable("never mind") from error

    @hurlbat.task
    async def use(order: Order) -> int:
        if order.id == 0:
            raise ValueError("no order")
        return order.id

    @hurlbat.task
    def nothing() -> None: ...

    assert (await result_of(hurlbat, a_run("use", {"id": 3})))["output"] == 3
    failed = await result_of(hurlbat, a_run("use", {"id": 0}, attempt=2))
    assert (failed["error"]["type"], failed["retryable"]) == ("NonRetryable", False)
    await result_of(hurlbat, a_run("nothing", [1]))
    assert told == [("use", Order(id=3), 1), ("use", Order(id=0), 2), "no order", ("nothing", [1], 1)]


async def test_what_it_returns_is_the_output_by_the_task_s_type(hurlbat: Hurlbat) -> None:
    @hurlbat.middleware
    async def instead(ctx: Context, call_next: Next) -> Any:
        return Order(id=9) if ctx.input == 1 else object()

    @hurlbat.task
    async def use(number: int) -> Any:
        raise AssertionError("it is not reached")

    assert (await result_of(hurlbat, a_run("use", 1)))["output"] == {"id": 9}
    assert (await result_of(hurlbat, a_run("use", 2, attempt=2)))["error"]["type"] == "invalid_output"


async def test_a_task_that_is_called_again_gets_everything_anew(hurlbat: Hurlbat) -> None:
    told: list[str] = []

    async def lend() -> AsyncIterator[int]:
        told.append("enter")
        yield len(told)
        told.append("leave")

    @hurlbat.middleware
    async def twice(ctx: Context, call_next: Next) -> Any:
        return [await call_next(), await call_next()]

    @hurlbat.task
    def use(number: Annotated[int, Depends(lend)]) -> Any:
        return number

    assert (await result_of(hurlbat, a_run("use")))["output"] == [1, 3]
    assert told == ["enter", "leave"] * 2


TENANT = contextvars.ContextVar("TENANT", default="nobody")


@pytest.mark.parametrize("sync", [False, True])
async def test_its_context_variables_are_those_of_the_task(hurlbat: Hurlbat, sync: bool) -> None:
    @hurlbat.middleware
    async def as_tenant(ctx: Context, call_next: Next) -> Any:
        token = TENANT.set("acme")
        try:
            return await call_next()
        finally:
            TENANT.reset(token)

    async def use() -> str:
        return TENANT.get()

    hurlbat.task(name="use")((lambda: TENANT.get()) if sync else use)
    assert (await result_of(hurlbat, a_run("use")))["output"] == "acme"


async def test_a_sync_task_within_starts_when_it_has_a_thread_and_so_does_its_middleware() -> None:
    hurlbat, gate, told = an_app(threads=1), threading.Event(), list[str]()

    @hurlbat.middleware
    async def tell(ctx: Context, call_next: Next) -> Any:
        told.append(ctx.run_id)
        return await call_next()

    @hurlbat.task
    def use() -> None:
        gate.wait(120)

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("use", run_id="a"), a_run("use", run_id="b")))
    await exchange.until(1, "started")
    await Exchange(hurlbat.asgi(), cancellation(("b", 1))).finish()
    gate.set()
    await exchange.finish()
    assert told == ["a"]


async def test_a_cancelled_task_is_cancelled_through_its_middleware(hurlbat: Hurlbat) -> None:
    told: list[str] = []

    @hurlbat.middleware
    async def tell(ctx: Context, call_next: Next) -> Any:
        try:
            return await call_next()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    @hurlbat.task
    async def use(ctx: Context) -> None:
        ctx.log("here")
        await asyncio.sleep(3600)

    exchange = Exchange(hurlbat.asgi(), delivery(a_run("use")))
    await exchange.until(1, "log")
    await Exchange(hurlbat.asgi(), cancellation(("run-use", 1))).finish()
    await exchange.finish()
    assert (told, exchange.results["run-use"]["error"]["type"]) == (["cancelled"], "cancelled")


async def test_a_middleware_may_bound_what_is_within(hurlbat: Hurlbat) -> None:
    @hurlbat.middleware
    async def bound(ctx: Context, call_next: Next) -> Any:
        try:
            async with asyncio.timeout(0.01):
                return await call_next()
        except TimeoutError:
            return "as it was"

    @hurlbat.task
    async def use() -> str:
        await asyncio.sleep(3600)
        return "new"

    assert (await result_of(hurlbat, a_run("use")))["output"] == "as it was"


async def test_an_input_that_is_refused_never_comes_to_it(hurlbat: Hurlbat) -> None:
    @hurlbat.middleware
    async def never(ctx: Context, call_next: Next) -> Any:
        raise AssertionError("it is not reached")

    @hurlbat.task
    async def use(order: Order) -> None: ...

    assert (await result_of(hurlbat, a_run("use", {})))["error"]["type"] == "invalid_input"
    assert (await result_of(hurlbat, a_run("elsewhere")))["error"]["type"] == "unknown_task"


async def a_middleware(ctx: Context, call_next: Next) -> Any:
    return await call_next()


def test_a_middleware_stays_the_function_that_it_was_and_what_is_none_is_refused(hurlbat: Hurlbat) -> None:
    assert hurlbat.middleware(a_middleware) is a_middleware
    with pytest.raises(ConfigError, match="middleware <lambda> must be an async function: async def <lambda>"):
        hurlbat.middleware(lambda ctx, call_next: call_next())

    async def alone(ctx: Context) -> None: ...

    refused: Any = alone
    with pytest.raises(ConfigError, match="alone is called with a Context and call_next, and cannot be: too"):
        hurlbat.middleware(refused)
