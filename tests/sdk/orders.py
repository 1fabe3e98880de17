"""What the tests of workflows declare them with."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from hurlbat import (
    Hurlbat,
)
from hurlbat.policy import Manifest


def unchecked(value: Any) -> Any:
    """Return it as a type checker lets pass, as that it is refused is the point."""
    return value


class Order(BaseModel):
    id: int
    at: datetime | None = None


def nothing() -> None: ...


def declared(hurlbat: Hurlbat) -> dict[str, Any]:
    """Return the tasks of the manifest as its JSON says them, by name, without what was not said of them."""
    manifest = Manifest.read(hurlbat.manifest().model_dump_json().encode())
    assert manifest == hurlbat.manifest()
    return {task.name: task.model_dump(mode="json", exclude_defaults=True) for task in manifest.tasks}
