"""What the decorator takes, and what it refuses with a sentence."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from hurlbat import Backoff, ConfigError, Context, Hurlbat, RetryAfter
from hurlbat.errors import TaskInvalid
from hurlbat.policy import TaskPolicy
from tests.sdk.exchange import an_app


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


def test_a_bare_decorator_declares_the_defaults_under_the_function_s_name(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def resize(number: int) -> int:
        """Make it smaller."""
        return number

    assert resize.policy == TaskPolicy(name="resize")
    assert (resize.name, resize.__doc__, repr(resize)) == ("resize", "Make it smaller.", "Task('resize')")
    assert hurlbat.tasks == {"resize": resize}


def test_a_policy_is_declared_with_arguments(hurlbat: Hurlbat) -> None:
    backoff = Backoff(strategy="list", delays=(1, 5, 60))

    @hurlbat.task(
        name="images.resize",
        retries=3,
        backoff=backoff,
        execution_timeout=60,
        schedule_timeout=3600,
        priority=3,
    )
    def resize() -> None: ...

    assert resize.policy == TaskPolicy(
        name="images.resize", retries=3, backoff=backoff, execution_timeout=60, schedule_timeout=3600, priority=3
    )


def test_the_manifest_shows_policies_and_schemas(hurlbat: Hurlbat) -> None:
    class Image(BaseModel):
        url: str

    async def resize(image: Image) -> list[int]:
        return []

    resize.__annotations__ = {"image": Image, "return": list[int]}
    hurlbat.task(retries=1)(resize)
    (declared,) = hurlbat.manifest().tasks
    assert declared.retries == 1
    assert declared.input_schema is not None
    assert declared.input_schema["required"] == ["url"]
    assert declared.output_schema == {"items": {"type": "integer"}, "type": "array"}
    assert hurlbat.manifest().sdk.startswith("hurlbat-python/")


def test_a_task_can_be_called_as_the_function_that_it_is(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def double(number: int) -> int:
        return number * 2

    assert asyncio.run(double(21)) == 42


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"retries": -1}, r"task work: policy\.retries: .*greater than or equal to 0"),
        ({"retries": 1.5}, r"policy\.retries"),
        ({"execution_timeout": 0}, r"policy\.execution_timeout"),
        ({"schedule_timeout": float("inf")}, r"policy\.schedule_timeout"),
        ({"priority": 5000}, r"policy\.priority"),
        ({"name": "two words"}, r"policy\.name"),
        ({"backoff": "fast"}, r"policy\.backoff"),
        ({"backoff": {"strategy": "list"}}, r"policy\.backoff.*needs at least one of delays"),
        ({"retry": 3}, "there is no policy called retry"),
        ({"concurrency": [1]}, "there is no policy called concurrency"),
        ({"input_schema": {}}, "there is no policy called input_schema"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_where_it_is_declared(
    hurlbat: Hurlbat, policy: dict[str, Any], said: str
) -> None:
    def work() -> None: ...

    with pytest.raises(TaskInvalid, match=said):
        hurlbat.task(**policy)(work)
    assert hurlbat.tasks == {}


def two(a: int, b: int) -> None: ...
def many(*numbers: int) -> None: ...
def named(**numbers: int) -> None: ...
def contexts(one: Context, two: Context) -> None: ...
def unreadable(lock: asyncio.Lock) -> None: ...
def unwritable() -> asyncio.Lock: ...  # type: ignore[empty-body]  # only its signature matters
def unknown(number: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - that it is unknown is the point
def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (two, "one input, not a, b"),
        (many, r"\*numbers has no place"),
        (named, r"\*numbers has no place"),
        (contexts, "one Context"),
        (unreadable, "its input type"),
        (unwritable, "its output type"),
        (unknown, "'Nowhere' is not defined"),
        (generator, "generator"),
        (Hurlbat, "for functions"),
        ("resize", r"task\(name="),
    ],
)
def test_a_function_that_cannot_be_a_task_is_refused_where_it_is_declared(
    hurlbat: Hurlbat, function: Any, said: str
) -> None:
    with pytest.raises(TaskInvalid, match=said):
        hurlbat.task(function)
    assert hurlbat.tasks == {}


def test_a_name_is_declared_once(hurlbat: Hurlbat) -> None:
    hurlbat.task(name="resize")(lambda: None)
    with pytest.raises(TaskInvalid, match="task resize is declared twice"):
        hurlbat.task(name="resize")(lambda: None)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e9])
def test_a_wait_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError):
        RetryAfter(seconds)
