"""A plain worker: it answers HTTP, checks signatures, and knows two headers. Its task writes a receipt into a file."""

import os
import re
from pathlib import Path
from threading import Lock
from typing import Any

from signed import SignedHandler, serve

RECEIPTS = Path(os.environ.get("RECEIPTS", "."))
ORDER = re.compile(r"[\w-]+")
written: dict[str, Any] = {}  # what succeeded, by the run's id; if it must outlive a restart, a table with a unique key
writing: dict[str, Lock] = {}


class Worker(SignedHandler):
    def take(self, message: Any) -> None:
        match message:
            case {"data": {"runs": [{"input": {"order": str(order), "amount": int() | float() as amount}}]}} if (
                ORDER.fullmatch(order) and amount > 0
            ):
                self.write(self.headers["webhook-id"], order, amount)
            case _:
                self.answer(422, "order and amount are wanted", {"hurlbat-retry": "no"})

    def write(self, id: str, order: str, amount: float) -> None:
        lock = writing.setdefault(id, Lock())  # the id is the same on every attempt
        if not lock.acquire(blocking=False):
            self.answer(503, "still at it", {"retry-after": "5"})  # it waits so long, uncharged
            return
        try:
            if id not in written:
                (RECEIPTS / f"{order}.txt").write_text(f"{amount}\n")
                written[id] = {"receipt": f"{order}.txt"}  # only after success: a failed one is to be tried again
            self.answer(200, written[id])
        except OSError as error:
            self.answer(500, str(error))
        finally:
            lock.release()


serve(Worker)
