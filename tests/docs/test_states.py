"""The drawing of a run's states is drawn from the table that the engine goes by."""

import re

from hurlbat_dispatcher.domain.lifecycle import TRANSITIONS
from tests.support.draw_states import PAGE, page


def test_the_page_is_what_the_script_draws() -> None:
    assert PAGE.read_text() == page(), "run `python -m tests.support.draw_states`"


def test_every_transition_is_an_arrow_and_no_other_is_drawn() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+): (.+)$", PAGE.read_text(), re.MULTILINE)
    arrows = {
        (before, event.replace(" ", "_"), after) for before, after, events in drawn for event in events.split(", ")
    }
    assert arrows == {(before, event, after) for (before, event), after in TRANSITIONS.items()}
