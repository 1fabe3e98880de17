"""The API's contract, `openapi.yaml`: from inside the wheel, or from the top of a source checkout."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import orjson
import yaml


@cache
def contract() -> dict[str, Any]:
    """Return the contract as it was written."""
    packaged = files("hurlbat_app") / "openapi.yaml"
    source = packaged if packaged.is_file() else Path(__file__).parents[3] / "openapi.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found: dict[str, Any] = yaml.load(source.read_text(encoding="utf-8"), Loader=loader)
    return found


@cache
def contract_json() -> bytes:
    """Return the contract in JSON."""
    return orjson.dumps(contract())
