"""Plain types, which are read and written without pydantic: whatever passes, pydantic would have made the same."""

import dataclasses
import enum
import json
import os
import re
import subprocess
import sys
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from hurlbat import Hurlbat, PayloadError
from hurlbat.payloads import Form, decode, encode
from hurlbat.plain import NotPlain, plain_of, text_of


@dataclass
class Size:
    width: int
    ratio: float = 1.5
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Photo:
    size: Size
    tags: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict, kw_only=True)


@dataclass
class Small(Size):
    """One that has a base."""

    far: bool = False


KINDS: list[Any] = [
    *(None, bool, int, float, str, list, dict, Size, Photo, Small),
    *(list[int], list[Any], dict[str, float], dict[str, Any], int | None, None | Size, list[Size | None]),
    *(dict[str, list[dict[str, bool]]], list[float | None]),
]

PLAIN: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in KINDS}

numbers = (
    st.integers(-(2**70), 2**70)
    | st.floats()
    | st.integers(-3, 3)
    | st.sampled_from([1e16, 1e-4, 9e-5, -0.0, 2.0, 2**53 + 1, 10**400])
)
texts = st.text(max_size=4) | st.sampled_from(["1", "true", "\ud800", '\x7f\x00\u2028/\\"'])
scalars = st.none() | st.booleans() | numbers | texts
names = st.sampled_from(["width", "ratio", "name", "size", "tags", "more", "far"]) | texts
values = st.recursive(scalars, lambda some: st.lists(some, max_size=3) | st.dictionaries(names, some, max_size=4))
sizes = st.fixed_dictionaries({"width": st.integers()}, optional={"ratio": numbers, "name": texts | st.none()})
photos = st.fixed_dictionaries(
    {"size": sizes}, optional={"tags": st.lists(texts), "more": st.dictionaries(texts, values)}
)


@settings(max_examples=200)
@given(values | sizes | photos | st.lists(sizes, max_size=2))
def test_what_is_read_is_what_pydantic_reads(value: Any) -> None:
    try:
        text = to_json(value)
    except ValueError:  # half of a surrogate pair, which no JSON has
        return
    for declared, adapter in PLAIN.items():
        plain = plain_of(declared)
        assert plain is not None
        try:
            read = plain.read(value)
        except NotPlain:  # pydantic reads it, or refuses it
            continue
        assert repr(adapter.validate_json(text)) == repr(read)


odd = st.sampled_from(
    [(1, 2), {1: 2}, {3}, b"x", Size(1), Photo(Size(2)), Small(3, far=True), datetime(2026, 1, 1, tzinfo=UTC)]
)
made = st.builds(Size, st.integers() | values, numbers, texts) | st.builds(Photo, st.builds(Size, st.integers()))


@settings(max_examples=200)
@given(values | odd | made | st.lists(made | odd, max_size=2) | st.lists(values))
def test_what_is_written_is_what_pydantic_writes_to_the_byte(value: Any) -> None:
    for declared, adapter in {Any: None, **PLAIN}.items():
        try:
            text = text_of(value, None if adapter is None else plain_of(declared)).encode()
        except (NotPlain, UnicodeEncodeError):
            continue
        assert text == (to_json(value) if adapter is None else adapter.dump_json(value, warnings=False))


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        *((int, 5), (float, 5), (float, 0.5), (str, "é"), (bool, True), (None, None), (int | None, None)),
        *((list[int], [1, 2]), (dict[str, list[str]], {"a": ["b"]}), (list, [{}]), (dict, {"a": None})),
        *((Size, {"width": 1}), (Photo, {"size": {"width": 1, "ratio": 2}, "tags": ["a"], "more": {"b": [1]}})),
        (Small, {"width": 1, "far": True}),
    ],
)
def test_ordinary_values_go_there_and_back_without_pydantic(declared: Any, value: Any) -> None:
    plain = plain_of(declared)
    assert plain is not None
    read = plain.read(value)
    assert plain.read(json.loads(text_of(read, plain))) == read


class Color(enum.StrEnum):
    RED = "red"


class Model(BaseModel):
    width: int


@dataclass
class Checked:
    width: int

    def __post_init__(self) -> None:
        self.width += 1


@dataclass
class Taking:
    width: InitVar[int]


@dataclass
class Sharing:
    width: int
    all: ClassVar[int] = 1


@dataclass
class Filling:
    width: int = field(init=False, default=1)


@dataclass
class Configured:
    width: int
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 -- as pydantic has it


@dataclass
class Mixed(dict[str, int]):
    width: int


class Undecorated(Size):
    pass


@dataclass
class Again:
    inner: "Again | None" = None


@dataclass
class Strange:
    width: int = Color.RED  # type: ignore[assignment]


@dataclass
class Limited:
    width: Annotated[int, Field(gt=0)]


@pytest.mark.parametrize(
    "declared",
    [
        *(datetime, bytes, set[int], tuple[int, int], dict[int, str], int | str, Color, Model, list[Model], object),
        *(Annotated[int, Field(gt=0)], Checked, Taking, Sharing, Filling, Configured, Mixed, Undecorated, Again),
        *(Strange, Limited, dataclasses.make_dataclass("Private", [("_width", int)])),
    ],
)
def test_what_pydantic_may_see_otherwise_is_left_to_it(declared: Any) -> None:
    assert plain_of(declared) is None


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        *((int, '"5"'), (int, "5.0"), (int, "true"), (float, "1e400"), (float, "100000000000000000000"), (bool, "1")),
        *((str, "1"), (list[int], "[1, 2.5]"), (dict[str, int], "[]"), (Size, '{"width": "1"}'), (Size, "{}")),
        *((Size, '{"width": 1, "depth": 2}'), (int, "{"), (None, "0"), (str, '"\\ud800"')),
    ],
)
def test_what_does_not_fit_is_taken_or_refused_as_pydantic_does(declared: Any, text: str) -> None:
    form = Form(declared, "the input")
    try:
        expected = TypeAdapter(declared).validate_json(text)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        with pytest.raises(PayloadError, match=re.escape(said)) as refused:
            decode(text, form)
        assert refused.value.details is not None
    else:
        assert decode(text, form) == expected


def test_what_is_not_plain_is_written_by_pydantic() -> None:
    assert (
        encode({"at": datetime(2026, 1, 2, tzinfo=UTC), "sides": (1, 2)}, what="output")
        == '{"at":"2026-01-02T00:00:00Z","sides":[1,2]}'
    )
    assert encode((1, 2), Form(list[int], "the output"), what="output") == "[1,2]"
    assert encode({None: 1}, what="output") == '{"None":1}'
    assert encode([1e-7, 1e20], what="output") == to_json([1e-7, 1e20]).decode()


def test_a_value_without_end_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(PayloadError, match="the output cannot be JSON"):
        encode(circle, what="output")


# -- what answers carry -----------------------------------------------------------------------------------------------


def app(kind: Any = int, gives: Any = int, **options: Any) -> Hurlbat:
    hurlbat = Hurlbat()

    def work(input: Any) -> Any: ...

    work.__annotations__ = {"input": kind, "return": gives}
    hurlbat.task(name="work", **options)(work)
    return hurlbat


def a_size(**fields: Any) -> type:
    return dataclasses.make_dataclass("Size", [(name, *kind) for name, kind in fields.items()])


def test_the_mark_is_another_whenever_the_manifest_is_another() -> None:
    kinds: list[Any] = [
        int,
        str,
        Any,
        list[int],
        list[str],
        dict[str, int],
        dict[str, Any],
        dict,
        list,
        int | None,
        float,
        bool,
    ]
    kinds += [a_size(a=(int,)), a_size(b=(int,)), a_size(a=(str,)), a_size(a=(int, 1)), a_size(a=(int, 2))]
    kinds += [a_size(a=(int, True)), a_size(a=(int,), b=(int,)), a_size(a=(a_size(a=(int,)),)), Model, list[Model]]
    options: list[dict[str, Any]] = [{"retries": 1}, {"retries": 2}, {"priority": 1}, {"execution_timeout": 2}]
    options += [{"sticky": "soft"}, {"sticky": "hard"}, {"on_failure": "other"}, {"labels": {"a": "b"}}]
    apps = [app(kind) for kind in kinds] + [app(gives=kind) for kind in kinds if kind is not int]
    apps += [app(**said) for said in options]
    told = {(one.mark(), one.manifest().model_dump_json(exclude={"version"})) for one in apps}
    assert len({mark for mark, _ in told}) == len(told) == len(apps)
    assert len({manifest for _, manifest in told}) > len(told) - 4  # a dict is a dict[str, Any]
    assert [one.manifest().version for one in apps] == [one.mark() for one in apps]


@pytest.mark.parametrize("changed", [{"__doc__": "Another one."}, {"a": 2}])
def test_a_class_with_another_docstring_or_default_has_another_mark(changed: dict[str, Any]) -> None:
    one, other = a_size(a=(int, 1)), a_size(a=(int, changed.get("a", 1)))
    one.__doc__, other.__doc__ = "One.", changed.get("__doc__", "One.")
    assert app(one).manifest().tasks != app(other).manifest().tasks
    assert app(one).mark() != app(other).mark()


SERVES = """
from dataclasses import dataclass, field
from pydantic import BaseModel
from hurlbat import Concurrency, Hurlbat

hurlbat = Hurlbat()

@dataclass
class Size:
    width: int
    tags: list[str] = field(default_factory=list)

class Model(BaseModel):
    names: set[str] = set()

@hurlbat.task(retries=3, sticky="soft")
def work(size: Size) -> list[int]: ...

@hurlbat.task(concurrency=Concurrency("input.a"), labels={"b": "c", "a": "d"})
def more(model: Model) -> int | None: ...

print(hurlbat.mark())
"""


def test_the_mark_is_the_same_in_every_process() -> None:
    seen = {
        subprocess.run(
            [sys.executable, "-c", SERVES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(seen) == 1
