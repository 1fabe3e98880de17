"""Types whose values are almost the same in JSON and in Python, read and written without pydantic.

To load pydantic takes as long as all the rest of a process that starts, answers one delivery and is frozen. So what is
plain goes this way: `None`, `bool`, `int`, `float`, `str`, lists, dicts with texts as keys, dataclasses of such. It is
a short cut and decides nothing: a value that does not fit to the letter is `NotPlain`, and pydantic says what becomes
of it. What is read and written here is what pydantic would have made, to the byte.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, Union, get_args, get_origin, get_type_hints

Step = Callable[[Any], Any]


class NotPlain(Exception):
    """A value that does not fit to the letter."""


class Plain(NamedTuple):
    """A plain type. `read` takes a JSON value, `write` returns one; both raise `NotPlain`."""

    name: str
    """The same in every process, and another for another type, also where only the fields of a dataclass differ."""
    read: Step
    write: Step


def plain_of(declared: Any) -> Plain | None:
    """Return the type as a plain one, or None where only pydantic can tell what is meant."""
    return _plain(declared, ())


def text_of(value: Any, plain: Plain | None = None) -> str:
    """Return the JSON text of a value, of a type if there is one. Raises `NotPlain`."""
    try:
        return _ENCODE(_json(value) if plain is None else plain.write(value))
    except RecursionError:
        raise NotPlain from None


_ENCODE: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def _plain(declared: Any, above: tuple[Any, ...]) -> Plain | None:
    if declared is Any:
        return _ANY
    if declared is None:
        declared = NoneType
    if isinstance(declared, type) and declared in _SCALARS:
        return _SCALARS[declared]
    if declared is dict:
        return _ANY_DICT
    if declared is list:
        return _ANY_LIST
    origin, arguments = get_origin(declared), get_args(declared)
    if origin in (UnionType, Union) and len(arguments) == 2 and NoneType in arguments:
        inner = _plain(arguments[arguments[0] is NoneType], above)
        return None if inner is None else _or_none(inner)
    if origin is list:
        inner = _plain(arguments[0], above)
        return None if inner is None else _list_of(inner)
    if origin is dict and arguments[0] is str:
        inner = _plain(arguments[1], above)
        return None if inner is None else _dict_of(inner)
    if isinstance(declared, type) and origin is None and "__dataclass_fields__" in vars(declared):
        return None if declared in above else _record(declared, above)
    return None


# -- values of any JSON ------------------------------------------------------------------------------------------------


def _json(value: Any) -> Any:
    """Return a value that JSON has as it is."""
    kind = type(value)
    if kind in _EXACT:
        return value
    if kind is float:
        return _float(value)
    if kind is list:
        for item in value:
            if type(item) not in _EXACT:
                _json(item)
        return value
    if kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise NotPlain
            if type(item) not in _EXACT:
                _json(item)
        return value
    raise NotPlain


_EXACT: Final = frozenset({NoneType, bool, int, str})


def _float(value: Any) -> Any:
    """Return a float that has one way to be written: those with an exponent have others."""
    if type(value) is float and (1e-4 <= abs(value) < 1e16 or value == 0.0):
        return value
    raise NotPlain


def _same(value: Any) -> Any:
    return value


def _only(kind: type) -> Step:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise NotPlain
        return value

    return check


def _read_float(value: Any) -> Any:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) <= 2**53:
        return float(value)
    raise NotPlain


_SCALARS: Final[Mapping[type, Plain]] = {
    NoneType: Plain("null", _only(NoneType), _only(NoneType)),
    bool: Plain("bool", _only(bool), _only(bool)),
    int: Plain("int", _only(int), _only(int)),
    str: Plain("str", _only(str), _only(str)),
    float: Plain("float", _read_float, _float),
}


def _write_kind(kind: type) -> Step:
    check = _only(kind)
    return lambda value: _json(check(value))


_ANY: Final = Plain("any", _same, _json)
_ANY_LIST: Final = Plain("list", _only(list), _write_kind(list))
_ANY_DICT: Final = Plain("dict", _only(dict), _write_kind(dict))


# -- made of others ----------------------------------------------------------------------------------------------------


def _or_none(inner: Plain) -> Plain:
    def step(through: Step) -> Step:
        return lambda value: None if value is None else through(value)

    return Plain(f"{inner.name}?", step(inner.read), step(inner.write))


def _list_of(inner: Plain) -> Plain:
    def step(through: Step) -> Step:
        def each(value: Any) -> Any:
            if type(value) is not list:
                raise NotPlain
            return [through(item) for item in value]

        return each

    return Plain(f"list[{inner.name}]", step(inner.read), step(inner.write))


def _dict_of(inner: Plain) -> Plain:
    def step(through: Step) -> Step:
        def each(value: Any) -> Any:
            if type(value) is not dict or not all(type(name) is str for name in value):
                raise NotPlain
            return {name: through(item) for name, item in value.items()}

        return each

    return Plain(f"dict[{inner.name}]", step(inner.read), step(inner.write))


def _record(kind: type, above: tuple[Any, ...]) -> Plain | None:
    """Return a dataclass of plain fields that nobody has taught to pydantic, or that does nothing when it is made."""
    if not _is_simple(kind):
        return None
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception:  # names that are not there yet, which pydantic complains of
        return None
    fields = dataclasses.fields(kind)
    kinds = {field.name: _plain(hints[field.name], (*above, kind)) for field in fields}
    plains = {name: plain for name, plain in kinds.items() if plain is not None}
    if len(plains) < len(fields):
        return None
    needed = {field.name for field in fields if _has_no_default(field)}

    def read(value: Any) -> Any:
        if type(value) is not dict or not needed <= value.keys() <= plains.keys():
            raise NotPlain
        made: Any = object.__new__(kind)
        for field in fields:  # as pydantic makes it, past any `__init__`
            if field.name in value:
                given = plains[field.name].read(value[field.name])
            else:
                given = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            object.__setattr__(made, field.name, given)
        return made

    def write(value: Any) -> Any:
        if type(value) is not kind:
            raise NotPlain
        try:
            return {name: plain.write(getattr(value, name)) for name, plain in plains.items()}
        except AttributeError:
            raise NotPlain from None

    shown = [(field.name, plains[field.name].name, _default(field)) for field in fields]
    return Plain(json.dumps([kind.__name__, kind.__doc__, shown]), read, write)


def _is_simple(kind: type) -> bool:
    bases = kind.__mro__[:-1]
    names = {name for base in bases for name in vars(base)}
    shown = {field.name for field in dataclasses.fields(kind) if _is_ordinary(field)}
    return (
        all("__dataclass_fields__" in vars(base) for base in bases)
        and shown == set(kind.__dataclass_fields__)  # type: ignore[attr-defined]  # neither ClassVar nor InitVar
        and "__post_init__" not in names
        and not any(name.startswith(("__pydantic", "__get_pydantic")) for name in names)
    )


def _is_ordinary(field: "dataclasses.Field[Any]") -> bool:
    shown = field.default is dataclasses.MISSING or type(field.default) in _EXACT | {float}
    return shown and field.init and not field.name.startswith("_")


def _has_no_default(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _default(field: "dataclasses.Field[Any]") -> Any:
    return "…" if field.default is dataclasses.MISSING else [field.default]
