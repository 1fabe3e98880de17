"""The ways to mount the handler: below the app, below a mounted app, as a route, and alone.

`uvicorn tests.e2e.mounts:app`, or `tests.e2e.mounts:alone`.
"""

from fastapi import FastAPI
from starlette.routing import Route

from hurlbat import Hurlbat

hurlbat = Hurlbat()


@hurlbat.task
def shout(input: str) -> str:
    return input.upper()


alone = hurlbat.asgi()
inner = FastAPI()
inner.mount("/hurlbat", alone)
app = FastAPI(lifespan=hurlbat.lifespan)
app.mount("/mounted", alone)
app.mount("/outer", inner)
app.router.routes.append(Route("/routed", alone))
