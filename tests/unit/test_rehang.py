"""When workers come and go, pools change their workers where they stand, and lanes move only where they must."""

from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.domain.lanes import Lane, Waiting
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, GroupDraw, Strategy
from hurlbat_dispatcher.domain.terms import RuleTerms, TaskTerms, Terms

NOW = 1_000_000
ONE, TWO = ("w1", 0), ("w2", 0)


def terms(**tasks: tuple[tuple[str, int], ...]) -> Terms:
    """Return the terms of these tasks, by the workers that serve each."""
    rules = {"key": RuleTerms(1, Strategy.GROUP_ROUND_ROBIN)}
    return Terms({name: TaskTerms(workers) for name, workers in tasks.items()}, rules, {})


def picture_of(first: Terms, slots: int = 10) -> Picture:
    """Return a picture with two workers."""
    picture = Picture()
    for name in ("w1", "w2"):
        picture.worker(name, slots).serving = True
        picture.slots[name].window.pin(slots)
    picture.learn(first, NOW)
    return picture


def waiting(picture: Picture, task: str, *numbers: int, draws: Draws = PLAIN) -> list[Lane]:
    """Let one run wait in each of these lanes of a task."""
    lanes = []
    for number in numbers:
        lane = picture.lane(number, task, draws._replace(groups=(GroupDraw("key", str(number)),)))
        picture.add(lane, Waiting(number, f"{task}{number}", 2), NOW)
        lanes.append(lane)
    return lanes


def started(picture: Picture) -> list[tuple[str, str]]:
    """Start what can start: which run at which worker."""
    return sorted((one.run_id, one.slots.worker) for one in picture.admit(NOW))


def test_no_lane_moves_when_a_worker_comes_or_goes() -> None:
    picture = picture_of(terms(a=()))
    lanes = waiting(picture, "a", 1, 2, 3)
    pool = lanes[0].pool
    for workers in ((ONE,), (ONE, TWO), (TWO,)):
        picture.learn(terms(a=workers), NOW)
        assert {lane.pool for lane in lanes} == {pool}
        assert [slots.worker for slots, _ in pool.workers] == [name for name, _ in workers]
        assert list(picture.pools.values()) == [pool]
        assert [list(picture.slots[name].pools) for name, _ in workers] == [[pool]] * len(workers)
    assert not picture.slots["w1"].pools
    assert started(picture) == [("a1", "w2"), ("a2", "w2"), ("a3", "w2")]


def test_the_fewer_lanes_move_when_a_pool_splits() -> None:
    picture = picture_of(terms(a=(ONE,), b=(ONE,)))
    many, few = waiting(picture, "a", 1, 2, 3), waiting(picture, "b", 4, 5)
    pool = many[0].pool
    assert few[0].pool is pool
    picture.learn(terms(a=(TWO,), b=(ONE,)), NOW)
    assert {lane.pool for lane in many} == {pool}
    assert {lane.pool for lane in few} == {picture.pools[(ONE,), 1]} != {pool}
    assert started(picture) == [("a1", "w2"), ("a2", "w2"), ("a3", "w2"), ("b4", "w1"), ("b5", "w1")]


def test_the_fewer_lanes_move_when_two_pools_become_one() -> None:
    for stays in (False, True):
        picture = picture_of(terms(a=(ONE,), b=(TWO,)))
        few, many = waiting(picture, "a", 1, 2), waiting(picture, "b", 4, 5, 6)
        pool, other = many[0].pool, few[0].pool
        picture.learn(terms(a=(TWO,), b=(TWO,)) if stays else terms(a=(ONE,), b=(ONE,)), NOW)
        assert {lane.pool for lane in (*few, *many)} == {pool}
        assert list(picture.pools.values()) == [pool]
        assert all(other not in slots.pools for slots in picture.slots.values())
        assert [worker for _, worker in started(picture)] == ["w2" if stays else "w1"] * 5


def test_two_pools_may_change_places() -> None:
    picture = picture_of(terms(a=(ONE,), b=(TWO,)))
    waiting(picture, "a", 1)
    waiting(picture, "b", 2)
    picture.learn(terms(a=(TWO,), b=(ONE,)), NOW)
    assert started(picture) == [("a1", "w2"), ("b2", "w1")]
    assert sorted(picture.pools) == [((ONE,), 1), ((TWO,), 1)]


def test_lanes_of_a_sticky_run_go_their_own_way() -> None:
    picture = picture_of(terms(a=(ONE, TWO)))
    waiting(picture, "a", 1, 2, 3)
    (only,) = waiting(picture, "a", 4, draws=PLAIN._replace(worker="w1", only=True))
    picture.learn(terms(a=(TWO,)), NOW)
    assert only.pool.workers == ()
    assert started(picture) == [("a1", "w2"), ("a2", "w2"), ("a3", "w2")]
    picture.learn(terms(a=(ONE, TWO)), NOW)
    assert started(picture) == [("a4", "w1")]


def test_a_slot_is_no_longer_kept_at_a_worker_that_went() -> None:
    picture = picture_of(terms(a=(ONE,), b=(ONE,)), slots=2)
    (wide,) = waiting(picture, "a", 1, draws=PLAIN._replace(cost=2))
    (small,) = waiting(picture, "b", 2)
    wide.pool.reserved, picture.slots["w1"].reserved = picture.slots["w1"], wide.pool
    wide.pool.passed = 8
    picture.learn(terms(a=(TWO,), b=(ONE,)), NOW)
    kept = [*(slots.reserved for slots in picture.slots.values()), *(pool.reserved for pool in picture.pools.values())]
    assert not any(kept)
    assert wide.pool.passed == 0
    assert started(picture) == [("a1", "w2"), ("b2", "w1")]
    assert small.pool is not wide.pool


def test_what_a_group_holds_starts_at_the_worker_that_came() -> None:
    picture = picture_of(terms(a=(ONE,)))
    (lane,) = waiting(picture, "a", 1)
    picture.add(lane, Waiting(7, "next", 2), NOW)
    assert started(picture) == [("a1", "w1")]
    picture.learn(terms(a=(TWO,)), NOW)
    assert started(picture) == []
    picture.release("a1", NOW)
    assert started(picture) == [("next", "w2")]
