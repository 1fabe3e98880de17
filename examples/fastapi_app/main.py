"""A FastAPI app with background tasks.

    uvicorn examples.fastapi_app.main:app --port 8000

The app needs to know three things: where the server is (HURLBAT_URL), a token to submit runs (HURLBAT_TOKEN), and the
secret that deliveries are signed with (HURLBAT_SIGNING_SECRET). `make demo` starts both and sets all three.
"""

import asyncio
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, Field

from hurlbat import Backoff, Context, Cron, Filter, Hurlbat, NonRetryable

hurlbat = Hurlbat()


class Greeting(BaseModel):
    name: str


class Photo(BaseModel):
    photo: str
    width: int = Field(default=800, gt=0)


class Payment(BaseModel):
    card: str
    amount: int


class SignUp(BaseModel):
    name: str
    newsletter: bool = False


# A sync function runs in a thread, so it may block.
@hurlbat.task
def greet(input: Greeting) -> str:
    return f"Hello, {input.name}!"


# A long task tells how far it has come, and shows it in the run's timeline.
@hurlbat.task(execution_timeout=30)
async def resize(input: Photo, ctx: Context) -> dict[str, Any]:
    for done, step in enumerate(("reading", "scaling", "sharpening", "writing"), 1):
        await asyncio.sleep(0.15)
        ctx.progress(done / 4, f"{step} {input.photo}")
    return {"photo": input.photo, "width": input.width, "height": input.width * 2 // 3}


# A task that depends on somebody else fails now and then: any exception is tried again, here three times.
@hurlbat.task(retries=3, backoff=Backoff(strategy="fixed", initial=0.4, jitter=False))
async def fetch_rates(currency: str, ctx: Context) -> dict[str, float]:
    if ctx.attempt < 3:
        raise ConnectionError(f"the bank does not answer (attempt {ctx.attempt})")
    ctx.log(f"the bank has answered for {currency}")
    return {currency: 1.08}


# Where trying again cannot help, a task says so.
@hurlbat.task(retries=5)
async def charge(input: Payment) -> str:
    raise NonRetryable(f"the card that ends in {input.card[-4:]} was declined")


# An event starts a run of every task that listens to its key.
@hurlbat.task(on_events="user.signed_up")
async def welcome(user: SignUp) -> str:
    return f"Welcome, {user.name}!"


# With filters it starts a run for each that is true; a filter may have something to say to its runs.
@hurlbat.task(on_events="user.*", filters=Filter("input.newsletter", payload={"list": "weekly"}))
async def subscribe(user: SignUp, ctx: Context) -> str:
    return f"{user.name} gets the {ctx.filter_payload['list']} letter"


# At three every night, by the clocks of Berlin, and not while the last night's run is still at it.
@hurlbat.task(crons=Cron("0 3 * * *", timezone="Europe/Berlin", overlap="skip"))
async def tidy_up() -> str:
    return "nothing to tidy"


app = FastAPI(title="Photo shop", lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())


@app.post("/photos", status_code=202)
async def upload(photo: Photo) -> dict[str, str]:
    """Answer at once and let the work be done in the background."""
    run = await resize.run_no_wait(photo)
    return {"run": run.id}


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    """Wait for the result of a task."""
    return {"greeting": await greet.run(Greeting(name=name))}


@app.post("/users", status_code=202)
async def sign_up(user: SignUp) -> dict[str, list[str]]:
    """Say what has happened, and leave it to the tasks to listen."""
    event = await hurlbat.events.push("user.signed_up", user)
    return {"runs": list(event.runs)}
