"""How much memory this process may use, and how it gives back what it has used."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pathlib
import resource
from typing import Any

import jax

_CGROUP_FS, _PROC = pathlib.Path("/sys/fs/cgroup"), pathlib.Path("/proc")
_CGROUPS = ("memory.max", "memory/memory.limit_in_bytes")  # of version 2 and 1

# (limit, usage, what of it are files that are not in use) of version 2 and 1
_USED = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)

_COMPILATION = "/jax/core/compile/backend_compile_duration"  # JAX's name of this event
_LONG = 1.0  # seconds of a compilation after which a look at all memory costs nothing


def host_bytes(cgroups: pathlib.Path = _CGROUP_FS) -> int:
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


def available_bytes(cgroups: pathlib.Path = _CGROUP_FS, proc: pathlib.Path = _PROC) -> int:
    """What this process may take besides what it has, just now: of the machine and its cgroups.

    Files that the system keeps in memory make room, and count as free.
    """
    limits = [host_bytes(cgroups)]
    with contextlib.suppress(OSError, ValueError):  # not on this system
        limits.append(1024 * _numbers(proc / "meminfo")["MemAvailable:"])
    for folder in _own_cgroups(cgroups, proc):
        for limit, used, files in _USED:
            with contextlib.suppress(OSError, ValueError, KeyError):  # not there, or "max"
                free = int((folder / limit).read_text()) - int((folder / used).read_text())
                limits.append(free + _numbers(folder / "memory.stat")[files])
    return max(min(limits), 0)


@functools.cache  # once in a process
def return_after_compiling() -> None:
    """From now on, what a long compilation has taken goes back to the system when it is over.

    The program of children takes a gigabyte while it is compiled, which glibc keeps otherwise:
    where children are trained then, it is not there. Elsewhere than with glibc nothing happens.
    """
    jax.monitoring.register_event_duration_secs_listener(_compiled)


def _compiled(event: str, duration_secs: float, **_: Any) -> None:
    if event == _COMPILATION and duration_secs > _LONG:
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _own_cgroups(cgroups: pathlib.Path, proc: pathlib.Path) -> list[pathlib.Path]:
    """The folders of the cgroups of this process, and those above them."""
    found = {cgroups, cgroups / "memory"}
    with contextlib.suppress(OSError):
        for line in (proc / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                own = cgroups / controllers / path.lstrip("/")
                found |= {own, *(p for p in own.parents if cgroups in p.parents)}
    return sorted(found)


def _numbers(path: pathlib.Path) -> dict[str, int]:
    """{name: number} of the lines "name number .." of a file."""
    rows = (line.split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1}
