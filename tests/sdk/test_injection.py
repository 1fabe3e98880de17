"""What a task depends on: given before it, once an attempt, and taken back after it in reverse, however it ended."""

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import pytest

from hurlbat import Context, Depends, Hurlbat
from hurlbat.errors import TaskInvalid
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of
from tests.sdk.manners import in_manner

pytestmark = pytest.mark.anyio


@pytest.fixture
def hurlbat() -> Hurlbat:
    return an_app()


def get_plain() -> str:
    return "plain"


async def get_async() -> str:
    return "async"


def get_generator() -> Iterator[str]:
    yield "generator"


async def get_async_generator() -> AsyncIterator[str]:
    yield "async generator"


@dataclass
class Page:
    size: int = 20


@dataclass  # one that cannot be hashed
class Times:
    factor: int

    def __call__(self, ctx: Context) -> int:
        return self.factor * int(ctx.input)

    async def later(self) -> int:
        return self.factor

    def lent(self, /, ctx: Context) -> Iterator[int]:
        yield self.factor + ctx.attempt


# -- what is given -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(
    ("provider", "value"),
    [
        (get_plain, "plain"),
        (get_async, "async"),
        (get_generator, "generator"),
        (get_async_generator, "async generator"),
        (lambda: get_async(), "async"),
        (lambda ctx=Depends(get_plain), /, other=3: [ctx, other], ["plain", 3]),
        (functools.partial(Page, size=3), {"size": 3}),
        (Page, {"size": 20}),
        (Times(3), 21),
        (Times(3).later, 3),
        (Times(3).lent, 4),
        (dict, {}),
    ],
)
async def test_whatever_can_be_called_provides(hurlbat: Hurlbat, sync: bool, provider: Any, value: Any) -> None:
    def use(input: int, given=Depends(provider)) -> Any:  # type: ignore[no-untyped-def]
        return given

    in_manner(hurlbat, sync, use)
    assert (await result_of(hurlbat, a_run("use", 7)))["output"] == value


async def test_parameters_may_stand_in_any_order_and_say_it_in_any_form(hurlbat: Hurlbat) -> None:
    Alias = Annotated[str, Depends(get_plain)]  # noqa: N806 -- a type

    @hurlbat.task
    async def use(
        first: Annotated[str, Depends(get_async)],
        ctx: Context,
        /,
        order: int,
        page: Annotated[Page, Depends()],
        again: Annotated[Alias, Depends(get_generator)],
        *,
        alias: Alias = "unless it is called as a function",
        other: Page = Depends(),
    ) -> Any:
        return [first, order, ctx.input, page.size, again, alias, other is page]

    use.shape.check_input("1")
    output = (await result_of(hurlbat, a_run("use", 5)))["output"]
    assert output == ["async", 5, 5, 20, "generator", "plain", True]


async def test_a_task_without_input_may_depend_on_something(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def tidy(*, word: Annotated[str, Depends(get_plain)]) -> str:
        return word

    assert tidy.declared().input_schema is None
    assert (await result_of(hurlbat, a_run("tidy", {"ignored": 1})))["output"] == "plain"


async def test_a_batch_may_depend_on_something(hurlbat: Hurlbat) -> None:
    @hurlbat.task(batch_size=3)
    def index(words: list[str], mark: Annotated[str, Depends(get_plain)]) -> list[str]:
        return [f"{word} {mark}" for word in words]

    assert (await result_of(hurlbat, a_run("index", ["a", "b"])))["output"] == ["a plain", "b plain"]


async def test_a_node_of_a_workflow_may_depend_on_something(hurlbat: Hurlbat) -> None:
    orders = hurlbat.workflow("orders", input=int)

    @orders.task
    async def pay(order: int, word: Annotated[str, Depends(get_generator)]) -> str:
        return f"{order} {word}"

    assert (await result_of(hurlbat, a_run("orders.pay", 7)))["output"] == "7 generator"


def test_a_call_of_the_function_itself_passes_what_it_is_given(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    def use(number: int, word: Annotated[str, Depends(get_plain)]) -> str:
        return f"{number} {word}"

    assert use(3, "mine") == "3 mine"


async def test_what_two_ask_for_is_made_once_an_attempt_unless_one_wants_its_own(hurlbat: Hurlbat) -> None:
    made: list[int] = []

    def count() -> int:
        made.append(1)
        return len(made)

    def above(number: Annotated[int, Depends(count)]) -> int:
        return number * 10

    @hurlbat.task
    async def use(
        ctx: Context,
        *,
        own: Annotated[int, Depends(count, use_cache=False)],
        one: Annotated[int, Depends(count)],
        ten: Annotated[int, Depends(above)],
        last: Annotated[int, Depends(count, use_cache=False)],
    ) -> list[int]:
        return [own, one, ten, last]

    assert (await result_of(hurlbat, a_run("use")))["output"] == [1, 2, 20, 3]
    assert (await result_of(hurlbat, a_run("use", attempt=2)))["output"] == [4, 5, 50, 6]


async def test_functions_that_are_marked_for_fastapi_serve_tasks_as_well(hurlbat: Hurlbat) -> None:
    def get_repository(word: Annotated[str, fastapi.Depends(get_generator)]) -> str:
        return f"repository of {word}"

    @hurlbat.task
    async def use(one: Annotated[str, fastapi.Depends(get_repository)], two: str = fastapi.Depends(get_plain)) -> Any:
        return [one, two]

    assert (await result_of(hurlbat, a_run("use")))["output"] == ["repository of generator", "plain"]


# -- what cannot be ----------------------------------------------------------------------------------------------------


NO_FUNCTION: Any = "get_db"


def circle_a(b: "Annotated[int, Depends(circle_b)]") -> int:
    return b


def circle_b(a: Annotated[int, Depends(circle_a)]) -> int:
    return a


def asks(order: int) -> int:
    return order


def asks_for_one_that_asks(asked: Annotated[int, Depends(asks)]) -> int:
    return asked


def asks_by_an_unknown_name(order: "Ordre" = 3) -> int:  # type: ignore[name-defined]  # noqa: F821
    return 3


@pytest.mark.parametrize(
    ("annotation", "default", "said"),
    [
        (Annotated[int, Depends(NO_FUNCTION)], None, "task use: given depends on 'get_db', which cannot be called"),
        (Annotated[int | None, Depends()], None, r"task use: Depends\(\) of given says nothing to call"),
        (inspect.Parameter.empty, Depends(), r"task use: Depends\(\) of given says nothing to call"),
        (Annotated[int, Depends(get_plain)], Depends(get_plain), "given has Depends in its annotation and as its def"),
        (Annotated[int, Depends(asks)], None, "task use → asks: nothing gives order to a dependency; it may ask for"),
        (int, Depends(asks_for_one_that_asks), "task use → asks_for_one_that_asks → asks: nothing gives order"),
        (int, Depends(circle_a), "task use: its dependencies go in a circle: circle_a → circle_b → circle_a"),
        (int, Depends(asks_by_an_unknown_name), "asks_by_an_unknown_name: name 'Ordre' is not defined in its annot"),
    ],
)
def test_what_cannot_be_given_is_said_where_the_task_is_declared(
    hurlbat: Hurlbat, annotation: Any, default: Any, said: str
) -> None:
    def use(given: Any = default) -> None: ...

    use.__annotations__["given"] = annotation
    with pytest.raises(TaskInvalid, match=said):
        hurlbat.task(use)
    assert hurlbat.tasks == {}


def test_two_inputs_are_still_refused_with_a_way_out(hurlbat: Hurlbat) -> None:
    with pytest.raises(TaskInvalid, match=r"one input, not order, session; .* mark what is no input with Depends"):

        @hurlbat.task
        async def use(order: int, session: str) -> None: ...


# -- others in their place ---------------------------------------------------------------------------------------------


async def test_a_test_puts_others_in_the_place_of_what_tasks_depend_on(hurlbat: Hurlbat) -> None:
    def repository(word: Annotated[str, Depends(get_plain)]) -> str:
        return f"repository of {word}"

    @hurlbat.task
    async def use(given: Annotated[str, Depends(repository)]) -> str:
        return given

    async def fake(ctx: Context, word: Annotated[str, Depends(get_generator)]) -> AsyncIterator[str]:
        yield f"fake {word} of {ctx.task}"

    async def told(attempt: int) -> Any:
        result = await result_of(hurlbat, a_run("use", attempt=attempt))
        return result.get("output", result.get("error"))

    hurlbat.dependency_overrides[get_plain] = fake
    assert await told(1) == "repository of fake generator of use"
    hurlbat.dependency_overrides[repository] = get_async
    assert await told(2) == "async"
    hurlbat.dependency_overrides[repository] = circle_a
    assert (await told(3))["type"] == "TaskInvalid"
    hurlbat.dependency_overrides[repository] = lambda word=Depends(repository): word
    assert "<lambda> → <lambda>" in (await told(4))["message"]
    hurlbat.dependency_overrides.clear()
    assert await told(5) == "repository of plain"


# -- threads and context variables -------------------------------------------------------------------------------------

TENANT = contextvars.ContextVar("TENANT", default="nobody")


def as_tenant() -> Iterator[threading.Thread]:
    token = TENANT.set("acme")
    yield threading.current_thread()
    TENANT.reset(token)  # possible only in the context that it was set in


async def test_all_that_is_sync_of_a_sync_task_runs_in_one_thread(hurlbat: Hurlbat) -> None:
    seen: list[threading.Thread] = []

    def lend(thread: Annotated[threading.Thread, Depends(as_tenant)]) -> Iterator[None]:
        seen.extend([thread, threading.current_thread()])
        yield
        seen.append(threading.current_thread())

    async def on_the_loop(_: Annotated[None, Depends(lend)]) -> AsyncIterator[str]:
        assert threading.current_thread() is threading.main_thread()
        before = TENANT.get()
        token = TENANT.set("acme's child")
        yield before
        TENANT.reset(token)

    @hurlbat.task
    def use(tenant: Annotated[str, Depends(on_the_loop)]) -> list[str]:
        seen.append(threading.current_thread())
        return [tenant, TENANT.get()]

    assert (await result_of(hurlbat, a_run("use")))["output"] == ["acme", "acme's child"]
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert seen[0] is not threading.main_thread()


async def test_an_async_task_has_the_context_variables_of_its_sync_dependencies(hurlbat: Hurlbat) -> None:
    @hurlbat.task
    async def use(ctx: Context, *, thread: Annotated[threading.Thread, Depends(as_tenant)]) -> Any:
        assert thread is not threading.main_thread()
        return TENANT.get()

    assert (await result_of(hurlbat, a_run("use")))["output"] == "acme"
    assert TENANT.get() == "nobody"


async def test_who_gives_back_does_not_wait_behind_who_waits_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    hurlbat, free = an_app(threads=1), threading.Semaphore(1)
    waiting = threading.Event()

    def connection() -> Iterator[None]:
        if not free.acquire(blocking=False):
            waiting.set()
            assert free.acquire(timeout=120)
        yield
        free.release()

    @hurlbat.task
    async def use(first: bool, _: Annotated[None, Depends(connection)]) -> str:
        if first:
            await asyncio.to_thread(waiting.wait, 120)
        return "done"

    runs = [a_run("use", number == 0, run_id=f"run-{number}") for number in range(3)]
    exchange = await Exchange(hurlbat.asgi(), delivery(*runs)).finish()
    assert [result["output"] for result in exchange.results.values()] == ["done"] * 3


async def test_a_sync_task_opens_nothing_before_it_has_a_thread_and_starts_then() -> None:
    hurlbat, gate, told = an_app(threads=1), threading.Event(), list[str]()

    def lend(ctx: Context) -> Iterator[None]:
        told.append(f"enter {ctx.run_id}")
        yield
        told.append(f"leave {ctx.run_id}")

    @hurlbat.task
    def use(_: Annotated[None, Depends(lend)]) -> None:
        gate.wait(120)

    exchange = Exchange(hurlbat.asgi(), delivery(*[a_run("use", run_id=name) for name in "abc"]))
    await exchange.until(1, "started")
    answer = await Exchange(hurlbat.asgi(), cancellation(("b", 1))).finish()
    assert answer.json["runs"][0]["status"] == "stopped"
    assert [line["run_id"] for line in exchange.lines if line["type"] == "started"] == ["a"]
    gate.set()
    await exchange.finish()
    assert told == ["enter a", "leave a", "enter c", "leave c"]
