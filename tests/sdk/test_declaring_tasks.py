"""What the decorator takes, and what it refuses with a sentence."""

import asyncio
import json
from typing import Any

import pytest
from pydantic import BaseModel

from hurlbat import Backoff, Concurrency, ConfigError, Context, Hurlbat, RateLimit, RetryAfter
from hurlbat.errors import TaskInvalid
from hurlbat.policy import Manifest, TaskPolicy, WantedLabel
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
        ({"concurrency": [1]}, r"policy\.concurrency\.0: .*instance of Concurrency"),
        ({"concurrency": [Concurrency("input")] * 2}, "two rules with the key input; .* a name of its own"),
        ({"concurrency": [Concurrency(key, name="user") for key in "ab"]}, "two rules named user"),
        ({"concurrency": [Concurrency(f"input.k{n}") for n in range(9)]}, r"policy\.concurrency: .*at most 8"),
        ({"rate_limits": [RateLimit("cdn"), RateLimit("cdn", units=2)]}, "rate limit cdn is there twice"),
        ({"slot_cost": 0}, r"policy\.slot_cost: .*greater than or equal to 1"),
        ({"sticky": "firm"}, r"policy\.sticky: .*'soft' or 'hard'"),
        ({"labels": {"gpu": 1}}, r"policy\.labels\.gpu: "),
        ({"labels": {"gpu": {"value": "a100", "weight": 0}}}, r"policy\.labels\.gpu\.weight: .*or equal to 1"),
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


FIVE = "'GROUP_ROUND_ROBIN', 'CANCEL_IN_PROGRESS', 'CANCEL_NEWEST', 'QUEUE_NEWEST_ONLY' or 'QUEUE_OLDEST_ONLY'"
BOTH = {"limit": 10, "duration": 1}


@pytest.mark.parametrize(
    ("rule", "given", "said"),
    [
        (Concurrency, {"key": "input", "max_runs": 0}, r"Concurrency\.max_runs: .*greater than or equal to 1"),
        (Concurrency, {"key": "input", "max_runs": -1}, r"Concurrency\.max_runs: .*greater than or equal to 1"),
        (Concurrency, {"key": "input", "max_runs": 1.5}, r"Concurrency\.max_runs: .*valid integer"),
        (Concurrency, {"key": "input", "strategy": "FIRST"}, rf"Concurrency\.strategy: .*{FIVE}"),
        (Concurrency, {"key": ""}, r"Concurrency\.key: .*at least 1 character"),
        (Concurrency, {"key": "i" * 513}, r"Concurrency\.key: .*at most 512 characters"),
        (Concurrency, {"key": "input", "name": "two words"}, r"Concurrency\.name: "),
        (Concurrency, {"key": "input", "max": 2}, r"Concurrency\.max: Unexpected"),
        (Concurrency, {}, r"Concurrency\.key: Field required"),
        (RateLimit, {}, "Give either key, .* or dynamic_key"),
        (RateLimit, {"key": "cdn", "dynamic_key": "input.t"} | BOTH, "Give either key, .* or dynamic_key"),
        (RateLimit, {"dynamic_key": "input.t", "limit": 10}, "needs limit and duration"),
        (RateLimit, {"dynamic_key": "input.t", "duration": 1}, "needs limit and duration"),
        (RateLimit, {"key": "cdn", "limit": 10}, "put beforehand .PUT /rate-limits/cdn."),
        (RateLimit, {"key": "cdn", "duration": 10}, "put beforehand .PUT /rate-limits/cdn."),
        (RateLimit, {"key": "two words"}, r"RateLimit\.key: .*pattern"),
        (RateLimit, {"key": "cdn", "units": 0}, r"RateLimit\.units: Must be a whole number from 1 to 1000000, or an"),
        (RateLimit, {"key": "cdn", "units": True}, r"RateLimit\.units: Must be a whole number"),
        (RateLimit, {"key": "cdn", "units": 1.5}, r"RateLimit\.units: Must be a whole number"),
        (RateLimit, {"key": "cdn", "units": ""}, r"RateLimit\.units: Must be .*1 to 512 characters"),
        (RateLimit, {"dynamic_key": "input.t"} | BOTH | {"limit": 0}, r"RateLimit\.limit: Must be a whole number"),
        (
            RateLimit,
            {"dynamic_key": "input.t"} | BOTH | {"duration": 0},
            r"RateLimit\.duration: Must be a number",
        ),
        (RateLimit, {"dynamic_key": "input.t"} | BOTH | {"duration": float("nan")}, r"RateLimit\.duration: Must be"),
        (
            RateLimit,
            {"dynamic_key": "input.t", "units": 11} | BOTH,
            "11 units of a limit of 10",
        ),
    ],
)
def test_a_rule_that_cannot_be_is_refused_where_it_is_made(rule: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(TaskInvalid, match=said):
        rule(**given)


def test_a_key_that_cannot_be_is_named_also_where_it_is_given_by_its_place() -> None:
    with pytest.raises(TaskInvalid, match=r"RateLimit\.key: "):
        RateLimit("two words")
    with pytest.raises(TaskInvalid, match=r"RateLimit\..*: Unexpected positional argument"):
        RateLimit("cdn", *["input.tenant"])


def test_flow_control_is_declared_with_one_rule_or_a_list(hurlbat: Hurlbat) -> None:
    @hurlbat.task(concurrency=Concurrency("input.user_id", max_runs=2), rate_limits=RateLimit("cdn"))
    def one() -> None: ...

    @hurlbat.task(
        concurrency=[Concurrency("input.user_id", strategy="CANCEL_NEWEST"), Concurrency("input.org", name="org")],
        rate_limits=[
            RateLimit("cdn", units="input.size"),
            RateLimit(dynamic_key="input.tenant", limit=10, duration=1),
            RateLimit(dynamic_key="input.tenant", limit="input.most", duration=60),
        ],
        slot_cost=5,
        labels={"region": "eu", "gpu": {"value": "a100", "required": False, "weight": 10}},
        sticky="soft",
    )
    def many() -> None: ...

    assert one.policy.concurrency == (Concurrency("input.user_id", max_runs=2),)
    assert one.policy.rate_limits == (RateLimit("cdn", units=1),)
    assert [rule.name for rule in many.policy.concurrency] == [None, "org"]
    assert [limit.duration for limit in many.policy.rate_limits] == [None, 1.0, 60.0]
    gpu = WantedLabel(value="a100", required=False, weight=10)
    assert many.policy.labels == {"region": "eu", "gpu": gpu}
    assert (many.policy.slot_cost, many.policy.sticky) == (5, "soft")


def test_a_policy_reads_what_it_wrote(hurlbat: Hurlbat) -> None:
    policy = TaskPolicy(
        name="t",
        concurrency=(Concurrency("input.a", max_runs=3, strategy="QUEUE_NEWEST_ONLY", name="a"),),
        rate_limits=(RateLimit("cdn"), RateLimit(dynamic_key="input.b", units="2", limit=7, duration="input.c")),
        labels={"region": "eu", "gpu": WantedLabel(value="a100", weight=2)},
    )
    assert TaskPolicy.model_validate_json(policy.model_dump_json()) == policy


def test_a_manifest_of_a_newer_version_is_read_without_what_is_not_known_here() -> None:
    rules = {"concurrency": [{"key": "input", "new": 1}], "rate_limits": [{"key": "cdn", "new": 1}]}
    task = {"name": "t", "labels": {"gpu": {"value": "a100", "new": 1}}, "new": 1} | rules
    (read,) = Manifest.read(json.dumps({"tasks": [task], "new": 1}).encode()).tasks
    assert (read.concurrency, read.rate_limits) == ((Concurrency("input"),), (RateLimit("cdn"),))
    assert read.labels == {"gpu": WantedLabel(value="a100")}


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


@pytest.mark.parametrize("key", ["", "k" * 257, "ö" * 129, "\ud800", 7])
def test_a_rate_limit_key_that_cannot_be_is_refused(key: Any) -> None:
    with pytest.raises(ConfigError, match="1 to 256 bytes"):
        RetryAfter(1, rate_limit_key=key)
