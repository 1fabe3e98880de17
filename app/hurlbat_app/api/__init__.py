"""The HTTP API: reads requests strictly, asks the engine, says the answer in JSON. `openapi.yaml` is its contract."""

from hurlbat_app.api.app import create_app

__all__ = ["create_app"]
