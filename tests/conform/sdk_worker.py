"""What `hurlbat conform` finds all green: the SDK's own handler, alone and below a path."""

from fastapi import FastAPI

from hurlbat import Hurlbat, conformance

hurlbat = Hurlbat()
conformance.serve(hurlbat)


@hurlbat.task
async def shout(input: str) -> str:
    return input.upper()


app = FastAPI()
app.mount("/below/hurlbat", hurlbat.asgi())
