"""What the models of a policy share: who makes one by hand is told in a sentence, and JSON can be read leniently."""

import inspect
from collections.abc import Iterable
from functools import wraps
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from hurlbat.errors import TaskInvalid
from hurlbat.payloads import explain

LENIENT: Final = {"unknown": "ignore"}
"""The context of a validation that ignores unknown members."""


class Model(BaseModel):
    """A frozen model: an unknown member is an error that names it, but for who reads with `LENIENT`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        if info.context is LENIENT and isinstance(given, dict):
            return {name: value for name, value in given.items() if name in cls.model_fields}
        return given


M = TypeVar("M", bound=type)
CONFIG: Final = ConfigDict(extra="forbid")


def made_by_hand(model: M) -> M:
    """Let a call of the class raise `TaskInvalid` with a sentence; reading JSON goes past this."""
    first = next(iter(inspect.signature(model).parameters))
    make = model.__init__  # type: ignore[misc]  # every one of our classes is made by its fields

    @wraps(make)
    def init(self: Any, *args: Any, **named: Any) -> None:
        if len(args) == 1 and first not in named:  # so that what is wrong with it is told of it by its name
            named, args = {first: args[0], **named}, ()
        try:
            make(self, *args, **named)
        except ValidationError as error:
            raise TaskInvalid(explain(error, model.__name__)) from error

    model.__init__ = init  # type: ignore[misc]
    return model


def known_only(given: Any, info: ValidationInfo, known: frozenset[str]) -> Any:
    """Return an object without its unknown members, for who reads with `LENIENT`."""
    if info.context is LENIENT and isinstance(given, dict):
        return {name: value for name, value in given.items() if name in known}
    return given


def twice(names: Iterable[str]) -> str | None:
    """Return a name that is there more than once."""
    listed = list(names)
    return next((name for place, name in enumerate(listed) if name in listed[:place]), None)
