"""The environment as the commands read it."""

import os

from dotenv import dotenv_values


def environment() -> dict[str, str]:
    """Return the environment, and what a `.env` file adds to it."""
    return {name: value for name, value in dotenv_values(".env").items() if value is not None} | dict(os.environ)
