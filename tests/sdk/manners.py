"""Tasks that are sync or async, for what must hold of both."""

import functools
from collections.abc import Callable
from typing import Any

from hurlbat import Hurlbat


def in_manner(hurlbat: Hurlbat, sync: bool, function: Callable[..., Any]) -> None:
    """Declare a task `use` that is sync, or async."""
    if sync:
        hurlbat.task(name="use")(function)
        return

    @functools.wraps(function)
    async def use(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    hurlbat.task(name="use")(use)
