"""What a type checker knows of tasks that depend on something."""

from typing import Any

import pytest

from tests.sdk.test_imports_and_types import check

TYPED = """
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from hurlbat import Context, Depends, Hurlbat, Node, Task


@asynccontextmanager
async def lifespan(hurlbat: Hurlbat) -> AsyncIterator[dict[str, int]]:
    yield {"size": len(hurlbat.tasks)}


hurlbat = Hurlbat(lifespan=lifespan)


@dataclass
class Order:
    id: int


class Session: ...


def get_db(ctx: Context) -> Iterator[Session]:
    yield Session()


async def get_limit(db: Annotated[Session, Depends(get_db)]) -> int:
    return 3


Db = Annotated[Session, Depends(get_db)]
Limit = Annotated[int, Depends(get_limit, use_cache=False)]


@hurlbat.middleware
async def timed(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


@hurlbat.task
async def a(order: Order, ctx: Context, db: Db) -> int: ...
@hurlbat.task
async def b(order: Order, db: Db, ctx: Context, limit: Limit) -> int: ...
@hurlbat.task
async def c(ctx: Context, order: Order, db: Db) -> int: ...
@hurlbat.task(retries=3)
async def d(order: Order, db: Session = Depends(get_db)) -> int: ...
@hurlbat.task
async def e(order: Order, *, db: Db, ctx: Context) -> int: ...
@hurlbat.task
def f(order: Order, ctx: Context, db: Db, limit: Limit) -> int: ...
@hurlbat.task
def g(order: Order, db: Db) -> int: ...
@hurlbat.task(batch_size=3)
def h(orders: list[Order], db: Db) -> int: ...
@hurlbat.task(batch_size=3)
async def i(ctx: Context, orders: list[Order], db: Db) -> int: ...
@hurlbat.task
async def j(*, db: Db) -> int: ...
@hurlbat.task
async def k(ctx: Context, *, db: Db, limit: Limit) -> int: ...
@hurlbat.task
def l(db: Session = Depends(get_db)) -> int: ...
@hurlbat.task
def m(ctx: Context, db: Session = Depends(get_db)) -> int: ...


with_order: list[Task[Order, int]] = [a, b, c, d, e, f, g, h, i]
without: list[Task[None, int]] = [j, k, l, m]
hurlbat.dependency_overrides[get_db] = Session
orders = hurlbat.workflow("orders", input=Order)


@orders.task
async def pay(order: Order, ctx: Context, db: Db) -> int: ...
@orders.task(parents=[pay])
def ship(ctx: Context, db: Session = Depends(get_db)) -> int: ...


nodes: tuple[Node[Order, int], Node[None, int]] = (pay, ship)


async def callers() -> None:
    number: int = await a.run(Order(1)) + await j.run() + f.run_sync(Order(1))
"""
WRONG = """
    await a.run(Session())
    await b.run()
    await k.run(Session())
    text: str = await e.run(Order(1))
    await h.run([Order(1)])
    Depends(3)
    Depends(get_db, cache=False)
    hurlbat.middleware(get_db)
"""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("mypy", ["--strict", "--follow-imports=silent", "--disable-error-code=empty-body"]), ("pyright", [])],
)
def test_callers_know_the_types_of_input_and_output_whatever_a_task_depends_on(
    tmp_path: Any, program: str, arguments: list[str]
) -> None:
    complaints = check(program, tmp_path, TYPED + WRONG, *arguments)
    first = len(TYPED.splitlines()) + 2
    wrong = range(first, first + len(WRONG.strip().splitlines()))
    assert {int(line.split("sample.py:")[1].split(":")[0]) for line in complaints} == set(wrong)
