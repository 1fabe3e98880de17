"""What the simulator found in code that was thought finished. Each stays as a history that must go well."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Regression:
    """A history that once went wrong: its seed, and the planted bug that brings the fault back."""

    seed: int
    bug: str
    says: str


REGRESSIONS: Final = (
    Regression(
        63,
        "lease_after_the_end",
        "A run that ended in the very turn that had renewed its lease was stored as completed, with a lease.",
    ),
    Regression(
        122,
        "starts_without_its_lease",
        "An owner of the lanes whose own lease was over started what it might not send, put it back and started it "
        "again, as fast as it could commit.",
    ),
    Regression(
        74,
        "clock_read_after_the_answer",
        "A server that stood still between a commit and its answer believed that the database's clock was late by as "
        "much: what was due came late, and a run started after its time to start was over.",
    ),
    Regression(
        3,
        "signed_by_the_hosts_clock",
        "Requests were signed with the time of the server's host: one whose clock was off by some minutes was refused "
        "by every worker, and made them rejected for all servers.",
    ),
    Regression(
        1,
        "lanes_forgotten_too_soon",
        "A sweep forgot the lanes of the runs that had just become due, and the whole turn failed, again and again.",
    ),
    Regression(
        111,
        "members_beyond_the_horizon",
        "After a takeover the runs of a group that waited beyond what is kept in memory were not ranked any more.",
    ),
    Regression(
        172,
        "ranked_against_itself",
        "A run that another server had cancelled and replayed was still in its group, and refused for its own sake.",
    ),
)
