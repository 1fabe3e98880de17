"""The worker whose tasks the generated clients ask for."""

from pydantic import BaseModel

from hurlbat import Hurlbat


class Person(BaseModel):
    name: str


hurlbat = Hurlbat()


@hurlbat.task
async def greet(input: Person) -> str:
    return f"Hello, {input.name}!"


@hurlbat.task(on_events=["user.joined"])
async def welcome(input: Person) -> str:
    return f"Welcome, {input.name}!"


app = hurlbat.asgi()
