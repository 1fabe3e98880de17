"""All planted bugs, by their names in `bugs.BUGS`."""

from tests.sim import (
    bugs_of_the_composition,
    bugs_of_the_flow,
    bugs_of_the_server,
    bugs_of_the_turn,
    bugs_of_the_ways,
    bugs_that_were,
)


def load() -> list[str]:
    """Return the rooms that bugs are planted in; to import them is what makes them known."""
    return [
        room.__name__
        for room in (
            bugs_of_the_turn,
            bugs_of_the_server,
            bugs_of_the_flow,
            bugs_of_the_ways,
            bugs_of_the_composition,
            bugs_that_were,
        )
    ]
