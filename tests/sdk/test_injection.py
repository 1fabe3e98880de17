"""What a task depends on: given before it, once an attempt, and taken back after it in reverse, however it ended."""

import asyncio
import contextvars
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import fastapi
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hurlbat import CancelRun, Context, Depends, Hurlbat, NonRetryable, RetryAfter
from hurlbat.errors import TaskInvalid
from tests.sdk.exchange import Exchange, a_run, an_app, cancellation, delivery, result_of
from tests.sdk.test_imports_and_types import check

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


def in_manner(hurlbat: Hurlbat, sync: bool, function: Callable[..., Any]) -> None:
    """Declare a task `use` that is sync, or async."""
    if sync:
        hurlbat.task(name="use")(function)
        return

    @functools.wraps(function)
    async def use(*args: Any, **named: Any) -> Any:
        return function(*args, **named)

    hurlbat.task(name="use")(use)


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


# -- in and out, in order ----------------------------------------------------------------------------------------------

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
    assert "test_injection.py" in first
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


# -- types -------------------------------------------------------------------------------------------------------------

TYPED = """
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from hurlbat import Context, Depends, Hurlbat, Node, Task


@asynccontextmanager
async def lifespan(hurlbat: Hurlbat) -> AsyncIterator[dict[str, int]]:
    yield {"size": len(hurlbat.tasks)}


hurlbat = Hurlbat(lifespan=lifespan)


@dataclass
class Order:
    id: int


class Session: ...


def get_db(ctx: Context) -> Iterator[Session]:
    yield Session()


async def get_limit(db: Annotated[Session, Depends(get_db)]) -> int:
    return 3


Db = Annotated[Session, Depends(get_db)]
Limit = Annotated[int, Depends(get_limit, use_cache=False)]


@hurlbat.middleware
async def timed(ctx: Context, call_next: Callable[[], Awaitable[Any]]) -> Any:
    return await call_next()


@hurlbat.task
async def a(order: Order, ctx: Context, db: Db) -> int: ...
@hurlbat.task
async def b(order: Order, db: Db, ctx: Context, limit: Limit) -> int: ...
@hurlbat.task
async def c(ctx: Context, order: Order, db: Db) -> int: ...
@hurlbat.task(retries=3)
async def d(order: Order, db: Session = Depends(get_db)) -> int: ...
@hurlbat.task
async def e(order: Order, *, db: Db, ctx: Context) -> int: ...
@hurlbat.task
def f(order: Order, ctx: Context, db: Db, limit: Limit) -> int: ...
@hurlbat.task
def g(order: Order, db: Db) -> int: ...
@hurlbat.task(batch_size=3)
def h(orders: list[Order], db: Db) -> int: ...
@hurlbat.task(batch_size=3)
async def i(ctx: Context, orders: list[Order], db: Db) -> int: ...
@hurlbat.task
async def j(*, db: Db) -> int: ...
@hurlbat.task
async def k(ctx: Context, *, db: Db, limit: Limit) -> int: ...
@hurlbat.task
def l(db: Session = Depends(get_db)) -> int: ...
@hurlbat.task
def m(ctx: Context, db: Session = Depends(get_db)) -> int: ...


with_order: list[Task[Order, int]] = [a, b, c, d, e, f, g, h, i]
without: list[Task[None, int]] = [j, k, l, m]
hurlbat.dependency_overrides[get_db] = Session
orders = hurlbat.workflow("orders", input=Order)


@orders.task
async def pay(order: Order, ctx: Context, db: Db) -> int: ...
@orders.task(parents=[pay])
def ship(ctx: Context, db: Session = Depends(get_db)) -> int: ...


nodes: tuple[Node[Order, int], Node[None, int]] = (pay, ship)


async def callers() -> None:
    number: int = await a.run(Order(1)) + await j.run() + f.run_sync(Order(1))
"""
WRONG = """
    await a.run(Session())
    await b.run()
    await k.run(Session())
    text: str = await e.run(Order(1))
    await h.run([Order(1)])
    Depends(3)
    Depends(get_db, cache=False)
    hurlbat.middleware(get_db)
"""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("mypy", ["--strict", "--follow-imports=silent", "--disable-error-code=empty-body"]), ("pyright", [])],
)
def test_callers_know_the_types_of_input_and_output_whatever_a_task_depends_on(
    tmp_path: Any, program: str, arguments: list[str]
) -> None:
    complaints = check(program, tmp_path, TYPED + WRONG, *arguments)
    first = len(TYPED.splitlines()) + 2
    wrong = range(first, first + len(WRONG.strip().splitlines()))
    assert {int(line.split("sample.py:")[1].split(":")[0]) for line in complaints} == set(wrong)
