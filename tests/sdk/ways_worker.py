"""A worker whose tasks are started in every way, for a real server."""

from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import Context, Filter, Hurlbat

hurlbat = Hurlbat()


class Order(BaseModel):
    """What the tasks are about."""

    id: int
    shop: str = "a"


@hurlbat.task
async def echo(order: Order) -> int:
    """Return the order's id."""
    return order.id


@hurlbat.task(on_events="order.*", filters=[Filter("input.id > payload.least", payload={"least": 3})])
def ship(order: Order, ctx: Context) -> dict[str, Any]:
    """Tell what the run was started by, in a thread."""
    return {"id": order.id, "trigger": ctx.trigger, "payload": ctx.filter_payload}


@hurlbat.task(batch_size=3, batch_timeout=0.3, batch_key="input.shop")
async def pack(orders: list[Order], ctx: Context) -> dict[str, Any]:
    """Tell what was gathered."""
    return {"ids": sorted(order.id for order in orders), "run": ctx.run_id}


@hurlbat.task
async def report(failure: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Tell what failed."""
    return {"failure": failure["run"]["task"], "trigger": ctx.trigger}


@hurlbat.task(on_failure=report)
async def fragile(order: Order) -> None:
    """Fail."""
    raise ValueError(f"order {order.id} is broken")


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())])
