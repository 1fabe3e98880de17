"""What a task depends on is entered once and left in reverse, whoever fails where."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hurlbat import CancelRun, Depends, Hurlbat, NonRetryable, RetryAfter
from tests.sdk.exchange import a_run, an_app, result_of
from tests.sdk.manners import in_manner

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


MANNERS = ("function", "async function", "generator", "async generator")


class Failing(Exception):
    pass


@dataclass(frozen=True)
class Story:
    """Dependencies, each with those of lower numbers that it asks for; which the task asks for; who fails, where."""

    manners: list[str]
    below: list[list[int]]
    asked: list[int]
    failing: tuple[str, int] | None
    sync: bool

    def expected(self) -> tuple[list[str], str]:
        """Tell it by the rules: depth first, each once; out in reverse; an error goes through all that is open."""
        told: list[str] = []
        entered: list[int] = []
        error = ""

        def enter(number: int) -> None:
            for one in self.below[number]:
                if f"enter {one}" not in told:
                    enter(one)
            told.append(f"enter {number}")
            if self.failing == ("enter", number):
                raise Failing(f"enter {number}")
            entered.append(number)

        try:
            for one in self.asked:
                if f"enter {one}" not in told:
                    enter(one)
            told.append("task")
            if self.failing == ("task", 0):
                raise Failing("task")
        except Failing as failed:
            error = str(failed)
        for number in reversed(entered):
            if "generator" in self.manners[number]:
                told.append(f"leave {number}: {error}")
                if self.failing == ("leave", number):
                    error = f"leave {number}"
        return told, error


@st.composite
def stories(draw: st.DrawFn) -> Story:
    count = draw(st.integers(1, 6))
    subsets = [st.lists(st.sampled_from(range(number)), unique=True) if number else st.just([]) for number in range(9)]
    return Story(
        manners=draw(st.lists(st.sampled_from(MANNERS), min_size=count, max_size=count)),
        below=[draw(subsets[number]) for number in range(count)],
        asked=draw(subsets[count]),
        failing=draw(st.none() | st.tuples(st.sampled_from(["enter", "leave", "task"]), st.integers(0, count - 1))),
        sync=draw(st.booleans()),
    )


def carried_out(story: Story) -> tuple[list[str], str]:
    """Have a real app go through a story."""
    hurlbat, told = an_app(threads=2), list[str]()
    made: list[Callable[..., Any]] = []

    def say(what: str, number: int, error: str = "") -> None:
        told.append(f"{what} {number}" + (f": {error}" if what == "leave" else ""))
        if story.failing == (what, number):
            raise Failing(f"{what} {number}")

    def signed(function: Callable[..., Any], asked: list[int]) -> Callable[..., Any]:
        kind = inspect.Parameter.KEYWORD_ONLY
        asks = [inspect.Parameter(f"p{one}", kind, default=Depends(made[one])) for one in asked]
        function.__signature__ = inspect.Signature(asks)  # type: ignore[attr-defined]
        return function

    def provider(number: int) -> Callable[..., Any]:
        def function(**_: Any) -> int:
            say("enter", number)
            return number

        async def coroutine(**_: Any) -> int:
            return function()

        def generator(**_: Any) -> Iterator[int]:
            say("enter", number)
            error = ""
            try:
                yield number
            except Failing as failed:
                error = str(failed)
                raise
            finally:
                say("leave", number, error)

        async def async_generator(**_: Any) -> AsyncIterator[int]:
            say("enter", number)
            error = ""
            try:
                yield number
            except Failing as failed:
                error = str(failed)
                raise
            finally:
                say("leave", number, error)

        manners = (function, coroutine, generator, async_generator)
        return signed(manners[MANNERS.index(story.manners[number])], story.below[number])

    for number in range(len(story.manners)):
        made.append(provider(number))  # noqa: PERF401 -- each looks at those before it

    def task(**given: int) -> list[int]:
        told.append("task")
        if story.failing == ("task", 0):
            raise Failing("task")
        return sorted(given.values())

    async def async_task(**given: int) -> list[int]:
        return task(**given)

    hurlbat.task(name="use")(signed(task if story.sync else async_task, story.asked))
    result = asyncio.run(result_of(hurlbat, a_run("use")))
    if "output" in result:
        assert result["output"] == sorted(story.asked)
        return told, ""
    assert result["error"]["type"] == "Failing"
    return told, result["error"]["message"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(story=stories())
def test_all_are_entered_once_and_left_in_reverse_whoever_fails_where(story: Story) -> None:
    assert carried_out(story) == story.expected()


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize("lender", ["sync", "async"])
async def test_an_error_cannot_be_swallowed_by_who_sees_it(hurlbat: Hurlbat, sync: bool, lender: str) -> None:
    def swallow() -> Iterator[None]:
        try:
            yield
        except ValueError:
            pass

    async def swallow_async() -> AsyncIterator[None]:
        try:
            yield
        except ValueError:
            pass

    def use(_: Any = Depends(swallow if lender == "sync" else swallow_async)) -> None:
        raise ValueError("still here")

    in_manner(hurlbat, sync, use)
    error = (await result_of(hurlbat, a_run("use")))["error"]
    assert (error["type"], error["message"]) == ("ValueError", "still here")


@pytest.mark.parametrize("place", ["enter", "leave"])
@pytest.mark.parametrize("lender", ["sync", "async"])
@pytest.mark.parametrize("sync", [False, True])
async def test_an_error_of_a_dependency_is_the_attempt_s_with_a_stack_of_the_user_s_code(
    hurlbat: Hurlbat, place: str, lender: str, sync: bool
) -> None:
    def fail(at: str) -> None:
        if at == place:
            raise LookupError(f"at {at}")

    def lend() -> Iterator[int]:
        fail("enter")
        yield 1
        fail("leave")

    async def lend_async() -> AsyncIterator[int]:
        fail("enter")
        yield 1
        fail("leave")

    in_manner(hurlbat, sync, lambda given=Depends(lend if lender == "sync" else lend_async): given)
    result = await result_of(hurlbat, a_run("use"))
    told = (result["state"], result["retryable"], result["error"]["type"], result["error"]["message"])
    assert told == ("failed", True, "LookupError", f"at {place}")
    first = result["error"]["stack"].splitlines()[1]
    assert "test_injection_in_order.py" in first
    assert "in lend" in first


@pytest.mark.parametrize("place", ["enter", "leave"])
async def test_a_dependency_may_say_what_shall_follow(hurlbat: Hurlbat, place: str) -> None:
    def raising(error: Exception) -> Callable[[], Iterator[None]]:
        def lend() -> Iterator[None]:
            if place == "enter":
                raise error
            yield
            raise error

        return lend

    def add(name: str, error: Exception) -> None:
        lend = raising(error)
        hurlbat.task(name=name)(lambda _=Depends(lend): None)

    add("never", NonRetryable("gone"))
    add("later", RetryAfter(9, rate_limit_key="db"))
    add("cancel", CancelRun("not today"))
    assert (await result_of(hurlbat, a_run("never")))["retryable"] is False
    later = await result_of(hurlbat, a_run("later"))
    assert (later["retry_after"], later["rate_limit_key"]) == (9, "db")
    cancelled = await result_of(hurlbat, a_run("cancel"))
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "not today")


async def test_a_generator_that_yields_twice_or_never_fails_the_attempt(hurlbat: Hurlbat) -> None:
    def twice() -> Iterator[int]:
        yield 1
        yield 2

    async def never() -> AsyncIterator[int]:
        for _ in ():
            yield 1

    hurlbat.task(name="twice")(lambda _=Depends(twice): None)
    hurlbat.task(name="never")(lambda _=Depends(never): None)
    for name, said in (("twice", "generator didn't stop"), ("never", "generator didn't yield")):
        error = (await result_of(hurlbat, a_run(name)))["error"]
        assert (error["type"], error["message"]) == ("RuntimeError", said)


async def test_an_input_that_is_refused_is_refused_before_anything_is_opened(hurlbat: Hurlbat) -> None:
    opened: list[int] = []

    @hurlbat.task
    async def use(number: int, _: Annotated[None, Depends(lambda: opened.append(1))]) -> None: ...

    assert (await result_of(hurlbat, a_run("use", "three")))["error"]["type"] == "invalid_input"
    assert opened == []
