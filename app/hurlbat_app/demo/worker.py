"""The demo's worker: a Starlette app that mounts the handler, with tasks that succeed, retry, report and fail."""

import asyncio
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import Backoff, Context, Cron, Filter, Hurlbat, NonRetryable

hurlbat = Hurlbat()


class Greeting(BaseModel):
    """Whom to greet."""

    name: str


class Photo(BaseModel):
    """A photo, and how wide it shall be."""

    photo: str
    width: int = 800


class Payment(BaseModel):
    """An amount in cents to take from a card."""

    card: str
    amount: int


class SignUp(BaseModel):
    """Who has signed up."""

    name: str
    newsletter: bool = False


@hurlbat.task
def greet(input: Greeting) -> str:
    """Succeed at once. A sync function runs in a thread."""
    return f"Hello, {input.name}!"


@hurlbat.task(execution_timeout=30)
async def resize(input: Photo, ctx: Context) -> dict[str, Any]:
    """Tell how far it has come while it works."""
    for done, step in enumerate(("reading", "scaling", "sharpening", "writing"), 1):
        await asyncio.sleep(0.15)
        ctx.progress(done / 4, f"{step} {input.photo}")
    return {"photo": input.photo, "width": input.width, "height": input.width * 2 // 3}


@hurlbat.task(retries=3, backoff=Backoff(strategy="fixed", initial=0.4, jitter=False))
async def fetch_rates(currency: str, ctx: Context) -> dict[str, float]:
    """Fail twice, as the other side is not there yet, and succeed then."""
    if ctx.attempt < 3:
        raise ConnectionError(f"the bank does not answer (attempt {ctx.attempt})")
    ctx.log(f"the bank has answered for {currency}")
    return {currency: 1.08}


@hurlbat.task(retries=5)
async def charge(input: Payment) -> str:
    """Fail for good: trying again would not help, so it says so."""
    raise NonRetryable(f"the card that ends in {input.card[-4:]} was declined")


@hurlbat.task(on_events="user.signed_up")
async def welcome(user: SignUp) -> str:
    """Listen to an event: its payload is the input."""
    return f"Welcome, {user.name}!"


@hurlbat.task(on_events="user.*", filters=Filter("input.newsletter", payload={"list": "weekly"}))
async def subscribe(user: SignUp, ctx: Context) -> str:
    """Listen to events for which a filter is true, and see what the filter has to say."""
    return f"{user.name} gets the {ctx.filter_payload['list']} letter"


@hurlbat.task(crons=Cron("0 3 * * *", timezone="Europe/Berlin", overlap="skip"))
async def tidy_up() -> str:
    """Run every night at three, by the clocks of Berlin."""
    return "nothing to tidy"


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], lifespan=hurlbat.lifespan)
