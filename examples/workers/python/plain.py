"""A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file."""

import os
import re
from pathlib import Path
from threading import Lock
from typing import Any

from signed import Answer, serve

ORDER = re.compile(r"[\w-]+")
written: dict[str, Any] = {}  # what succeeded, by the run's id; if it must outlive a restart, a table with a unique key
writing: dict[str, Lock] = {}


def write_receipt(message: Any) -> Answer:
    [run] = message["data"]["runs"]
    match run["input"]:
        case {"order": str(order), "amount": int() | float() as amount} if ORDER.fullmatch(order) and amount > 0:
            run_id, receipt = run["run_id"], f"{order}.txt"
        case _:
            return Answer(422, "order and amount are wanted", {"hurlbat-retry": "no"})
    lock = writing.setdefault(run_id, Lock())  # the id is the same on every attempt
    if not lock.acquire(blocking=False):
        return Answer(503, "still at it", {"retry-after": "5"})  # it waits so long, uncharged
    try:
        if run_id not in written:
            Path(os.environ.get("RECEIPTS", "."), receipt).write_text(f"{amount}\n")
            written[run_id] = {"receipt": receipt}  # only after success: a failed one is to be tried again
        return Answer(200, written[run_id])
    except OSError as error:
        return Answer(500, str(error))
    finally:
        lock.release()


serve(write_receipt)
