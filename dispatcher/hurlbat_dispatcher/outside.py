"""What an engine takes from the outside world: time, chance, a database and a network.

A simulator, or a test of an app, puts others in their place; everything else of the engine is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from hurlbat_dispatcher.clock import Chance, Clock, SystemClock
from hurlbat_dispatcher.push.transport import Network
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database

OpensDatabase = Callable[[str, Clock, float], Database]
"""Returns the database behind a URL, not yet open, for a server with a lease of so many seconds."""


@dataclass(frozen=True, slots=True)
class Outside:
    """The real world, where nothing else is said. `network` is what requests go through instead of real connections."""

    clock: Clock = field(default_factory=SystemClock)
    chance: Chance = field(default_factory=Chance)
    database: OpensDatabase = database
    network: Network | None = None
