"""How much of a lane is in memory: little where there are many lanes, and more where one could start more at once."""

from hurlbat_dispatcher.domain.flow import HORIZON, Picture
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, GroupDraw, Strategy
from hurlbat_dispatcher.domain.runs import rank
from hurlbat_dispatcher.domain.terms import RuleTerms, TaskTerms, Terms

LANES = 10_000
RUNS = 3_000
NOW = 1_000_000


class Crowd:
    """A picture with many lanes that nobody waits in, and a free one whose runs are stored."""

    def __init__(self) -> None:
        self.picture = Picture()
        slots = self.picture.worker("w", RUNS)
        slots.serving = True
        slots.window.pin(RUNS)
        self.picture.learn(
            Terms({"t": TaskTerms((("w", 0),))}, {"r": RuleTerms(1, Strategy.GROUP_ROUND_ROBIN)}, {}), NOW
        )
        for number in range(LANES):
            self.picture.lane(number, "t", Draws((GroupDraw("r", str(number)),)))
        self.stored = [Waiting(rank(NOW, 2), f"{number:05}", 2) for number in range(RUNS)]
        self.free: Lane = self.picture.lane(LANES, "t", PLAIN)
        for run in self.stored:
            self.picture.add(self.free, run, NOW)

    def turn(self) -> int:
        """Start what can start, and read on where the lane is hungry; return how many started."""
        started = len(self.picture.admit(NOW))
        if self.free.id in self.picture.hungry:
            after, most = self.free.horizon, self.picture.reach(self.free)
            rows = [run for run in self.stored if after is None or run > after][:most]
            self.picture.refill(self.free, rows, more=len(rows) == most)
        return started


def test_a_lane_that_nothing_holds_starts_as_many_as_if_it_were_alone() -> None:
    crowd = Crowd()
    assert crowd.picture.horizon < HORIZON // 10

    starts = [crowd.turn() for _ in range(10)]

    assert starts[0] < HORIZON // 10
    assert starts[6:] == [HORIZON] * 4
    assert len(crowd.free.heap) <= 2 * HORIZON


def test_a_lane_that_is_no_longer_in_a_hurry_gives_its_memory_back() -> None:
    crowd = Crowd()
    for _ in range(8):
        crowd.turn()

    for _ in range(8):
        crowd.picture.tidy(NOW)

    assert crowd.free.reach < HORIZON // 10
