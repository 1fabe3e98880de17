"""Orders as a workflow: goods are reserved, the card is charged, the parcel is shipped, and what fails is undone."""

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from hurlbat import Backoff, Concurrency, Context, Hurlbat, NonRetryable

hurlbat = Hurlbat()

stock = {"mug": 5, "shirt": 2}
"""Stands in for the shop's database."""
charged: set[str] = set()


class Order(BaseModel):
    id: str
    item: str = "mug"
    count: int = Field(default=1, gt=0)
    card: str = "4242 4242 4242 4242"


class Reservation(BaseModel):
    item: str
    count: int


# Of each item one order at a time, from its beginning to its end, so that nobody is promised what another lets go of.
order = hurlbat.workflow("order", input=Order, concurrency=Concurrency("input.item", max_runs=1))


@order.task
async def reserve(input: Order) -> Reservation:
    if stock.get(input.item, 0) < input.count:
        raise NonRetryable(f"only {stock.get(input.item, 0)} of {input.item} are left")
    stock[input.item] -= input.count
    return Reservation(item=input.item, count=input.count)


# Banks are away now and then: three more tries. The run's id is the same each time, so nobody is charged twice.
@order.task(parents=reserve, retries=3, backoff=Backoff(initial=0.2))
async def charge(input: Order, ctx: Context) -> str:
    if input.card.startswith("4000"):
        raise NonRetryable(f"the card that ends in {input.card[-4:]} was declined")
    if ctx.attempt == 1:
        raise ConnectionError("the bank does not answer")
    charged.add(ctx.run_id)
    return f"charged for {input.id}"


@order.task(parents=[reserve, charge])
async def ship(input: Order, ctx: Context) -> str:
    goods = ctx.output(reserve)
    await asyncio.sleep(0.05)
    return f"{goods.count} x {goods.item} for {input.id} are on their way"


# When a node has failed for good, and all others have ended: what was reserved goes back, if anything was.
@order.on_failure
async def release(ctx: Context) -> str:
    goods = ctx.output(reserve, default=None)
    if goods is None:
        return "nothing to release"
    stock[goods.item] += goods.count
    return f"{goods.count} x {goods.item} are back on the shelf"


app = FastAPI(title="Shop", lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())


@app.post("/orders", status_code=202)
async def place(new: Order) -> dict[str, str]:
    """Answer at once. Who asks for the same order twice gets the same run."""
    run = await order.run_no_wait(new, idempotency_key=new.id)
    return {"run": run.id}


@app.get("/orders/{run_id}")
async def look(run_id: str) -> dict[str, Any]:
    """Tell how far an order is."""
    run = await order.ref(run_id).status()
    return {"state": run.state, "output": run.output, "error": run.error}


@app.get("/stock")
async def count() -> dict[str, int]:
    return stock
