"""Cores and memory available to this process."""

import math
import os
from pathlib import Path


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of available cores: the affinity mask, bounded by the cgroup's quota."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity mask
        cores = os.cpu_count() or 1
    quotas = [
        float(limit) / float(period)
        for folder in _cgroup_folders(root, "cpu")
        for limit, period in [_cpu_quota(folder)]
        if limit.isdecimal() and period.isdecimal() and int(period) > 0
    ]
    return max(1, min([cores, *map(math.ceil, quotas)]))


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the free memory in bytes, bounded by the cgroup's limit; None if unknown."""
    free = None
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    for folder in _cgroup_folders(root, "memory"):
        for limit_name, usage_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, usage = _read(folder / limit_name), _read(folder / usage_name)
            if limit.isdecimal() and usage.isdecimal():
                statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
                cache = int(statistics.get(cache_name, 0))  # file pages, which the system can free
                left = max(0, int(limit) - int(usage) + cache)
                free = left if free is None else min(free, left)
    return free


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Return the cgroup folders (v2 and v1) of this process and their parents."""
    folders = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        folder = base / path.lstrip("/")
        folders += [folder, *folder.parents[: len(folder.parts) - len(base.parts)]]
    return folders


def _cpu_quota(folder: Path) -> tuple[str, str]:
    """Return a cgroup's quota and period in microseconds, as text; "max" or "" is no limit."""
    limit, _, period = _read(folder / "cpu.max").partition(" ")
    if limit:
        return limit, period
    return _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
