"""Simulated histories: no seed may break a promise. One that does is printed with the command that tells it again."""

from collections import Counter
from dataclasses import fields

import pytest

from hurlbat_dispatcher.simulation.faults import Fault
from tests.sim.command import command_of, summary_of
from tests.sim.composition_plan import Deed
from tests.sim.plan import Mishap, Mood, plan_of
from tests.sim.regressions import REGRESSIONS, Regression
from tests.sim.telling import tell

SEEDS = 220
CHUNK = 10


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_no_history_of_these_ten_seeds_breaks_a_promise(first: int) -> None:
    for seed in range(first, first + CHUNK):
        told = summary_of(tell(seed))
        assert told.violations == (), f"seed {seed}: {command_of(seed)}"


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda one: one.bug)
def test_what_went_wrong_once_goes_well(regression: Regression) -> None:
    told = summary_of(tell(regression.seed))
    assert told.violations == (), f"{regression.says} {command_of(regression.seed)}"


def test_everything_that_can_go_wrong_is_planned_by_some_seed() -> None:
    plans = [plan_of(seed) for seed in range(SEEDS)]
    assert {mood for plan in plans for mood, _ in plan.moods} == set(Mood)
    assert {mishap for plan in plans for mishap, _ in plan.mishaps} == set(Mishap)
    planned = {fault for plan in plans for fault in Fault if getattr(plan.faults, fault) > 0}
    assert planned == set(Fault)
    assert {deed for plan in plans for deed, _ in plan.composition.deeds} == set(Deed)
    assert {plan.servers for plan in plans} == {1, 2, 3, 4}
    assert {plan.calms_down for plan in plans} == {True, False}


def test_every_seed_leaves_something_out() -> None:
    """Or nothing would ever get far enough to go wrong in a strange way."""
    for plan in map(plan_of, range(SEEDS)):
        left_out = len(Mood) - len(plan.moods) + len(Mishap) - len(plan.mishaps)
        left_out += sum(getattr(plan.faults, field.name) == 0.0 for field in fields(plan.faults))
        assert left_out > 3


def test_things_do_go_wrong_in_a_history() -> None:
    counts: Counter[str] = Counter()
    for seed in range(12):
        told = tell(seed)
        counts.update(told.counts)
        counts["faults"] += sum(told.faults.values())
    for what, least in (
        ("acknowledged", 60),
        ("executed", 60),
        ("faults", 60),
        ("deaths", 6),
        ("commits", 600),
        ("children", 6),
    ):
        assert counts[what] >= least, what
