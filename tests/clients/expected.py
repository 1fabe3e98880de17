"""What the programs must have printed: a line of JSON for each operation, in this order."""

import json
from collections.abc import Callable
from typing import Any

Line = dict[str, Any]


class Unexpected(AssertionError):
    """A program has printed something else; the message names the operation."""


def check(printed: str, name: str) -> list[tuple[str, str]]:
    """Return each operation with a few words on its result. Raises `Unexpected`."""
    # Maven colours what its program prints
    lines: list[Line] = [json.loads(line[line.index("{") :]) for line in printed.splitlines() if '{"' in line]
    told = [line["operation"] for line in lines]
    if told != list(_CHECKS):
        raise Unexpected(f"expected the operations {', '.join(_CHECKS)}, but it printed {', '.join(told) or 'none'}")
    by_name = {line.pop("operation"): line for line in lines}
    results = []
    for operation, right in _CHECKS.items():
        line = by_name[operation]
        if not right(line, by_name, name):
            raise Unexpected(f"{operation}: {json.dumps(line)} is not what the server did")
        results.append((operation, _short(line)))
    return results


def _register(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"name": "greeter", "state": "ready", "language": name}


def _submit(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"id": line["id"], "task": "greet", "input": {"name": "Ada"}}


def _wait(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"id": lines["submit"]["id"], "state": "completed", "output": "Hello, Ada!"}


def _bulk(line: Line, lines: dict[str, Line], name: str) -> bool:
    return len(set(line["ids"])) == 4 and line["codes"] == ["member_invalid"]


def _publish(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"key": "user.joined", "starts": [["welcome", "started"]]}


def _schedule(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"name": name, "overlap": "skip", "hour": 6}


def _list(line: Line, lines: dict[str, Line], name: str) -> bool:
    found = line["ids"]
    mine = {lines["submit"]["id"], *lines["bulk"]["ids"]}
    return len(found) == len(set(found)) and mine <= set(found) and line["pages"] == -(-len(found) // 2) >= 3


def _cancel(line: Line, lines: dict[str, Line], name: str) -> bool:
    return line == {"state": "cancelled", "by": "request", "reason": "not needed"}


def _problem(line: Line, lines: dict[str, Line], name: str) -> bool:
    return (line["status"], line["code"]) == (404, "run_unknown") and bool(line["detail"])


def _unauthorized(line: Line, lines: dict[str, Line], name: str) -> bool:
    return (line["status"], line["code"]) == (401, "token_invalid") and bool(line["detail"])


_CHECKS: dict[str, Callable[[Line, dict[str, Line], str], bool]] = {
    "register": _register,
    "submit": _submit,
    "wait": _wait,
    "bulk": _bulk,
    "publish": _publish,
    "schedule": _schedule,
    "list": _list,
    "cancel": _cancel,
    "problem": _problem,
    "unauthorized": _unauthorized,
}


def _short(line: Line) -> str:
    words = [
        f"{name}: {f'{len(value)}' if name == 'ids' else value if isinstance(value, str) else json.dumps(value)}"
        for name, value in line.items()
    ]
    return ", ".join(words)
