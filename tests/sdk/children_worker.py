"""A worker whose tasks call one another, in threads and in the event loop, for a real server."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import Context, Hurlbat

hurlbat = Hurlbat()


@hurlbat.task
def double(number: int) -> int:
    """Return twice the number."""
    return number * 2


@hurlbat.task
async def double_later(number: int) -> int:
    """Return twice the number, in the event loop."""
    await asyncio.sleep(0)
    return number * 2


def _helper(number: int) -> int:
    return double.run_sync(number, child_key="helper")


@hurlbat.task(retries=2)
def in_threads(count: int, ctx: Context) -> list[int]:
    """Call children from a thread, from a function below, and from a thread of its own; fail once in between."""
    many = double_later.run_many_sync(list(range(count)), child_key="many")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(copy_context().run, _helper, count).result()
    if ctx.attempt == 1:
        raise ConnectionError("not yet")
    return [*many, other, double.run_no_wait_sync(count, child_key="left").result_sync()]


@hurlbat.task
async def in_the_loop(count: int) -> list[int]:
    """Call children from asyncio tasks and from a thread."""
    async with asyncio.TaskGroup() as group:
        some = [group.create_task(double.run(number)) for number in range(count)]
        other = group.create_task(asyncio.to_thread(hurlbat.sync_client.submit, "double", count))
    waited = await hurlbat.client.wait_for(other.result().id)
    return [task.result() for task in some] + [int(waited.output)]


@hurlbat.task(retries=5)
def stuck(number: int) -> int:
    """Wait for a child that needs its own slot."""
    return double.run_sync(number)


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())])
