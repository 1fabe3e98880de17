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


@hurlbat.task
async def echo(order: Order) -> int:
    """Return the order's id."""
    return order.id


@hurlbat.task(on_events="order.*", filters=[Filter("input.id > payload.least", payload={"least": 3})])
def ship(order: Order, ctx: Context) -> dict[str, Any]:
    """Tell what the run was started by, in a thread."""
    return {"id": order.id, "trigger": ctx.trigger, "payload": ctx.filter_payload}


@hurlbat.task(batch_size=3, batch_timeout=3600)
async def pack(orders: list[Order]) -> list[int]:
    """Return the ids that were gathered."""
    return sorted(order.id for order in orders)


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())])
