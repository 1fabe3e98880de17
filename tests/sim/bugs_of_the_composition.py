"""Planted bugs in composition: nodes and their conditions, the ends of workflows, children, cancellation, replays."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import sqlalchemy as sa

from hurlbat_dispatcher.domain import graph
from hurlbat_dispatcher.domain.graph import WELL, Action, Fate, Graph, Node, Place, Step
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import CancelledBy, RunKind
from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.runs import RunRow
from hurlbat_dispatcher.store.schema import run
from hurlbat_dispatcher.store.statement import Statement
from hurlbat_dispatcher.turn import composing, conditions, decide, nodes, submits
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from tests.sim.bugs import bug, swap

Script = Generator[Any, Any, Any]


# -- nodes -------------------------------------------------------------------------------------------------------------


@bug("a node starts when the first of its parents has ended", hint=6)
def started_on_the_first_parent(stack: ExitStack) -> None:
    def make(step: Any) -> Any:
        def hasty(node: Node, states: Mapping[str, RunState]) -> Step | None:
            found: Step | None = step(node, states)
            any_well = any(states.get(parent) in WELL for parent in node.parents)
            return Step(node) if found is None and any_well else found

        return hasty

    swap(stack, graph, "_step", make)


@bug("a workflow ends when the first of its last nodes has", hint=4)
def ended_before_the_last_node(stack: ExitStack) -> None:
    def make(outcome: Any) -> Any:
        def hasty(of: Graph, states: Mapping[str, RunState]) -> RunState | None:
            found: RunState | None = outcome(of, states)
            return RunState.COMPLETED if found is None and any(states.get(name) in WELL for name in of.sinks) else found

        return hasty

    swap(stack, composing, "outcome", make)


@bug("a workflow that was cancelled ends once more with its nodes", hint=3)
def ended_twice(stack: ExitStack) -> None:
    def make(follow: Any) -> Any:
        def again(desk: Desk, ledger: Ledger, intake: Any) -> Script:
            parents = {row.parent for row in ledger.followed.values() if row.node is not None and row.parent}
            yield from ledger.load(1, sorted(run_id for run_id in parents if run_id not in ledger.rows))
            for run_id in parents & ledger.rows.keys():
                if ledger.rows[run_id].state == RunState.CANCELLED:
                    ledger.rows[run_id] = ledger.rows[run_id]._replace(state=RunState.RUNNING.value)
                    ledger.touched.discard(run_id)
            yield from follow(desk, ledger, intake)

        return again

    swap(stack, composing, "_follow", make)


@bug("the children of a node that was barred are not", hint=4)
def barred_no_further(stack: ExitStack) -> None:
    def make(step: Any) -> Any:
        def near(node: Node, states: Mapping[str, RunState]) -> Step | None:
            found: Step | None = step(node, states)
            by = None if found is None or found.barred_by is None else states[found.barred_by]
            return None if by is RunState.CANCELLED else found

        return near

    swap(stack, graph, "_step", make)


@bug("what follows a failure follows a cancellation, too", hint=18)
def undone_although_cancelled(stack: ExitStack) -> None:
    def make(follower: Any) -> Any:
        def any_end(of: Graph, states: Mapping[str, RunState]) -> Node | None:
            found: Node | None = follower(of, states)
            return of.on_failure if graph._verdict(of, states) is RunState.CANCELLED else found

        return any_end

    swap(stack, graph, "_follower", make)


@bug("what servers that do not own the lanes have ended is told to nobody")
def news_dropped(stack: ExitStack) -> None:
    swap(stack, composing, "_tell_owner", lambda _: lambda ledger: ledger.followed.clear())


@bug("a workflow leaves its groups when its first node has ended", hint=43)
def left_with_the_first_node(stack: ExitStack) -> None:
    def make(advance: Any) -> Any:
        def early(desk: Desk, ledger: Ledger, intake: Any, workflow: RunRow, after: Any) -> Script:
            yield from advance(desk, ledger, intake, workflow, after)
            if after:
                desk.release(workflow.id)

        return early

    swap(stack, composing, "_advance", make)


# -- conditions --------------------------------------------------------------------------------------------------------


@bug("an event that came while a node was being reached is not seen", hint=97)
def event_lost_in_between(stack: ExitStack) -> None:
    def make(look_back: Any) -> Any:
        def stale(ledger: Ledger, *given: Any) -> Script:
            found = yield from look_back(ledger, *given)
            return None if found is not None and found.created_at > ledger.now - 1_000 else found

        return stale

    swap(stack, conditions, "_look_back", make)


@bug("an event of another scope counts", hint=11)
def matched_in_another_scope(stack: ExitStack) -> None:
    swap(stack, conditions, "_of_its_scope", lambda _: lambda condition, variables: condition._replace(scope=None))


@bug("conditions look back for ever", hint=8)
def looked_back_for_ever(stack: ExitStack) -> None:
    def make(look_back: Any) -> Any:
        return lambda ledger, tenant, condition, since: look_back(ledger, tenant, condition, 0)

    swap(stack, conditions, "_look_back", make)


@bug("an event that conditions wait for is looked at by the server that takes it in, if that owns the lanes")
def events_of_others_unseen(stack: ExitStack) -> None:
    def make(read_news: Any) -> Any:
        def deaf(ledger: Ledger) -> Script:
            yield from read_news(ledger)
            return []

        return deaf

    swap(stack, composing, "_read_news", make)


@bug("whether a node is skipped is looked at once it has started", hint=10)
def skipped_after_its_start(stack: ExitStack) -> None:
    def make(decide_node: Any) -> Any:
        def blind(node: Node, known: Mapping[Place, bool]) -> Fate:
            found: Fate = decide_node(node, {place: v for place, v in known.items() if place.action is not Action.SKIP})
            return found

        return blind

    swap(stack, nodes, "decide", make)


@bug("a node that waited is let go again by a condition that comes true later")
def resumed_twice(stack: ExitStack) -> None:
    def keep(forget: Any) -> Any:
        def some(ledger: Ledger, tenant: int, run_id: str, actions: Iterable[Action] = tuple(Action)) -> None:
            if tuple(actions) == tuple(Action):
                forget(ledger, tenant, run_id)

        return some

    def make(wake: Any) -> Any:
        def again(desk: Desk, ledger: Ledger, ids: Sequence[str]) -> Script:
            yield from ledger.load(1, sorted(run_id for run_id in ids if run_id not in ledger.rows))
            for run_id in ids:
                row = ledger.rows.get(run_id)
                if row is not None and row.state in (RunState.RUNNING, RunState.QUEUED):
                    ledger.rows[run_id] = row._replace(state=RunState.SUSPENDED.value)
            yield from wake(desk, ledger, ids)

        return again

    swap(stack, conditions, "forget", keep)
    swap(stack, composing, "_wake", make)


@bug("when a sleep is over is known to the server alone that reached the node", hint=4)
def sleeps_in_memory(stack: ExitStack) -> None:
    known: dict[int, set[str]] = {}
    desks: list[Desk] = []

    def make_reach(reach: Any) -> Any:
        def remember(desk: Desk, *given: Any) -> Script:
            row = yield from reach(desk, *given)
            known.setdefault(id(desk), set()).add(row.id)
            return row

        return remember

    def make_wake(wake: Any) -> Any:
        def only_known(desk: Desk, ledger: Ledger, ids: Sequence[str]) -> Script:
            desks.append(desk)  # so that no other has its id
            yield from wake(desk, ledger, [run_id for run_id in ids if run_id in known.get(id(desk), ())])

        return only_known

    swap(stack, nodes, "reach", make_reach)
    swap(stack, composing, "_wake", make_wake)


# -- cancellation ------------------------------------------------------------------------------------------------------


def _unless(spared: Any) -> Any:
    """Return what makes a cancellation pass over those whom `spared` names, when their parents were cancelled."""

    def make(cancel: Any) -> Any:
        def partly(desk: Desk, ledger: Ledger, row: RunRow, reason: str, by: CancelledBy = CancelledBy.REQUEST) -> Any:
            return None if by is CancelledBy.PARENT and spared(row) else cancel(desk, ledger, row, reason, by)

        return partly

    return make


@bug("a cancellation does not reach nodes that wait for their next attempt", hint=9)
def backoff_not_cancelled(stack: ExitStack) -> None:
    swap(stack, decide, "cancel", _unless(lambda row: row.state == RunState.QUEUED and row.attempt > 0))


@bug("a cancellation does not reach nodes that wait for their conditions", hint=3)
def suspended_not_cancelled(stack: ExitStack) -> None:
    swap(stack, decide, "cancel", _unless(lambda row: row.state == RunState.SUSPENDED))


@bug("with a run its children are cancelled, and not theirs", hint=11)
def grandchildren_go_on(stack: ExitStack) -> None:
    def make(cancel: Any) -> Any:
        def near(desk: Desk, ledger: Ledger, row: RunRow, reason: str, by: CancelledBy = CancelledBy.REQUEST) -> Any:
            problem = cancel(desk, ledger, row, reason, by)
            if by is CancelledBy.PARENT and (row.node is None or row.kind == RunKind.WORKFLOW):
                ledger.followed.pop(row.id, None)
            return problem

        return near

    swap(stack, decide, "cancel", make)


@bug("the child of a run that was cancelled is taken", hint=31)
def taken_for_the_cancelled(stack: ExitStack) -> None:
    swap(stack, submits, "_orphaned", lambda _: lambda ledger, entry: None)


# -- children ----------------------------------------------------------------------------------------------------------


@bug("the key of a child is forgotten when its parent is tried again", hint=9)
def child_key_forgotten(stack: ExitStack) -> None:
    def make(known: Any) -> Any:
        def forgetful(ledger: Ledger, entry: Any, keys: Any) -> Any:
            parent = ledger.rows.get(entry.submission.parent or "")
            return None if parent is not None and parent.attempt > 1 else known(ledger, entry, keys)

        return forgetful

    swap(stack, submits, "_known", make)


# -- replays -----------------------------------------------------------------------------------------------------------


@bug("a replay runs again what has ended well, too", hint=9)
def all_again(stack: ExitStack) -> None:
    def make(again: Any) -> Any:
        return lambda of, states, chosen=(): again(of, states, of.nodes)

    swap(stack, decide, "to_do_again", make)


@bug("the outputs of nodes that a replay keeps are lost", hint=9)
def outputs_lost_at_a_replay(stack: ExitStack) -> None:
    def make(kept: Statement) -> Statement:
        select = kept.clause
        assert isinstance(select, sa.Select)
        whole = run.alias()
        fresh = sa.exists().where(whole.c.id == run.c.parent, run.c.created_at >= whole.c.started_at)
        return Statement(select.where(fresh), kept.names)

    swap(stack, graphs, "OUTPUTS", make)


@bug("a replay keeps the nodes that come after those that it runs again", hint=34)
def below_is_kept(stack: ExitStack) -> None:
    def make(again: Any) -> Any:
        def only(of: Graph, states: Mapping[str, RunState], chosen: Sequence[str] = ()) -> set[str]:
            return set(chosen) if chosen and len(chosen) < len(of.nodes) else again(of, states, chosen)

        return only

    swap(stack, decide, "to_do_again", make)


# -- faults that were --------------------------------------------------------------------------------------------------


@bug("a workflow that begins stays in the hands of the server that took it in, and is rescued when that dies", hint=4)
def begun_in_somebodys_hands(stack: ExitStack) -> None:
    def make(begin: Statement) -> Statement:
        update = begin.clause
        assert isinstance(update, sa.Update)
        return Statement(update.values(sender=run.c.sender), begin.names)

    swap(stack, graphs, "BEGIN", make)


@bug("nobody follows up what a concurrency rule has cancelled", hint=43)
def displaced_and_forgotten(stack: ExitStack) -> None:
    def make(displace: Any) -> Any:
        def silent(desk: Desk, ledger: Ledger, row: RunRow, *more: Any) -> None:
            displace(desk, ledger, row, *more)
            ledger.followed.pop(row.id, None)

        return silent

    swap(stack, decide, "displace", make)
