"""The protocol of several servers on one database, without everything that does not matter for who may do what.

Servers hold leases, one of them owns the right to start runs, in an epoch. It starts a run in a transaction that checks
the epoch (the fence) and names the server that sends; that one takes the attempt into its hands, checks its own lease,
and sends. Servers crash, come back under a new id, are paused for longer than their lease lasts, and go on as if it
were nothing. Every answer may come at any time, late, and more than once. A transaction is one step: the database sees
to that. A lease runs out only for a server that is paused or gone; one that works renews it in time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tests.model.explore import Step

Attempt = tuple[int, int]
"""A run and the number of its attempt."""
Life = tuple[int, int]
"""A server, and how often it was started: together its id."""
NONE: frozenset[Attempt] = frozenset()


class Plant(StrEnum):
    """A guard that is left out."""

    NO_FENCE = "a turn does not check the epoch"
    SAME_EPOCH = "whoever takes over goes on in the epoch that was"
    NO_LEASE_CHECK = "a server sends without a look at its lease"
    LEASE_CHECKED_AFTER_SEND = "a server looks at its lease after it has sent, and gives back what it should not have"
    HANDS_KEPT = "a server that renews a lease that had run out keeps what it had not sent"
    SAME_ID = "a server that was started again has the id that it had"
    FORGETFUL = "a server does not remember what it took"
    RESCUE_BLIND = "a rescue does not look whether the sender's lease is over"
    RESCUE_LATE = "a rescue takes whichever attempt is running by now"
    RESCUE_FREE = "a rescued attempt is not charged"
    SENT_BEFORE_COMMIT = "an attempt is sent before its start is stored"
    ANY_ATTEMPT = "an answer counts for whichever attempt is running"
    AFTER_THE_END = "an answer counts also when the run has ended"
    NO_RESCUE = "nobody rescues"
    NO_SWEEP = "a server relies on being told of what it is to send"
    PICTURE_KEPT = "whoever takes over believes that no slot is taken"
    ONE_TRY_MORE = "an attempt is made again when all tries are used up"
    NO_RECOUNT = "the owner relies on being told of slots that are free again"


class Run(NamedTuple):
    """A run's row."""

    state: str = "queued"
    attempt: int = 0
    tries: int = 0
    sender: Life | None = None


class Server(NamedTuple):
    """A server: its row (`leased`), and what it has in memory.

    `epoch` is the one in which it believes to be the owner, `picture` the runs that it believes to hold slots, `hands`
    what it is to send, `going` what passed the look at the lease, and `orphan` what it has seen that is to be rescued.
    """

    mode: str = "up"
    life: int = 0
    leased: bool = True
    epoch: int = 0
    picture: frozenset[int] = frozenset()
    hands: frozenset[Attempt] = NONE
    going: frozenset[Attempt] = NONE
    took: frozenset[Attempt] = NONE
    orphan: Attempt | None = None


class World(NamedTuple):
    """Everything. `sent` is what ever went to a worker, and by whom; `acted` who did something in the epoch."""

    runs: tuple[Run, ...]
    servers: tuple[Server, ...]
    owner: Life | None = None
    epoch: int = 0
    owned: bool = False
    sent: frozenset[tuple[Life, Attempt]] = frozenset()
    acted: int | None = None
    pauses: int = 0
    crashes: int = 0


class Promise(StrEnum):
    """What must hold; each can be seen broken by a plant."""

    ONE_ACTS = "in one epoch one server acts"
    SLOTS = "slots are not oversold"
    SENT_ONCE = "an attempt is sent at most once"
    SENT_STORED = "what is sent is stored"
    SENT_IN_TIME = "what has lost its lease is not sent"
    TRIES = "at most max_attempts attempts are sent"
    CHARGED = "at most max_attempts attempts are charged"
    OWN_ANSWER = "an answer counts for its own attempt alone"
    FINAL = "what is final stays"
    LIVING = "an attempt is taken only from a server whose lease is over"


@dataclass(frozen=True, slots=True)
class Model:
    """How many of everything there are, and what is left out."""

    servers: int = 2
    runs: int = 1
    slots: int = 1
    max_attempts: int = 2
    pauses: int = 1
    crashes: int = 1
    plant: Plant | None = None

    def begin(self) -> World:
        """Return the state in which all runs are acknowledged and nothing was done."""
        return World((Run(),) * self.runs, (Server(),) * self.servers, pauses=self.pauses, crashes=self.crashes)

    def ended(self, world: World) -> bool:
        """Tell whether every run has ended."""
        return all(run.state in ("completed", "failed") for run in world.runs)

    def broken(self, world: World) -> str | None:
        """Return the promise that this state breaks."""
        if sum(run.state == "running" for run in world.runs) > self.slots:
            return Promise.SLOTS
        if any(run.tries > self.max_attempts for run in world.runs):
            return Promise.CHARGED
        for number in range(self.runs):
            if len({attempt for _, (run, attempt) in world.sent if run == number}) > self.max_attempts:
                return Promise.TRIES
        return None

    def steps(self, world: World) -> Iterator[Step[World]]:
        """Return everything that can happen next."""
        for at, server in enumerate(world.servers):
            yield from self._fate(world, at, server)
            if server.mode == "up":
                yield from self._leases(world, at, server)
                yield from self._turns(world, at, server)
                yield from self._sending(world, at, server)
                yield from self._answers(world, at, server)

    # -- what happens to a server ------------------------------------------------------------------------------------

    def _fate(self, world: World, at: int, server: Server) -> Iterator[Step[World]]:
        if server.mode == "up" and world.pauses:
            yield Step(f"{at} is paused", _server(world, at, mode="paused")._replace(pauses=world.pauses - 1))
        if server.mode == "paused":
            yield Step(f"{at} goes on", _server(world, at, mode="up"))
        if server.mode != "down" and world.crashes:
            gone = Server("down", server.life, server.leased)
            yield Step(f"{at} crashes", _put(world, at, gone)._replace(crashes=world.crashes - 1))
        if server.mode != "up" and server.leased:
            after = _server(world, at, leased=False)
            yield Step(
                f"the lease of {at} runs out", after._replace(owned=world.owned and world.owner != (at, server.life))
            )
        if server.mode == "down" and not server.leased:
            life = server.life + (self.plant is not Plant.SAME_ID)
            yield Step(f"{at} starts again", _put(world, at, Server("up", life)))

    def _leases(self, world: World, at: int, server: Server) -> Iterator[Step[World]]:
        """Renew the lease, and the ownership if it is this server's or nobody's, in one transaction."""
        if server.leased and world.owned:
            return
        me = (at, server.life)
        dropped = server.hands if not server.leased and self.plant is not Plant.HANDS_KEPT else NONE
        after = _server(world, at, leased=True, hands=server.hands - dropped)
        if world.owner == me:
            after = after._replace(owned=True)
        elif not world.owned:
            epoch = world.epoch + (self.plant is not Plant.SAME_EPOCH or not world.epoch)
            picture = _running(world) if self.plant is not Plant.PICTURE_KEPT else frozenset[int]()
            after = _server(after, at, epoch=epoch, picture=picture)
            acted = world.acted if epoch == world.epoch else None
            after = after._replace(owner=me, epoch=epoch, owned=True, acted=acted)
        else:
            after = _server(after, at, epoch=0)
        for attempt in sorted(dropped):
            after = _give_back(after, at, attempt)
        yield Step(f"{at} renews its lease" if after.owner == world.owner else f"{at} takes over", after)

    # -- what the owner does -----------------------------------------------------------------------------------------

    def _turns(self, world: World, at: int, server: Server) -> Iterator[Step[World]]:
        fenced = world.epoch == server.epoch or self.plant is Plant.NO_FENCE
        if not server.epoch or not fenced:
            return
        acts = world._replace(acted=at)
        wrong = Promise.ONE_ACTS if world.acted not in (None, at) else None
        for number, run in enumerate(world.runs):
            if run.state == "queued" and len(server.picture - {number}) < self.slots:
                yield from self._starts(acts, at, number, wrong)
            elif run.state == "running":
                yield from self._rescues(acts, at, number, wrong)
        running = _running(world)
        if server.picture != running and self.plant is not Plant.NO_RECOUNT:
            yield Step(f"{at} counts the slots", _server(world, at, picture=running))

    def _starts(self, world: World, at: int, number: int, wrong: str | None) -> Iterator[Step[World]]:
        server, run = world.servers[at], world.runs[number]
        attempt = (number, run.attempt + 1)
        if self.plant is Plant.SENT_BEFORE_COMMIT:
            early = _server(world, at, going=server.going | {attempt})
            yield Step(f"{at} sends {attempt} before its start is stored", early, wrong)
        for other, sender in enumerate(world.servers):
            patient = server.leased or run.attempt == run.tries  # else it starts and gives back for ever
            if sender.leased or (other == at and patient):
                me = (other, sender.life)
                after = _run(world, number, Run("running", run.attempt + 1, run.tries + 1, me))
                after = _server(after, at, picture=server.picture | {number})
                if other == at:
                    after = _take(after, at, attempt)
                yield Step(f"{at} starts {attempt} for {other} to send", after, wrong)

    def _rescues(self, world: World, at: int, number: int, wrong: str | None) -> Iterator[Step[World]]:
        server, run = world.servers[at], world.runs[number]
        over = not _lives(world, run.sender) or self.plant is Plant.RESCUE_BLIND
        attempt = (number, run.attempt)
        if self.plant is Plant.NO_RESCUE or run.sender == (at, server.life):
            return
        if self.plant is Plant.RESCUE_LATE:
            if over and server.orphan is None:
                yield Step(f"{at} sees that {attempt} is to be rescued", _server(world, at, orphan=attempt), wrong)
            if server.orphan is None or server.orphan[0] != number:
                return
            world = _server(world, at, orphan=None)
        elif not over:
            return
        if _lives(world, run.sender):
            wrong = wrong or Promise.LIVING
        charge = 0 if self.plant is not Plant.RESCUE_FREE else 1
        after = self._end(world, number, failed=True, back=charge)
        yield Step(f"{at} rescues {attempt}", _server(after, at, picture=server.picture - {number}), wrong)

    # -- what the sender does ----------------------------------------------------------------------------------------

    def _sending(self, world: World, at: int, server: Server) -> Iterator[Step[World]]:
        me = (at, server.life)
        for number, run in enumerate(world.runs):
            attempt = (number, run.attempt)
            known = attempt in server.took and self.plant is not Plant.FORGETFUL
            here = run.state == "running" and run.sender == me and not known
            if here and attempt not in server.hands | server.going and self.plant is not Plant.NO_SWEEP:
                yield Step(f"{at} takes {attempt}", _take(world, at, attempt))
        for attempt in sorted(server.hands):
            kept = _server(world, at, hands=server.hands - {attempt})
            if server.leased or self.plant in (Plant.NO_LEASE_CHECK, Plant.LEASE_CHECKED_AFTER_SEND):
                run = world.runs[attempt[0]]
                current = (run.state, run.attempt, run.sender) == ("running", attempt[1], me)
                late = None if current else Promise.SENT_IN_TIME
                if self.plant is Plant.LEASE_CHECKED_AFTER_SEND:
                    late = None
                after = _server(kept, at, going=server.going | {attempt})
                yield Step(f"{at} sees that it may send {attempt}", after, late)
            else:
                yield Step(f"{at} gives {attempt} back", _give_back(kept, at, attempt))
        for attempt in sorted(server.going):
            after = _server(world, at, going=server.going - {attempt})
            again = any(sent == attempt for _, sent in world.sent)
            unstored = world.runs[attempt[0]].attempt < attempt[1]
            wrong = Promise.SENT_ONCE if again else Promise.SENT_STORED if unstored else None
            after = after._replace(sent=world.sent | {(me, attempt)})
            if self.plant is Plant.LEASE_CHECKED_AFTER_SEND and not server.leased:
                after = _give_back(after, at, attempt)
            yield Step(f"{at} sends {attempt}", after, wrong)

    def _answers(self, world: World, at: int, server: Server) -> Iterator[Step[World]]:
        for life, (number, attempt) in sorted(world.sent):
            if life != (at, server.life):
                continue
            run = world.runs[number]
            running = run.state == "running" or (
                self.plant is Plant.AFTER_THE_END and run.state in ("completed", "failed")
            )
            if not running or (run.attempt != attempt and self.plant is not Plant.ANY_ATTEMPT):
                continue
            wrong = None if run.attempt == attempt else Promise.OWN_ANSWER
            for failed in (False, True):
                after = self._end(world, number, failed=failed)
                changed = run.state != "running" and after.runs[number].state != run.state
                told = f"{at} hears that {(number, attempt)} {'failed' if failed else 'succeeded'}"
                yield Step(told, after, Promise.FINAL if changed else wrong)

    def _end(self, world: World, number: int, *, failed: bool, back: int = 0) -> World:
        run = world.runs[number]
        tries = run.tries - back
        if not failed:
            return _run(world, number, run._replace(state="completed", sender=None))
        if tries < self.max_attempts + (self.plant is Plant.ONE_TRY_MORE):
            return _run(world, number, Run("queued", run.attempt, tries))
        return _run(world, number, run._replace(state="failed", sender=None))


def _running(world: World) -> frozenset[int]:
    return frozenset(number for number, run in enumerate(world.runs) if run.state == "running")


def _lives(world: World, sender: Life | None) -> bool:
    if sender is None:
        return False
    server = world.servers[sender[0]]
    return server.leased and server.life == sender[1]


def _take(world: World, at: int, attempt: Attempt) -> World:
    server = world.servers[at]
    return _server(world, at, hands=server.hands | {attempt}, took=server.took | {attempt})


def _give_back(world: World, at: int, attempt: Attempt) -> World:
    """Put an attempt back that was not sent, uncharged, if it is still this server's."""
    number, count = attempt
    run = world.runs[number]
    if (run.state, run.attempt, run.sender) != ("running", count, (at, world.servers[at].life)):
        return world
    return _run(world, number, Run("queued", run.attempt, run.tries - 1))


def _server(world: World, at: int, **changes: object) -> World:
    return _put(world, at, world.servers[at]._replace(**changes))  # type: ignore[arg-type]  # names of its own fields


def _put(world: World, at: int, server: Server) -> World:
    return world._replace(servers=(*world.servers[:at], server, *world.servers[at + 1 :]))


def _run(world: World, number: int, run: Run) -> World:
    return world._replace(runs=(*world.runs[:number], run, *world.runs[number + 1 :]))
