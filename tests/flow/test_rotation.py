"""Turns rotate over the keys of a group, several rules hold at once, and a large run is not starved by small ones."""

from itertools import product
from pathlib import Path

from tests.e2e.stage import Object
from tests.flow.checks import most_at_once
from tests.flow.stand import Flow

BIG, SMALL = [f"big-{n}" for n in range(4)], [f"small-{n}" for n in range(9)]
MANY = {"sqlite": 60, "postgresql": 40}
"""Runs of a big key."""
FIRST_STARTS = 13
"""Of each big key, before which the ten runs of every small one must have ended; a mere cap per key takes hundreds."""
DIGIT_MOST, NAME_MOST = 8, 3
SLOTS, LARGE, WAITING = 9, 5, 30
PASSED_OVER = 20
"""Starts of small runs, of those that wait, which a large one has to bear before slots are kept for it."""


def test_small_keys_are_done_before_a_big_one_that_came_first_has_had_its_thirteenth_start(either_flow: Flow) -> None:
    flow = either_flow
    rule = {"key": "input.key", "max_runs": 1, "strategy": "GROUP_ROUND_ROBIN"}
    flow.worker("rotation", {"name": "rotate", "concurrency": [rule]}, slots=4)
    flow.pause("rotate")
    keys = [*sorted(BIG * MANY[flow.database]), *sorted(SMALL * 10)]
    ids = flow.submit_all("rotate", *[{"key": key} for key in keys])
    key_of = dict(zip(ids, keys, strict=True))

    flow.resume("rotate")
    runs = flow.until_completed("rotate", len(keys))

    entries = flow.journal.entries("rotate")
    for big in BIG:
        starts = [n for n, one in enumerate(entries) if one["event"] == "started" and key_of[one["run_id"]] == big]
        early = [key_of[one["run_id"]] for one in entries[: starts[FIRST_STARTS - 1]] if one["event"] == "ended"]
        assert {key: early.count(key) for key in SMALL} == dict.fromkeys(SMALL, 10)
    stamps = {run_id: run["started_at"] for run_id, run in runs.items()}
    thirteenth = min(sorted(stamps[run] for run in ids if key_of[run] == big)[FIRST_STARTS - 1] for big in BIG)
    assert max(stamps[run] for run in ids if key_of[run] in SMALL) <= thirteenth
    spans = flow.journal.spans("rotate")
    assert sorted(span.run_id for span in spans) == sorted(ids)
    assert most_at_once(spans) <= 4
    assert {most_at_once(span for span in spans if key_of[span.run_id] == key) for key in (*BIG, *SMALL)} == {1}


def test_two_rules_hold_at_every_moment_and_are_made_use_of(either_flow: Flow, tmp_path: Path) -> None:
    """Nobody ends before as many have started as five names have room for."""
    flow, gate = either_flow, tmp_path / "gate"
    rules = [{"key": "input.digit", "max_runs": DIGIT_MOST}, {"key": "input.name", "max_runs": NAME_MOST}]
    flow.worker("two-rules", {"name": "two.rules", "concurrency": rules}, slots=16)
    flow.pause("two.rules")
    drawn = list(product((0, 1), ("Anna", "Boris", "Carla", "Dmitri", "Eva")))
    inputs: list[Object] = [{"digit": digit, "name": name, "ms": 10, "gate": str(gate)} for digit, name in drawn * 10]
    ids = flow.submit_all("two.rules", *inputs)
    input_of = dict(zip(ids, inputs, strict=True))

    flow.resume("two.rules")
    flow.until_started("two.rules", 5 * NAME_MOST)
    gate.touch()
    flow.until_completed("two.rules", 100)

    spans = flow.journal.spans("two.rules")
    assert sorted(span.run_id for span in spans) == sorted(ids)
    worst = {
        member: {
            value: most_at_once(span for span in spans if input_of[span.run_id][member] == value)
            for value in {one[member] for one in inputs}
        }
        for member in ("digit", "name")
    }
    assert max(worst["digit"].values()) <= DIGIT_MOST
    assert set(worst["name"].values()) == {NAME_MOST}
    assert most_at_once(spans) == 5 * NAME_MOST


def test_a_run_of_five_slots_starts_behind_a_stream_of_small_ones(flow: Flow, tmp_path: Path) -> None:
    """The small ones end one by one, so that five slots are never free at once unless they are kept."""
    flow.worker("stream", {"name": "stream.small"}, {"name": "stream.large", "slot_cost": LARGE}, slots=SLOTS)
    gates = [tmp_path / str(n) for n in range(SLOTS + WAITING)]
    ids = flow.submit_all("stream.small", *[{"gate": str(gate)} for gate in gates])
    gate_of = dict(zip(ids, gates, strict=True))
    flow.until_started("stream.small", SLOTS)
    [run_id] = flow.submit_all("stream.large", {})

    for ended in range(PASSED_OVER + SLOTS):
        oldest = flow.journal.starts("stream.small")[ended]
        gate_of[oldest].touch()
        flow.api.ended(oldest)
        flow.settle()
        if flow.api.show(run_id)["started_at"]:
            break
    flow.api.ended(run_id)

    order = flow.journal.starts("stream.small", "stream.large")
    assert order.index(run_id) - SLOTS <= PASSED_OVER
    for gate in gates:
        gate.touch()
    flow.until_completed("stream.small", len(ids))
    spans = flow.journal.spans("stream.small", "stream.large")
    large = [span for span in spans if span.run_id == run_id]
    assert most_at_once(spans + large * (LARGE - 1)) == SLOTS
