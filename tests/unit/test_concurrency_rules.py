"""The strategies that cancel, against their description read word by word."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.budgets import Group, Member
from hurlbat_dispatcher.domain.concurrency import Displaced, Ranking, cancelled, collapses, judge
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.policies import Draws, GroupDraw, Strategy
from hurlbat_dispatcher.domain.terms import RuleTerms, TaskTerms, Terms

S = Strategy
ALL = list(S)


@st.composite
def members(draw: st.DrawFn, most: int = 6) -> list[Member]:
    """Runs that live in a group: waiting, running, or backing off, which have started."""
    kinds = draw(st.lists(st.sampled_from(["waiting", "running", "backing off"]), max_size=most))
    return [
        Member(
            f"run{draw(st.integers(0, 99)):02}-{n}",
            draw(st.integers(1, 3)),
            draw(st.integers(1, 4)),
            started=kind != "waiting",
            running=kind == "running",
        )
        for n, kind in enumerate(kinds)
    ]


NEWCOMERS = st.builds(Member, st.just("run50-new"), st.integers(1, 3), st.just(4))
CAPS = st.integers(1, 4)


def goes_before(one: Member, other: Member, *, newest: bool) -> bool:
    """Tell whether one run is better: by its priority, then by its age; of one moment, the newcomer is the newest."""
    if one.priority != other.priority:
        return one.priority > other.priority
    if one.joined_at != other.joined_at:
        return (one.joined_at > other.joined_at) is newest
    if "new" in one.run_id or "new" in other.run_id:
        return ("new" in one.run_id) is newest
    return (one.run_id > other.run_id) is newest


def best(runs: list[Member], count: int, *, newest: bool) -> set[str]:
    """Return the best so many: those that fewer than so many go before."""
    return {
        one.run_id
        for one in runs
        if sum(goes_before(other, one, newest=newest) for other in runs if other is not one) < count
    }


def literally(strategy: Strategy, cap: int, group: list[Member], newcomer: Member) -> set[str]:
    """Return whom the words of the strategy cancel."""
    everybody = [*group, newcomer]
    ids = {one.run_id for one in everybody}
    never_started = [one for one in everybody if not one.started and not one.running]
    waiting = {one.run_id for one in never_started}
    if strategy is S.CANCEL_IN_PROGRESS:
        return ids - best(everybody, cap, newest=True)
    if strategy is S.CANCEL_NEWEST:
        free = cap - len([one for one in everybody if one.running])
        return waiting - (best(never_started, free, newest=False) if free > 0 else set())
    if strategy is S.QUEUE_NEWEST_ONLY:
        return waiting - best(never_started, 1, newest=True)
    if strategy is S.QUEUE_OLDEST_ONLY:
        return waiting - best(never_started, 1, newest=False)
    return set()


@settings(max_examples=300)
@given(strategy=st.sampled_from(ALL), cap=CAPS, group=members(), newcomer=NEWCOMERS)
def test_each_strategy_cancels_whom_its_words_say(
    strategy: Strategy, cap: int, group: list[Member], newcomer: Member
) -> None:
    found = cancelled(strategy, cap, group, newcomer)
    assert len(found) == len(set(found))
    assert set(found) == literally(strategy, cap, group, newcomer)
    assert not {one.run_id for one in group if one.running} & set(found) or strategy is S.CANCEL_IN_PROGRESS
    if len(group) <= 4:
        assert {frozenset(cancelled(strategy, cap, list(order), newcomer)) for order in permutations(group)} == {
            frozenset(found)
        }


@given(strategy=st.sampled_from(ALL), group=members(), newcomer=NEWCOMERS)
def test_a_rule_that_is_in_force_no_longer_cancels_nobody(
    strategy: Strategy, group: list[Member], newcomer: Member
) -> None:
    assert cancelled(strategy, None, group, newcomer) == []


@given(strategy=st.sampled_from(ALL), cap=CAPS, newcomers=st.lists(st.tuples(st.integers(1, 3), st.booleans())))
def test_a_group_that_is_kept_by_its_strategy_never_grows_beyond_it(
    strategy: Strategy, cap: int, newcomers: list[tuple[int, bool]]
) -> None:
    group: list[Member] = []
    for n, (priority, starts) in enumerate(newcomers):
        newcomer = Member(f"{n:03}", priority, n)
        gone = cancelled(strategy, cap, group, newcomer)
        group = [one for one in [*group, newcomer] if one.run_id not in gone]
        if starts and sum(one.running for one in group) < cap:
            for one in group[:1]:
                one.started = one.running = True
        waiting = [one for one in group if not one.started]
        match strategy:
            case S.CANCEL_IN_PROGRESS:
                assert len(group) <= cap
            case S.CANCEL_NEWEST:
                assert len(group) <= cap
            case S.QUEUE_NEWEST_ONLY | S.QUEUE_OLDEST_ONLY:
                assert len(waiting) <= 1
            case _:
                assert len(group) == n + 1


@settings(max_examples=200)
@given(strategy=st.sampled_from(ALL), cap=CAPS, first=members(4), data=st.data())
def test_a_ranking_that_is_told_of_every_change_judges_as_one_that_is_made_anew(
    strategy: Strategy, cap: int, first: list[Member], data: st.DataObject
) -> None:
    living = {one.run_id: one for one in first}
    ranking = Ranking(strategy, living.values())
    for n, (kind, priority) in enumerate(data.draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3))))):
        known = data.draw(st.sampled_from(sorted(living))) if living else None
        if kind == 0 or known is None:
            member = living[f"run999-{n:03}"] = Member(f"run999-{n:03}", priority, data.draw(st.integers(1, 4)))
        elif kind == 1:
            del living[known]
            ranking.forget(known)
            continue
        else:
            member = living[known]
            member.running, member.started = kind == 2, kind in (2, 3)
        ranking.note(member)
        newcomer = Member("run50-new", data.draw(st.integers(1, 3)), 4)
        assert set(ranking.cancelled(cap, newcomer)) == literally(strategy, cap, [*living.values()], newcomer)


class Walked(dict[str, Member]):
    """Members that count how often somebody looks at all of them."""

    walks = 0

    def values(self) -> Any:
        """Count, and return them."""
        self.walks += 1
        return super().values()


@pytest.mark.parametrize("strategy", [S.CANCEL_IN_PROGRESS, S.CANCEL_NEWEST])
def test_a_newcomer_is_not_compared_with_everybody(strategy: Strategy) -> None:
    picture = Picture()
    picture.learn(Terms(rules={"name:g": RuleTerms(100, strategy)}, tasks={"t": TaskTerms()}), 1)
    lane = picture.lane(1, "t", Draws((GroupDraw("name:g", "x"),)))
    group = lane.ranks[0]
    group.members = members = Walked()
    for n in range(400):
        newcomer = Member(f"{n:03}", 1 + n % 3, n)
        gone = [one.run_id for one in judge(lane.ranks, newcomer)]
        for run_id in gone:
            picture.ended(run_id)
        if newcomer.run_id not in gone:
            picture.join(lane, newcomer.run_id, newcomer.priority, n, started=False, running=False)
            if n % 5 == 0:
                picture.began(newcomer.run_id)
        if n % 7 == 0 and group.members:
            picture.backed_off(min(group.members), started=n % 2 == 0)
        asked = Member("999", 2, n)
        afresh = set(cancelled(strategy, 100, list(dict.values(members)), asked))
        assert {one.run_id for one in judge(lane.ranks, asked)} == ({"999"} if "999" in afresh else afresh)
    assert members.walks == 1
    assert len(members) == 100 or strategy is S.CANCEL_NEWEST  # whose retries stay besides


def test_retries_wait_and_are_not_judged_again() -> None:
    again = Member("again", 1, 1, started=True)
    newcomer = Member("new", 3, 2)
    for strategy in (S.CANCEL_NEWEST, S.QUEUE_NEWEST_ONLY, S.QUEUE_OLDEST_ONLY):
        assert cancelled(strategy, 1, [again], newcomer) == []
    assert cancelled(S.CANCEL_IN_PROGRESS, 1, [again], newcomer) == ["again"]


@settings(max_examples=200)
@given(rules=st.lists(st.tuples(st.sampled_from(ALL), CAPS, members(4)), max_size=3), newcomer=NEWCOMERS)
def test_a_newcomer_that_one_rule_cancels_displaces_nobody_by_another(
    rules: list[tuple[Strategy, int, list[Member]]], newcomer: Member
) -> None:
    groups = [
        Group(str(n), rule=str(n), cap=cap, strategy=strategy, members={one.run_id: one for one in living})
        for n, (strategy, cap, living) in enumerate(rules)
    ]
    by_rule = [literally(group.strategy, group.cap or 0, [*group.members.values()], newcomer) for group in groups]
    found = judge(groups, newcomer)
    refusing = [group for group, gone in zip(groups, by_rule, strict=True) if newcomer.run_id in gone]
    if refusing:
        assert found == [Displaced(newcomer.run_id, refusing[0], None)]
    else:
        assert {one.run_id for one in found} == set().union(*by_rule)
        assert {one.by for one in found} <= {newcomer.run_id}
        assert all(one.run_id in by_rule[groups.index(one.group)] for one in found)
        assert len(found) == len({one.run_id for one in found}), "each is cancelled once"


def test_only_lines_of_one_place_must_be_free_before_the_next_joins() -> None:
    collapsing = [strategy for strategy in ALL if collapses(Group("", strategy=strategy))]
    assert collapsing == [S.QUEUE_NEWEST_ONLY, S.QUEUE_OLDEST_ONLY]


def test_a_retry_that_could_not_be_sent_has_started_all_the_same() -> None:
    picture = Picture()
    picture.worker("w", 9).serving = True
    rules = {"r": RuleTerms(2, S.QUEUE_NEWEST_ONLY)}
    picture.learn(Terms({"t": TaskTerms((("w", 0),))}, rules), 0)
    lane = picture.lane(1, "t", Draws((GroupDraw("r", "x"),)))
    picture.join(lane, "run", 2, 0, started=False, running=False)
    picture.began("run")
    picture.backed_off("run", started=False)  # it was not sent, and is as it was
    never = picture.members["run"].started
    picture.began("run")
    picture.backed_off("run", started=True)
    picture.began("run")
    picture.backed_off("run", started=False)
    assert (never, picture.members["run"].started) == (False, True)
