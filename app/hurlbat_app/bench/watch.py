"""What the processes of a bench use while it runs: CPU time, and memory now and then."""

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Cpu:
    """Microseconds of CPU that each party spends on a run."""

    server: float
    worker: float
    clients: float


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used so far; 0 where there is no /proc."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, see proc(5)
    return 0.0


@contextmanager
def sampled_memory(pid: int, wanted: bool) -> Iterator[list[tuple[float, float]]]:
    """Yield a list that grows by (seconds, MiB of resident memory) of a process for as long as the block lasts."""
    samples: list[tuple[float, float]] = []
    if not wanted:
        yield samples
        return
    over = threading.Event()

    def sample() -> None:
        while True:
            samples.append((time.monotonic(), resident_mib(pid)))
            if over.wait(SAMPLE_SECONDS):
                return

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield samples
    finally:
        over.set()
        sampler.join()
        samples.append((time.monotonic(), resident_mib(pid)))


def resident_mib(pid: int) -> float:
    """Return the MiB of memory that a process has in RAM."""
    shown = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) / 1024
