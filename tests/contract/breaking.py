"""What of the contract would break those who keep to the released one: `python -m tests.contract.breaking`.

`released.yaml` is the contract of the last release, `accepted.yaml` the breaks that were decided on. The comparison is
that of oasdiff (`oasdiff/`). In what it calls a request a client may be told less and must not be asked for more, in an
answer the other way round; so the messages of the push protocol, where the server asks and the worker answers, are
handed to it with the two ends swapped.
"""

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hurlbat_app.api.contract import contract
from tests.support.toolchains import go_programs

HERE = Path(__file__).parent
RELEASED = HERE / "released.yaml"
ACCEPTED = HERE / "accepted.yaml"


def breaks(released: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return, for each of the other documents, its breaks, a line each."""
    program = go_programs(HERE / "oasdiff") / "oasdiff"
    with tempfile.TemporaryDirectory(prefix="hurlbat-breaking-") as name:
        paths = [Path(name) / f"{number}.json" for number in range(len(others) + 1)]
        for path, document in zip(paths, (released, *others), strict=True):
            path.write_text(json.dumps(_both_ends(document)))
        done = subprocess.run([str(program), *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [
        sorted({f"{one['operation']} {one['path']}: {one['sentence']} [{one['rule']}]".strip() for one in found})
        for found in json.loads(done.stdout)
    ]


def accepted() -> dict[str, str]:
    """Return the accepted breaks, each with its reason."""
    return {one["break"]: one["reason"] for one in yaml.safe_load(ACCEPTED.read_text()) or ()}


def load_released() -> Any:
    """Return the contract of the last release."""
    return yaml.safe_load(RELEASED.read_text())


def main() -> int:
    """Compare the contract with the released one; return the exit code."""
    known = accepted()
    found = breaks(load_released(), [contract()])[0]
    for one in found:
        print(f"{'accepted' if one in known else 'BREAKS'}: {one}")
    stale = [one for one in known if one not in found]
    for one in stale:
        print(f"accepted.yaml has what is no break: {one}")
    return 1 if stale or [one for one in found if one not in known] else 0


def _both_ends(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with its messages to workers as operations whose request is what the worker answers."""
    made = copy.deepcopy(dict(document))
    for name, item in made.pop("webhooks", {}).items():
        told = item["post"]
        answers = {status: _followed(made, one) for status, one in told["responses"].items()}
        bodies = [one["content"] for status, one in answers.items() if status.startswith("2") and "content" in one]
        headers = {one["name"]: one for one in (_followed(made, each) for each in told.get("parameters", ()))}
        swapped: dict[str, Any] = {
            "operationId": told["operationId"],
            "responses": {
                "200": {
                    "description": told.get("summary", name),
                    "headers": {key: _header(one) for key, one in headers.items()},
                    "content": told["requestBody"]["content"],
                }
            },
        }
        if bodies:
            swapped["requestBody"] = {"required": True, "content": {k: v for one in bodies for k, v in one.items()}}
        made["paths"][f"/push/{name}"] = {"post": swapped}
    return made


def _header(parameter: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parameter.items() if key not in ("name", "in")}


def _followed(document: Mapping[str, Any], node: Mapping[str, Any]) -> Any:
    found: Any = node
    while "$ref" in found:
        target: Any = document
        for step in found["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        found = target
    return found


if __name__ == "__main__":
    sys.exit(main())
