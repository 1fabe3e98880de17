"""What the models of a policy share: who makes one by hand is told in a sentence, and JSON can be read leniently."""

import inspect
from collections.abc import Iterable
from functools import wraps
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

from hurlbat.adapters import explain
from hurlbat.errors import TaskInvalid

LENIENT: Final = {"unknown": "ignore"}
"""The context of a validation that ignores unknown members."""


class Model(BaseModel):
    """A frozen model: an unknown member is an error that names it, but for who reads with `LENIENT`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        if info.context is LENIENT and isinstance(given, dict):
            known = cls.model_fields
            return {name: value for name, value in given.items() if name in known}
        return given


M = TypeVar("M", bound=type)
CONFIG: Final = ConfigDict(extra="forbid")


def made_by_hand(model: M) -> M:
    """Let a call of the class raise `TaskInvalid` with a sentence; reading JSON goes past this."""
    parameters = inspect.signature(model).parameters
    by_place = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    by_place = by_place or list(parameters)[:1]
    make = model.__init__  # type: ignore[misc]  # every one of our classes is made by its fields

    @wraps(make)
    def init(self: Any, *args: Any, **named: Any) -> None:
        given = dict(zip(by_place, args, strict=False))
        if len(given) == len(args) and not given.keys() & named.keys():  # what is wrong is told by its name
            named, args = {**given, **named}, ()
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
