"""What a turn must know of lanes: their numbers where runs are submitted, and what they draw on where runs wait."""

from collections.abc import Generator, Iterable, Sequence

import structlog

from hurlbat_dispatcher.domain.policies import PLAIN
from hurlbat_dispatcher.store import lanes
from hurlbat_dispatcher.store.lanes import LaneRow
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.operations import Entry

log = structlog.get_logger("hurlbat.turn")

TOUCH_MS = 3_600_000
"""How exactly a lane remembers when it was last used."""


def find_lanes(desk: Desk, entries: Sequence[Entry], now: int) -> Generator[Ask, Rows, None]:
    """Learn the numbers of the lanes that submissions want; one that is new is made."""
    wanted = _wanted(desk, entries, now)
    if desk.crowded(len(wanted)):  # now, and not later: the turn needs what it has found
        desk.forget_lanes()
        wanted = _wanted(desk, entries, now)
    if not wanted:
        return
    yield from _look(desk, wanted, now)
    missing = sorted((name, draws) for name, draws in wanted.items() if name not in desk.lane_ids)
    if missing:  # in one order for all servers, so that two never wait for each other
        yield lanes.INSERT.write([(DEFAULT_TENANT, task, draws, digest, now) for (task, digest), draws in missing])
        yield from _look(desk, dict(missing), now)


def _wanted(desk: Desk, entries: Sequence[Entry], now: int) -> dict[tuple[str, str], str]:
    """Return what the lanes of submissions draw on that are not known, or were not used for long."""
    wanted: dict[tuple[str, str], str] = {}
    for entry in entries:
        known = desk.lane_ids.get((entry.task.name, entry.lane))
        if known is None or known.used_at < now - TOUCH_MS:
            wanted[entry.task.name, entry.lane] = entry.draws
    return wanted


def _look(desk: Desk, wanted: dict[tuple[str, str], str], now: int) -> Generator[Ask, Rows, None]:
    for name in wanted:
        desk.lane_ids.pop(name, None)  # it may have been removed
    rows = yield lanes.BY_DIGEST.fetch(DEFAULT_TENANT, sorted({digest for _, digest in wanted}))
    found = [row for row in map(LaneRow._make, rows) if (row.task, row.digest) in wanted]
    for row in found:
        desk.know_lane(row._replace(used_at=now))
    old = [(now, row.id) for row in found if row.used_at < now - TOUCH_MS]
    if old:
        yield lanes.TOUCH.write(old)


def know_lanes(desk: Desk, ids: Iterable[int]) -> Generator[Ask, Rows, None]:
    """Learn what lanes draw on of which only the numbers are known."""
    unknown = sorted({lane_id for lane_id in ids if lane_id not in desk.picture.lanes})
    if unknown:
        rows = yield lanes.BY_ID.fetch(unknown)
        for row in map(LaneRow._make, rows):
            desk.open_lane(row)
        for lane_id in unknown:
            if lane_id not in desk.picture.lanes:  # whoever waits in it waits for ever, and holds up nobody else
                log.error("there is no such lane; `hurlbat doctor` tells which runs are in it", lane=lane_id)
                desk.picture.lane(lane_id, "", PLAIN)
