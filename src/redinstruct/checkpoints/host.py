"""How much memory this machine has for a model, how much of it this process has, and giving it back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import sys
from pathlib import Path


def host_bytes() -> float:
    """What this machine (or its control group) lets one program have; what it has already counts to it."""
    found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    meminfo, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        found = float(lines.get("MemAvailable", f"{found / 1024} kB").split()[0]) * 1024 + resident()
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(found, float(text)) if text.isdigit() else found


def resident() -> float:
    """Bytes that this process has now; its peak where the system does not say."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return float(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def give_back() -> None:
    """Give the system back what the allocator holds on to.

    glibc keeps freed blocks of up to 32 MB, for each thread that had some: after a run of SmolLM2 half of its memory,
    0.7 GB after an evaluation, on top of which the next stage would take its own.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
