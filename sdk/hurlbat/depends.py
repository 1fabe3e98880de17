"""`Depends`: what a function asks for besides its input, and what has to be called for that.

It is read where the task is declared. A provider is called with the `Context` where it asks for it, and with what other
providers give. FastAPI's own `Depends` is understood, too, so that functions which ask for no request may serve both.
"""

import inspect
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Annotated, Any, Final, get_args, get_origin

from hurlbat.context import Context
from hurlbat.errors import TaskInvalid

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]
"""What is called in place of what."""

_VARIABLE: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True, eq=False)
class Marker:
    """What `Depends` leaves at a parameter; `call` is None where the annotation says what to call."""

    call: Any
    use_cache: bool


def Depends(  # noqa: N802 -- users of FastAPI look for this name
    dependency: Callable[..., Any] | None = None, *, use_cache: bool = True
) -> Any:
    """Mark a parameter of a task, or of a dependency, that gets what this function gives, for each attempt.

    `db: Annotated[Session, Depends(get_db)]` or `db: Session = Depends(get_db)`. The function may be async, or sync,
    which runs in a thread; what follows the `yield` of a generator is run after the task. Without a function the
    annotated class is called. All that ask for the same get the same value; with `use_cache=False` this parameter gets
    one of its own.
    """
    return Marker(dependency, use_cache)


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """A parameter that asks for something, as it is declared."""

    name: str
    call: Callable[..., Any]
    use_cache: bool


class Manner(Enum):
    """How a provider gives its value."""

    FUNCTION = auto()
    COROUTINE = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """What is called for a value, and what for: `contexts` are the parameters that get the `Context`."""

    call: Callable[..., Any]
    manner: Manner
    contexts: tuple[str, ...]
    wants: "tuple[Want, ...]"
    positional: tuple[inspect.Parameter, ...]
    """Parameters that cannot be given by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """A parameter, and who provides for it."""

    name: str
    provider: Provider
    use_cache: bool


def need_of(parameter: inspect.Parameter, annotation: Any, where: str) -> Need | None:
    """Return what a parameter asks for by `Depends`, or None. Raises `TaskInvalid`; `where` begins its sentence."""
    annotated = [_marker(one) for one in get_args(annotation)[1:]] if get_origin(annotation) is Annotated else []
    marked = [one for one in annotated if one is not None]
    default = _marker(parameter.default)
    if default is not None and marked:
        raise TaskInvalid(f"{where}: {parameter.name} has Depends in its annotation and as its default; one will do")
    marker = default or (marked[-1] if marked else None)
    if marker is None:
        return None
    call = marker.call
    if call is None:
        call = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        if not isinstance(call, type) or call is inspect.Parameter.empty:
            raise TaskInvalid(f"{where}: Depends() of {parameter.name} says nothing to call, nor does its annotation")
    if not callable(call):
        raise TaskInvalid(f"{where}: {parameter.name} depends on {call!r}, which cannot be called")
    return Need(parameter.name, call, marker.use_cache)


def providers_for(needs: Sequence[Need], where: str, overrides: Overrides) -> tuple[Want, ...]:
    """Return who provides for these needs, and for theirs. Raises `TaskInvalid`; `where` begins its sentence."""
    return _Reader(where, overrides).wants(needs, ())


class _Reader:
    """Reads providers, each once."""

    def __init__(self, where: str, overrides: Overrides) -> None:
        self._where = where
        self._overrides = {_key(call): other for call, other in overrides.items()}
        self._known: dict[Hashable, Provider] = {}

    def wants(self, needs: Sequence[Need], above: tuple[Callable[..., Any], ...]) -> tuple[Want, ...]:
        return tuple(Want(need.name, self._provider(need.call, above), need.use_cache) for need in needs)

    def _provider(self, call: Callable[..., Any], above: tuple[Callable[..., Any], ...]) -> Provider:
        call = self._overrides.get(_key(call), call)
        key = _key(call)
        path = (*above, call)
        if key in map(_key, above):
            circle = " → ".join(map(_name, path))
            raise TaskInvalid(f"{self._where}: its dependencies go in a circle: {circle}")
        if key not in self._known:
            self._known[key] = self._read(call, path)
        return self._known[key]

    def _read(self, call: Callable[..., Any], path: tuple[Callable[..., Any], ...]) -> Provider:
        where = " → ".join([self._where, *map(_name, path)])
        parameters = _parameters(call, where)
        contexts, needs = [], []
        for parameter in parameters:
            need = need_of(parameter, parameter.annotation, where)
            if need is not None:
                needs.append(need)
            elif parameter.annotation is Context:
                contexts.append(parameter.name)
            elif parameter.default is inspect.Parameter.empty:
                raise TaskInvalid(
                    f"{where}: nothing gives {parameter.name} to a dependency; it may ask for Context (whose input is "
                    "the task's), for what Depends(…) gives, and have parameters with defaults"
                )
        positional = tuple(one for one in parameters if one.kind is inspect.Parameter.POSITIONAL_ONLY)
        return Provider(call, _manner(call), tuple(contexts), self.wants(needs, path), positional)


def _marker(value: Any) -> Marker | None:
    if isinstance(value, Marker):
        return value
    fastapi = sys.modules.get("fastapi.params")
    if fastapi is not None and isinstance(value, fastapi.Depends):
        return Marker(value.dependency, value.use_cache)
    return None


def _parameters(call: Callable[..., Any], where: str) -> list[inspect.Parameter]:
    try:
        signature = inspect.signature(call, eval_str=True)
    except ValueError:  # a builtin that does not tell
        return []
    except NameError as error:
        raise TaskInvalid(f"{where}: {error} in its annotations; define it at the top of the module") from error
    return [parameter for parameter in signature.parameters.values() if parameter.kind not in _VARIABLE]


def _manner(call: Callable[..., Any]) -> Manner:
    looks: list[Any] = [call] if isinstance(call, type) else [call, type(call).__call__]
    if any(map(inspect.isasyncgenfunction, looks)):
        return Manner.ASYNC_GENERATOR
    if any(map(inspect.isgeneratorfunction, looks)):
        return Manner.GENERATOR
    return Manner.COROUTINE if any(map(inspect.iscoroutinefunction, looks)) else Manner.FUNCTION


def _key(call: Callable[..., Any]) -> Hashable:
    """Return what is equal for the same call; bound methods are made anew whenever they are looked at."""
    try:
        hash(call)
    except TypeError:
        return id(call)
    return call


def _name(call: Callable[..., Any]) -> str:
    return getattr(call, "__name__", None) or type(call).__name__
