"""A share of the made-up requests that `make contract` asks for by the ten thousand: every operation, good parents."""

from pathlib import Path

from tests.contract.fuzz import fuzz
from tests.support.processes import Processes


def test_requests_made_up_from_the_contract_find_no_fault(
    processes: Processes, sqlite_url: str, tmp_path: Path
) -> None:
    found = fuzz(processes, sqlite_url, tmp_path, 1, "--max-examples", "1", phases="examples,fuzzing,stateful")

    assert found.passed, f"{found.said[-6000:]}\n{found}"
    assert found.unseen == []
    assert len(found.never_well) <= 25, found
