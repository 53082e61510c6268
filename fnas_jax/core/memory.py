"""How much memory this process may use."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource

_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and 1


def host_bytes(cgroups: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """The machine's memory, or what the process is limited to (cgroup, RLIMIT_AS, RLIMIT_DATA).

    Not what is free just now: what depends on it must be the same when a run goes on.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        limits += [soft] if soft != resource.RLIM_INFINITY else []
    for name in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int((cgroups / name).read_text()))
    return min(limits)
