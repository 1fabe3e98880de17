"""Planted bugs in flow control: groups, limits, whom rules cancel, whose turn it is, and what a restart forgets."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

from hurlbat_dispatcher import writer as writing
from hurlbat_dispatcher.domain import shapes
from hurlbat_dispatcher.domain.budgets import Gate, Group, Rate
from hurlbat_dispatcher.domain.concurrency import Displaced, Ranking, cancelled
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lines import Lines
from hurlbat_dispatcher.domain.rotation import Rotation
from hurlbat_dispatcher.store import lanes, runs
from hurlbat_dispatcher.turn import due, joining
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from tests.sim.bugs import bug, swap

Script = Generator[Any, Any, Any]


@bug("the units of a start are not counted when it starts", hint=1)
def counted_after_the_start(stack: ExitStack) -> None:
    def make(take: Any) -> Any:
        return lambda rate, now, units: take(rate, now, 0)

    swap(stack, Rate, "take", make)


@bug("a place in a group is given back twice", hint=6)
def group_released_twice(stack: ExitStack) -> None:
    def make(give: Any) -> Any:
        def twice(group: Group, units: int) -> None:
            give(group, units)
            if group.used:
                give(group, units)

        return twice

    swap(stack, Group, "give", make)


@bug("turns do not rotate: the oldest run is always next", hint=39)
def oldest_first(stack: ExitStack) -> None:
    def make(begin: Any) -> Any:
        def once(rotation: Rotation, since: int, stamp: int) -> None:
            if not rotation.stamp:
                begin(rotation, since, stamp)

        return once

    swap(stack, Rotation, "begin", make)


@bug("a run starts when the first of its budgets has room")
def one_is_enough(stack: ExitStack) -> None:
    def make(short_of: Any) -> Any:
        def first(picture: Any, lane: Any, now: int) -> Any:
            need = lane.needs[0]
            return None if need.budget.room(now, need.units, need.limit) else need

        return first

    swap(stack, Lines, "_short_of", make)


@bug("who waits for a budget is never called again", hint=1)
def parked_and_forgotten(stack: ExitStack) -> None:
    swap(stack, Lines, "_nominate", lambda _: lambda *given: None)


@bug("what runs in a group is not counted after a restart", hint=8)
def groups_not_recounted(stack: ExitStack) -> None:
    def make(occupy: Any) -> Any:
        def forget(picture: Picture, run_id: str, *given: Any) -> None:
            fresh = run_id not in picture.running
            occupy(picture, run_id, *given)
            flight = picture.running[run_id]
            if fresh:
                picture.running[run_id] = flight._replace(needs=())
                for budget, _, _ in flight.needs:
                    budget.give(1)

        return forget

    swap(stack, Picture, "occupy", make)


@bug("what started of rate limits is not stored", hint=1)
def uses_not_stored(stack: ExitStack) -> None:
    def nothing(desk: Desk, ledger: Any) -> None:
        desk.picture.changed_rates.clear()

    swap(stack, joining, "note_uses", lambda _: nothing)


@bug("what started of rate limits is stored and not read", hint=8)
def uses_not_read(stack: ExitStack) -> None:
    def make(rebuild: Any) -> Any:
        def blind(desk: Desk) -> Script:
            rows: Any = None
            script = rebuild(desk)
            while True:
                try:
                    ask = script.send(rows)
                except StopIteration:
                    return
                rows = yield ask
                if getattr(ask, "statement", None) is lanes.USES:
                    rows = []

        return blind

    swap(stack, writing, "rebuild", make)


@bug("a cancelled attempt that may still run leaves its group at once", hint=1)
def held_not_in_its_group(stack: ExitStack) -> None:
    def make(ended: Any) -> Any:
        def leave(picture: Picture, run_id: str) -> None:
            ended(picture, run_id)
            flight = picture.running.get(run_id)
            if flight is not None:
                picture.running[run_id] = flight._replace(needs=())
                for budget, _, _ in flight.needs:
                    budget.give(1)

        return leave

    swap(stack, Picture, "ended", make)


@bug("a newcomer that one rule refuses displaces others by another")
def refused_and_displacing(stack: ExitStack) -> None:
    def both(groups: Sequence[Group], newcomer: Any) -> list[Displaced]:
        found = []
        for group in groups:
            for run_id in cancelled(group.strategy, group.cap, group.members.values(), newcomer):
                mine = run_id == newcomer.run_id
                found.append(Displaced(run_id, group, None if mine else newcomer.run_id))
        return list({one.run_id: one for one in found}.values())

    swap(stack, joining, "judge", lambda _: both)


@bug("the strategies that keep the newest keep the oldest")
def oldest_kept(stack: ExitStack) -> None:
    def make(_: Any) -> Any:
        return lambda ranking, member: (member.priority, -member.joined_at, 0, member.run_id)

    swap(stack, Ranking, "_entry", make)


@bug("a retry joins its groups once more, and is judged again", hint=66)
def retries_judged_again(stack: ExitStack) -> None:
    def make(take: Any) -> Any:
        def fresh(ledger: Any, statement: Any, *values: Any) -> Script:
            rows = yield from take(ledger, statement, *values)
            if statement is runs.DUE:
                return [row._replace(joined_at=None) for row in rows]
            return rows

        return fresh

    swap(stack, due, "_take", make)


@bug("the pause of a key is forgotten")
def pause_forgotten(stack: ExitStack) -> None:
    swap(stack, shapes.Shapes, "_limit", lambda limit: lambda picture, rate: (limit(picture, rate), rate.pause(0))[0])


@bug("a paused task starts runs")
def paused_task_starts(stack: ExitStack) -> None:
    swap(stack, Gate, "room", lambda _: lambda *given: True)


@bug("the units of what was never sent are lost", hint=8)
def unsent_not_given_back(stack: ExitStack) -> None:
    def make(release: Any) -> Any:
        return lambda *given, **named: release(*given)

    swap(stack, Picture, "release", make)


@bug("a sweep forgets the lanes that runs are about to join")
def lanes_forgotten_too_soon(stack: ExitStack) -> None:
    swap(stack, Picture, "tidy", lambda tidy: lambda picture, now, wanted=(): tidy(picture, now))


@bug("who waits beyond the horizon is not ranked after a restart", hint=119)
def members_beyond_the_horizon(stack: ExitStack) -> None:
    def nobody(*given: Any) -> Script:
        return
        yield

    swap(stack, due, "_read_members", lambda _: nobody)


@bug("a run that was replayed is ranked against itself", hint=23)
def ranked_against_itself(stack: ExitStack) -> None:
    def make(join: Any) -> Any:
        def stale(desk: Desk, ledger: Ledger, *given: Any) -> Script:
            picture: Any = desk.picture
            ended, joining_now = picture.ended, {one.run_id for one in ledger.newcomers}
            picture.ended = lambda run_id: None if run_id in joining_now else ended(run_id)
            try:
                return (yield from join(desk, ledger, *given))
            finally:
                del picture.ended

        return stale

    swap(stack, joining, "join", make)
