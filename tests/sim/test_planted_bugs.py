"""Every planted bug is found within 300 seeds, or the simulator is too weak."""

from collections.abc import Iterator

import pytest

from tests.sim.bugs import BUGS, Bug
from tests.sim.planted import load
from tests.sim.regressions import REGRESSIONS
from tests.sim.telling import Told, tell

SEEDS = 300

load()


@pytest.mark.parametrize("name", sorted(BUGS))
def test_a_planted_bug_is_found_within_three_hundred_seeds(name: str) -> None:
    bug = BUGS[name]
    assert bug.hint < SEEDS
    with bug.planted():
        for told in _told(bug):
            if told.violations:
                return
    raise AssertionError(f"{SEEDS} seeds do not find that {bug.says}")


def test_there_are_enough_of_them() -> None:
    assert len(BUGS) >= 15


def test_what_went_wrong_once_would_be_found_again() -> None:
    """Whatever seed shows it now; that those which showed it go well is looked at with the others (`test_seeds`)."""
    assert {regression.bug for regression in REGRESSIONS} <= set(BUGS)


def _told(bug: Bug) -> Iterator[Told]:
    """Tell the history that is known to find it, then all the others."""
    for seed in dict.fromkeys((bug.hint, *range(SEEDS))):
        yield tell(seed, flow_control=bug.flow_control, ways=bug.ways, composition=bug.composition)
