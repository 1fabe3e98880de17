"""What is shown of an app's tasks: what starts them, how to run them, and what has changed."""

import json
import shlex
from typing import Literal

import pytest
from pydantic import BaseModel

from hurlbat import Hurlbat, OnEvent
from hurlbat.policy import Manifest
from hurlbat_app.dev.screen import MOST_TASKS, Screen, first_run


class Item(BaseModel):
    name: str
    count: int
    price: float = 1.5


class Order(BaseModel):
    id: str
    items: list[Item]
    gift: bool
    note: str | None


def _manifest(**tasks: dict[str, object]) -> Manifest:
    hurlbat = Hurlbat()
    for name, policy in tasks.items():

        async def function() -> None: ...

        function.__name__ = name
        hurlbat.task(**policy)(function)  # type: ignore[call-overload]
    return hurlbat.manifest()


def test_a_first_run_has_an_input_that_the_task_takes() -> None:
    hurlbat = Hurlbat()

    @hurlbat.task
    async def ship(input: Order) -> None: ...

    words = shlex.split(first_run(hurlbat.manifest().tasks[0]))

    assert (words[:4], words[-1]) == (["hurlbat", "run", "ship", "--input"], "--wait")
    assert Order.model_validate(json.loads(words[4])).items[0].name == "text"


def test_an_input_with_quotes_survives_the_shell() -> None:
    hurlbat = Hurlbat()

    @hurlbat.task
    async def say(input: Literal["it's"]) -> None: ...

    assert json.loads(shlex.split(first_run(hurlbat.manifest().tasks[0]))[4]) == "it's"


def test_tasks_are_listed_with_what_starts_them_and_not_too_many(capsys: pytest.CaptureFixture[str]) -> None:
    plain: dict[str, dict[str, object]] = {f"task{number}": {} for number in range(MOST_TASKS)}
    Screen().tasks(_manifest(nightly={"crons": ["0 3 * * *"], "on_events": ["order:*", "stock"]}, **plain))

    shown = capsys.readouterr().out.splitlines()
    assert "      nightly  cron 0 3 * * *  on order:*, stock" in shown
    assert shown[-1] == "      … and 1 more"


def test_what_came_went_and_changed_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().changes(_manifest(a={}, b={}, c={}), _manifest(b={"retries": 2}, c={}, d={"on_events": ["x"]}))

    assert capsys.readouterr().out == "· task d has come  on x\n· task a has gone\n· task b has changed\n"


def test_a_workflow_is_told_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    hurlbat = Hurlbat()
    order = hurlbat.workflow("order", input=None)

    @order.task(wait_for=OnEvent("paid"))
    async def pack() -> None: ...

    Screen().tasks(hurlbat.manifest())

    assert "workflow of 1" in capsys.readouterr().out
