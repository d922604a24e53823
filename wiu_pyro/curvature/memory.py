"""What memory a device has free, and byte counts in words."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch

__all__ = ["available_bytes", "bytes_in_words"]

MEMINFO = Path("/proc/meminfo")
# limits of a container, (most, used): cgroup v2, then v1
LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def available_bytes(device: torch.device | None = None) -> int:
    """Return the memory that can still be allocated on a device.

    On a GPU that is what the driver reports as free and what torch holds without using; on the CPU what the kernel
    counts as available, within the limit of a container; where neither says, the free pages.

    Parameters
    ----------
    device : device, optional
        The CPU when None.

    Returns
    -------
    int
        Bytes.
    """
    if device is not None and device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    found = _kernel_available()
    if found is None:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # no word on what is free: half of all
    for most, used in LIMITS:
        limit, taken = _number(most), _number(used)
        if limit is not None and taken is not None:
            found = min(found, max(limit - taken, 0))
    return found


def _kernel_available() -> int | None:
    if not MEMINFO.is_file():
        return None
    lines = [line.split() for line in MEMINFO.read_text().splitlines()]
    return next((1024 * int(words[1]) for words in lines if words and words[0] == "MemAvailable:"), None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None


def bytes_in_words(count: float) -> str:
    """Return a number of bytes as people read it.

    Returns
    -------
    str
        Three digits and a unit.

    Examples
    --------
    >>> bytes_in_words(2_517_831_684)
    '2.34 GiB'
    >>> bytes_in_words(512)
    '512 B'
    """
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(int(math.log2(max(count, 1))) // 10, len(units) - 1)
    value = count / 1024**power
    return f"{value:.3g} {units[power]}" if value < 1000 else f"{value:,.0f} {units[power]}"
