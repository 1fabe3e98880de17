"""`import hurlbat` is light, and a task's types are known to whoever calls it."""

import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import hurlbat

ROOT = Path(__file__).parents[2]
COLD_IMPORT_SECONDS = 0.15

SAMPLE = """
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel

from hurlbat import ApiError, Concurrency, Context, Cron, Debounce, Event, Filter, Hurlbat, HurlbatError, RateLimit
from hurlbat import Node, OnEvent, Run, RunRef, Schedule, ScheduleRef, Sleep, Task, Throttle, When, Workflow, any_of

hurlbat = Hurlbat()


class Image(BaseModel):
    url: str


@dataclass
class Thumb:
    width: int


@hurlbat.task
async def resize(image: Image, ctx: Context) -> Thumb:
    ctx.log("resizing", level="debug")
    return Thumb(1)


@hurlbat.task(retries=3, execution_timeout=60)
def count(words: list[str]) -> int:
    return len(words)


@hurlbat.task(
    concurrency=Concurrency("input.user_id", max_runs=2),
    rate_limits=[RateLimit("cdn", units=1), RateLimit(dynamic_key="input.tenant", limit="input.limit", duration=1)],
    slot_cost=2,
    labels={"region": "eu", "gpu": {"value": "a100", "required": False, "weight": 10}},
    sticky="soft",
)
async def crop(image: Image) -> Thumb:
    return Thumb(1)


@hurlbat.task(concurrency=[Concurrency("input", strategy="CANCEL_NEWEST", name="input")], rate_limits=RateLimit("cdn"))
async def tick(ctx: Context) -> None: ...


@hurlbat.task
def tock() -> str:
    return ""


@hurlbat.task(batch_size=100, batch_timeout=5, batch_key="input.url", on_failure=tick)
async def index(images: list[Image], ctx: Context) -> int:
    return len(images)


@hurlbat.task(batch_size=2)
def gather(words: list[str]) -> str:
    return " ".join(words)


@hurlbat.task(
    on_events=["image.*"],
    filters=[Filter("input.size > 3", scope="eu", payload={"a": 1}), {"expression": "true"}],
    crons=["@daily", Cron("0 3 * * *", timezone="Europe/Berlin", input=Image(url=""), overlap="skip")],
    debounce=Debounce(5, key="input.url", mode="leading"),
    throttle=Throttle(10, 60, key="input.url"),
    on_failure="report",
)
def listen(image: Image, ctx: Context) -> None:
    trigger: Mapping[str, Any] | None = ctx.trigger


@hurlbat.task(on_events="image.new", filters=Filter(scope="eu"), crons="@daily", throttle={"limit": 1, "period": 1})
async def hear() -> None: ...


def count_one(number: int) -> int:
    return number


elsewhere = hurlbat.stub("elsewhere", input=Image, output=list[int])
nothing = hurlbat.stub("nothing", input=None, output=int)
anything = hurlbat.stub("anything")


album = hurlbat.workflow(
    "album", input=Image, on_events="album.new", crons=Cron("@daily", input=Image(url="")), priority=3
)
empty = hurlbat.workflow("empty", input=None)
loose = hurlbat.workflow("loose")


@album.task
async def load(image: Image) -> Thumb:
    return Thumb(1)


@album.task(
    parents=[load],
    wait_for=[Sleep(timedelta(days=1)), any_of(OnEvent("approved", scope="eu"), When("parents.load.width > 1"))],
    retries=3,
)
def measure(ctx: Context, image: Image) -> list[int]:
    thumb: Thumb = ctx.output(load)
    width: Thumb | None = ctx.output(load, None)
    return [thumb.width, len(ctx.conditions)]


@album.task(parents=["load", measure], input="parents.measure[0]", skip_if={"expression": "true"})
async def store(width: int, ctx: Context) -> str:
    sizes: list[int] = ctx.output(measure)
    whatever: int = ctx.output("load").width
    return str(ctx.was_skipped(load)) + str(ctx.workflow_run_id)


@album.on_failure
async def sorry(ctx: Context) -> None: ...


@album.on_success(retries=1)
def hurray(image: Image) -> None: ...


@loose.task
def first(words: list[str]) -> int:
    return len(words)


shared = album.add(resize, name="shared", parents=store, cancel_if=OnEvent("gone"))
far = album.add("far")
nested = album.add(empty)


async def flows() -> None:
    task: Task[Image, dict[str, Any]] = album
    outputs: dict[str, Any] = await album.run(Image(url=""), timeout=5)
    many: list[dict[str, Any]] = album.run_many_sync([Image(url="")])
    ref: RunRef[dict[str, Any]] = await empty.schedule(delay=5)
    made: Workflow[Image] = album
    one: Node[Image, Thumb] = load
    two: Node[Image, list[int]] = measure
    three: Node[Image, Thumb] = shared
    four: Node[None, dict[str, Any]] = nested
    alone: Thumb = await load.run(Image(url=""))
    thumbs: list[Thumb] = await shared.run_many([Image(url="")])


async def ways() -> None:
    batched: Task[Image, int] = index
    total: int = await index.run(Image(url=""))
    text: str = gather.run_sync("word")
    texts: list[str] = await gather.run_many(["a", "b"])
    ref: RunRef[Thumb] = await resize.schedule(Image(url=""), at=datetime.now(UTC), priority=3)
    later: RunRef[str] = tock.schedule_sync(delay=5, metadata={"a": 1})
    moved: Run = await ref.move(delay=60)
    nightly: ScheduleRef[Thumb] = await resize.cron("0 3 * * *", input=Image(url=""), timezone="Europe/Berlin")
    fired: RunRef[Thumb] = await nightly.trigger()
    times: list[datetime] = nightly.next_times_sync(3)
    schedule: Schedule = await nightly.pause()
    event: Event = await hurlbat.events.push("image.new", Image(url=""), scope="eu")
    started: tuple[str, ...] = hurlbat.events.push_sync("image.new").runs
    events: list[Event] = await hurlbat.events.push_many([{"key": "a"}, {"key": "b", "payload": 1, "id": "b1"}])
    some: list[Event | ApiError] = hurlbat.events.push_many_sync([{"key": "a"}], return_exceptions=True)
    numbers: list[int] = await elsewhere.run(Image(url=""))
    number: int = await nothing.run()
    whatever = await anything.run({"a": 1})
    sizes: list[list[int]] = elsewhere.run_many_sync([Image(url="")])


async def callers(ctx: Context) -> None:
    task: Task[Image, Thumb] = resize
    thumb: Thumb = await resize.run(Image(url=""), timeout=5, priority=3, metadata={"a": 1})
    ref: RunRef[int] = await count.run_no_wait(["a"])
    number: int = await ref.result()
    many: list[Thumb] = await resize.run_many([Image(url="")])
    some: list[Thumb | HurlbatError] = await resize.run_many([Image(url="")], return_exceptions=True)
    cropped: Thumb = await crop.run(Image(url=""), parent=ref.id)
    await tick.run()
    text: str = tock.run_sync()
    counted: int = count.run_sync(["a"])
"""
WRONG = """
    await resize.run("url")
    wrong: int = await resize.run(Image(url=""))
    await resize.run()
    await resize.run(Image(url=""), retries=3)
    count.run_sync([1])
    count.run_many_sync(["a", "b"])
    await tick.run(1)
    Concurrency("input", 2)
    Concurrency("input", strategy="FIRST_COME")
    RateLimit("cdn", "input")
    hurlbat.task(sticky="firm")
    hurlbat.task(labels={"gpu": {"weight": 1}})
    hurlbat.task(concurrency="input.user_id")
    hurlbat.task(batch_size=10)(count_one)
    await index.run([Image(url="")])
    await resize.schedule("url", delay=1)
    await resize.schedule(Image(url=""), run_at=datetime.now(UTC))
    await resize.cron("@daily", input="url")
    await resize.cron("@daily", missed="never")
    await elsewhere.run("url")
    wrong = await nothing.run(1)
    hurlbat.events.push_many_sync([{"payload": 1}])
    await hurlbat.events.push("image.new", source="web")
    hurlbat.task(crons=5)
    Cron("@daily", "Europe/Berlin")
    Debounce(5, mode="middle")
    await album.run("url")
    await empty.run(1)
    album.task(retry=3)
    album.task(on_events="album.new")
    album.task(parents=resize)
    album.task(count_one)
    album.add(resize, retries=3)
    hurlbat.workflow("other", retries=3)
    await load.run("url")
    number = ctx.output(load)
    ctx.output(resize)
    Sleep("soon")
    OnEvent("a", "eu")
    any_of(any_of(Sleep(1)))
"""


def check(program: str, folder: Path, text: str, *arguments: str) -> list[str]:
    """Return the lines of complaint of a type checker about a file that a user might write."""
    file = folder / "sample.py"
    file.write_text(text)
    command = [str(Path(sys.executable).with_name(program)), *arguments, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return [line for line in (done.stdout + done.stderr).splitlines() if "error" in line and "sample.py:" in line]


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("mypy", ["--strict", "--follow-imports=silent"]), ("pyright", ["--level", "error"])],
)
def test_a_caller_knows_the_types_and_each_wrong_use_is_found(
    tmp_path: Path, program: str, arguments: list[str]
) -> None:
    complaints = check(program, tmp_path, SAMPLE + WRONG, *arguments)
    first = len(SAMPLE.splitlines()) + 2
    wrong = range(first, first + len(WRONG.strip().splitlines()))
    assert {int(line.split("sample.py:")[1].split(":")[0]) for line in complaints} == set(wrong)


TIMED = "import time; begun = time.process_time(); import hurlbat; print(time.process_time() - begun)"


def test_a_cold_import_takes_no_time() -> None:
    times = [
        float(subprocess.run([sys.executable, "-c", TIMED], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    ]
    assert statistics.median(times) < COLD_IMPORT_SECONDS


def test_the_version_is_the_installed_one() -> None:
    assert hurlbat.__version__ == version("hurlbat")


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Hurlbot'"):
        _ = hurlbat.Hurlbot
    assert set(hurlbat.__all__) < set(dir(hurlbat))
    assert "__version__" in dir(hurlbat)
