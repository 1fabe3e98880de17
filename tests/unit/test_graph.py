"""The rules of workflows: which node comes next, what becomes of one that waits, how it ends, and what is redone."""

import pytest

from hurlbat_dispatcher.domain.graph import (
    Action,
    Clauses,
    Condition,
    Fate,
    Graph,
    Node,
    Place,
    Step,
    decide,
    next_steps,
    outcome,
    to_do_again,
)
from hurlbat_dispatcher.domain.lifecycle import RunState

COMPLETED, SKIPPED, FAILED, CANCELLED = RunState.COMPLETED, RunState.SKIPPED, RunState.FAILED, RunState.CANCELLED
QUEUED, RUNNING, SUSPENDED = RunState.QUEUED, RunState.RUNNING, RunState.SUSPENDED
UNENDED = (QUEUED, RUNNING, SUSPENDED)
A, B, C = Condition(sleep=1), Condition(event="b"), Condition(expression="c")


def graph(said: str, *, last: bool = False) -> Graph:
    """Make a graph of what is said: "a b:a c:a,b" are three nodes, the last with two parents."""
    nodes = {}
    for word in said.split():
        name, _, parents = word.partition(":")
        nodes[name] = Node(name, "t", tuple(filter(None, parents.split(","))))
    return Graph(nodes, Node("sorry", "t"), Node("hurray", "t")) if last else Graph(nodes)


DIAMOND = graph("a b:a c:a d:b,c")
FOLLOWED = graph("a b:a", last=True)


def names(steps: list[Step]) -> list[str]:
    """Return the names of nodes that come next; one that is barred with who bars it."""
    return [step.node.name + (f"/{step.barred_by}" if step.barred_by else "") for step in steps]


# -- what comes next ---------------------------------------------------------------------------------------------------


def test_nodes_without_parents_come_first_in_the_order_of_the_graph() -> None:
    assert names(next_steps(graph("z a:z m b"), {})) == ["z", "m", "b"]


@pytest.mark.parametrize("well", [COMPLETED, SKIPPED])
@pytest.mark.parametrize("other", UNENDED)
def test_a_node_comes_when_its_last_parent_has_ended_well(well: RunState, other: RunState) -> None:
    assert names(next_steps(DIAMOND, {"a": well})) == ["b", "c"]
    assert names(next_steps(DIAMOND, {"a": well, "b": well, "c": other})) == []
    assert names(next_steps(DIAMOND, {"a": well, "b": well, "c": well})) == ["d"]


@pytest.mark.parametrize("bad", [FAILED, CANCELLED])
@pytest.mark.parametrize("other", [None, *UNENDED, COMPLETED, SKIPPED])
def test_one_bad_parent_bars_a_node_without_waiting_for_the_others(bad: RunState, other: RunState | None) -> None:
    states = {"a": COMPLETED, "b": bad} | ({} if other is None else {"c": other})
    assert names(next_steps(DIAMOND, states, ["b"])) == ["d/b"]


def test_a_bad_parent_bars_no_other_branch() -> None:
    assert names(next_steps(graph("a b c:a d:b"), {"a": FAILED, "b": COMPLETED})) == ["c/a", "d"]


def test_who_knows_what_ended_is_told_of_its_children_only_and_of_each_once() -> None:
    wide = graph("a b c:a,b d:b e")
    states = {"a": COMPLETED, "b": COMPLETED}
    assert names(next_steps(wide, states, ["a"])) == ["c"]
    assert names(next_steps(wide, states, ["a", "b"])) == ["c", "d"]
    assert names(next_steps(wide, states)) == ["c", "d", "e"]


def test_what_is_there_does_not_come_again() -> None:
    states = {"a": COMPLETED, "b": RUNNING, "c": SUSPENDED}
    assert next_steps(DIAMOND, states) == next_steps(DIAMOND, states, ["a"]) == []


# -- how it ends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_", [None, *UNENDED])
def test_a_workflow_has_not_ended_before_its_last_node_has_whatever_became_of_the_others(
    open_: RunState | None,
) -> None:
    for known in (COMPLETED, FAILED, CANCELLED, SKIPPED):
        states = {"a": known} | ({} if open_ is None else {"b": open_})
        assert outcome(graph("a b"), states) is None


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ((COMPLETED, COMPLETED, COMPLETED), COMPLETED),
        ((COMPLETED, SKIPPED, COMPLETED), COMPLETED),
        ((SKIPPED, SKIPPED, SKIPPED), COMPLETED),
        ((COMPLETED, CANCELLED, SKIPPED), CANCELLED),
        ((CANCELLED, FAILED, COMPLETED), FAILED),
        ((FAILED, CANCELLED, CANCELLED), FAILED),
    ],
)
def test_failed_counts_more_than_cancelled_and_that_more_than_ended_well(
    states: tuple[RunState, ...], wanted: RunState
) -> None:
    assert outcome(graph("a b c"), dict(zip("abc", states, strict=True))) is wanted


def test_a_failure_and_a_success_have_a_follower_each_and_a_cancelled_workflow_none() -> None:
    for states, wanted in (
        ({"a": COMPLETED, "b": SKIPPED}, ["hurray"]),
        ({"a": COMPLETED, "b": FAILED}, ["sorry"]),
        ({"a": FAILED, "b": CANCELLED}, ["sorry"]),
        ({"a": COMPLETED, "b": CANCELLED}, []),
        ({"a": COMPLETED, "b": RUNNING}, []),
    ):
        assert names(next_steps(FOLLOWED, states)) == names(next_steps(FOLLOWED, states, ["b"])) == wanted


def test_a_follower_comes_once_and_the_workflow_ends_after_it() -> None:
    ended = {"a": COMPLETED, "b": COMPLETED}
    assert outcome(FOLLOWED, ended) is None
    for state in UNENDED:
        assert next_steps(FOLLOWED, ended | {"hurray": state}) == []
        assert outcome(FOLLOWED, ended | {"hurray": state}) is None
    assert next_steps(FOLLOWED, ended | {"hurray": COMPLETED}, ["hurray"]) == []
    assert outcome(FOLLOWED, ended | {"hurray": COMPLETED}) is COMPLETED


@pytest.mark.parametrize("bad", [FAILED, CANCELLED])
def test_a_follower_that_does_not_end_well_makes_a_workflow_fail_and_calls_no_other(bad: RunState) -> None:
    good, poor = {"a": COMPLETED, "b": COMPLETED, "hurray": bad}, {"a": FAILED, "b": CANCELLED, "sorry": bad}
    for states in (good, poor):
        assert outcome(FOLLOWED, states) is FAILED
        assert next_steps(FOLLOWED, states) == []


def test_a_failure_stays_one_when_what_follows_it_ends_well() -> None:
    assert outcome(FOLLOWED, {"a": FAILED, "b": CANCELLED, "sorry": COMPLETED}) is FAILED


def test_without_followers_nothing_follows() -> None:
    for state in (COMPLETED, FAILED):
        assert next_steps(graph("a"), {"a": state}) == []
        assert outcome(graph("a"), {"a": state}) is state


# -- the graph ---------------------------------------------------------------------------------------------------------


def test_sinks_are_the_nodes_that_nobody_follows() -> None:
    assert [graph(said).sinks for said in ("a", "a b:a c:a", "a b:a c:b d")] == [("a",), ("b", "c"), ("c", "d")]
    assert FOLLOWED.sinks == ("b",)


def test_below_is_what_comes_after_and_the_nodes_themselves() -> None:
    assert DIAMOND.below(["b"]) == {"b", "d"}
    assert DIAMOND.below(["a"]) == set("abcd")
    assert DIAMOND.below(["b", "c", "b"]) == {"b", "c", "d"}
    assert DIAMOND.below([]) == set()


def test_below_takes_no_time_where_paths_are_countless() -> None:
    layers = [f"{layer}{side}" for layer in range(200) for side in "xy"]
    said = [f"{name}:{int(name[:-1]) - 1}x,{int(name[:-1]) - 1}y" if name[0:-1] != "0" else name for name in layers]
    assert len(graph(" ".join(said)).below(["0x"])) == 399


def test_a_node_is_found_by_its_name_also_one_that_follows() -> None:
    assert [FOLLOWED.node(name).name for name in ("a", "sorry", "hurray")] == ["a", "sorry", "hurray"]


# -- again -------------------------------------------------------------------------------------------------------------


def test_a_replay_redoes_what_did_not_end_well_and_all_after_it() -> None:
    states = {"a": COMPLETED, "b": FAILED, "c": COMPLETED, "d": CANCELLED}
    assert to_do_again(DIAMOND, states) == {"b", "d"}
    assert to_do_again(graph("a b:a c:b d:a"), {"a": SKIPPED, "b": CANCELLED, "d": COMPLETED}) == {"b", "c"}


def test_a_replay_of_chosen_nodes_redoes_them_and_all_after_them_and_keeps_what_failed_elsewhere() -> None:
    states = {"a": COMPLETED, "b": FAILED, "c": COMPLETED, "d": CANCELLED}
    assert to_do_again(DIAMOND, states, ["c"]) == {"c", "d"}
    assert to_do_again(DIAMOND, states, ["d", "b"]) == {"b", "d"}


def test_a_replay_of_what_ended_well_or_never_began_redoes_everything() -> None:
    assert to_do_again(DIAMOND, dict.fromkeys("abcd", COMPLETED)) == set("abcd")
    assert to_do_again(DIAMOND, dict.fromkeys("abcd", SKIPPED)) == set("abcd")
    assert to_do_again(DIAMOND, {}) == set("abcd")


def test_what_follows_the_end_is_redone_by_every_replay_and_alone_where_it_alone_was_bad() -> None:
    last, ended = {"sorry", "hurray"}, {"a": COMPLETED, "b": COMPLETED}
    assert to_do_again(FOLLOWED, {"a": COMPLETED, "b": FAILED, "sorry": COMPLETED}) == {"b"} | last
    assert to_do_again(FOLLOWED, ended | {"hurray": COMPLETED}, ["b"]) == {"b"} | last
    assert to_do_again(FOLLOWED, ended | {"hurray": COMPLETED}) == {"a", "b"} | last
    assert to_do_again(FOLLOWED, ended | {"hurray": FAILED}) == last


# -- conditions --------------------------------------------------------------------------------------------------------


def node(wait_for: Clauses = (), skip_if: Clauses = (), cancel_if: Clauses = ()) -> Node:
    """Make a node with these conditions."""
    return Node("n", "t", (), wait_for, skip_if, cancel_if)


def start(clause: int, place: int = 0) -> Place:
    """Name a condition that a node waits for."""
    return Place(Action.START, clause, place)


def test_a_node_without_conditions_starts() -> None:
    assert decide(node(), {}) is Fate.START


def test_a_node_starts_when_of_each_clause_one_condition_is_true() -> None:
    waiting = node(wait_for=((A, B), (C,)))
    for known, wanted in (
        ({}, Fate.WAIT),
        ({start(0, 1): True}, Fate.WAIT),
        ({start(1): True}, Fate.WAIT),
        ({start(0, 0): True, start(0, 1): True}, Fate.WAIT),
        ({start(0, 0): True, start(1): True}, Fate.START),
        ({start(0, 1): True, start(1): True}, Fate.START),
    ):
        assert decide(waiting, known) is wanted, known


def test_what_can_never_come_true_is_not_waited_for_and_what_still_may_is() -> None:
    waiting = node(wait_for=((A, B), (C,)))
    for known, wanted in (
        ({start(1): False}, Fate.NEVER),
        ({start(1): False, start(0): True}, Fate.NEVER),
        ({start(0, 0): False}, Fate.WAIT),
        ({start(0, 0): False, start(0, 1): False, start(1): True}, Fate.NEVER),
        ({start(0, 0): False, start(0, 1): True, start(1): True}, Fate.START),
    ):
        assert decide(waiting, known) is wanted, known


@pytest.mark.parametrize("waits", [(), ((A,),)])
@pytest.mark.parametrize("known", [{}, {start(0): True}, {start(0): False}])
def test_what_cancels_goes_before_what_skips_and_that_before_all_else(waits: Clauses, known: dict[Place, bool]) -> None:
    both = node(waits, ((A,),), ((A,), (B, C)))
    skip, first, second = Place(Action.SKIP, 0, 0), Place(Action.CANCEL, 0, 0), Place(Action.CANCEL, 1, 1)
    assert decide(both, {**known, skip: True, first: True, second: True}) is Fate.CANCEL
    assert decide(both, {**known, skip: True, first: True}) is Fate.SKIP
    assert decide(both, {**known, first: True, skip: False}) not in (Fate.CANCEL, Fate.SKIP)
    assert decide(both, {**known, second: True}) not in (Fate.CANCEL, Fate.SKIP)


def test_a_list_knows_only_its_own_conditions() -> None:
    waiting = node(((A,),), ((A,),), ((A,),))
    assert decide(waiting, {start(0): True}) is Fate.START
    assert decide(waiting, {Place(Action.SKIP, 0, 0): False, Place(Action.CANCEL, 0, 0): False}) is Fate.WAIT
