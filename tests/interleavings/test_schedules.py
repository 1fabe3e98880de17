"""The explorer alone, on sides whose steps are known beforehand."""

from collections.abc import Callable, Mapping, Sequence
from math import comb

import pytest

from tests.interleavings.schedules import AllSchedules, Schedules, SomeSchedules, Step, independent, never

Script = Sequence[tuple[str, str]]
"""Steps of a toy: `see x`, `set x` to the side's name in private, and `show`, which makes what was set public."""


def step(deed: str, over: str) -> Step:
    match deed:
        case "see":
            return Step(f"see {over}", sees=frozenset({over}))
        case "set":
            return Step(f"set {over}")
        case _:
            return Step("show", frozenset(over.split()))


def outcomes(scripts: Mapping[str, Script], schedules: Schedules) -> tuple[int, set[tuple[str, ...]]]:
    """Play a toy in these schedules; return how many were whole, and what each way of playing it made seen."""
    whole, found = 0, set()
    while True:
        at = dict.fromkeys(scripts, 0)
        public: dict[str, str] = {}
        saw: list[str] = []
        while ready := {side: step(*steps[at[side]]) for side, steps in scripts.items() if at[side] < len(steps)}:
            side = schedules.choose(ready)
            if side is None:
                break
            deed, over = scripts[side][at[side]]
            at[side] += 1
            if deed == "see":
                saw.append(f"{side} saw {over} of {public.get(over)}")
            elif deed == "show":
                public.update(dict.fromkeys(over.split(), side))
        else:
            whole += 1
            found.add((*sorted(saw), *(f"{name}={value}" for name, value in sorted(public.items()))))
        if not schedules.another():
            return whole, found


TOYS: dict[str, dict[str, Script]] = {
    "nothing in common": {"a": [("see", "x"), ("set", "x"), ("show", "x")], "b": [("see", "y"), ("show", "y")]},
    "each reads what the other writes": {
        "a": [("see", "y"), ("set", "x"), ("show", "x"), ("see", "y")],
        "b": [("see", "x"), ("set", "y"), ("show", "y"), ("see", "x")],
    },
    "both write the same": {"a": [("set", "x"), ("show", "x")], "b": [("see", "x"), ("set", "x"), ("show", "x")]},
    "three": {
        "a": [("see", "x"), ("show", "x")],
        "b": [("see", "x"), ("show", "y")],
        "c": [("see", "y"), ("see", "x"), ("show", "x")],
    },
}


@pytest.mark.parametrize("toy", TOYS)
def test_what_is_left_out_could_not_have_ended_otherwise(toy: str) -> None:
    every, all_found = outcomes(TOYS[toy], AllSchedules(never))
    fewer, found = outcomes(TOYS[toy], AllSchedules(independent))
    assert found == all_found
    assert fewer < every


@pytest.mark.parametrize(("first", "second"), [(1, 1), (2, 3), (4, 4), (0, 2)])
def test_without_leaving_out_every_order_is_played_once(first: int, second: int) -> None:
    scripts = {"a": [("set", "x")] * first, "b": [("set", "x")] * second}
    assert outcomes(scripts, AllSchedules(never))[0] == comb(first + second, first)


def test_sides_that_see_nothing_of_each_other_need_one_schedule() -> None:
    whole, _ = outcomes(TOYS["nothing in common"], AllSchedules(independent))
    assert whole == 1


def test_a_schedule_that_comes_to_another_fork_than_before_is_an_error() -> None:
    schedules = AllSchedules(never)
    schedules.choose({"a": Step("one"), "b": Step("two")})
    assert schedules.another()
    with pytest.raises(AssertionError, match="the same schedule"):
        schedules.choose({"a": Step("one")})


def drawn(seed: int) -> list[str | None]:
    schedules: Callable[..., str | None] = SomeSchedules(seed, 1).choose
    return [schedules({"a": Step("one"), "b": Step("two"), "c": Step("three")}) for _ in range(50)]


def test_a_seed_draws_the_same_schedule_again_and_another_seed_another() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_as_many_schedules_are_drawn_as_were_asked_for() -> None:
    assert outcomes(TOYS["three"], SomeSchedules(1, 20))[0] == 20
