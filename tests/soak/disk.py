"""Searches on disks that are full or read-only: each says so, and goes on the same."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from tests.soak import kill, processes, searches, signals, writes
from tests.soak.processes import Ended
from tests.soak.searches import Search

SIZES_KB = (24, 48, 88, 128, 168, 208, 268, 328, 388)  # such a search needs about 450
READ_ONLY = (".", "checkpoints", "knowledge", "tensorboard")  # in a workdir
PROMISED = "one sentence, no drafts, went on the same"
FITTED = "it had room enough"
OPEN = "it opened no file there any more"  # what a process has open it still writes to
OVER = "over before its disk was read-only"  # which was too late, then
NOT_TRIED = "not tried: only root may mount"
BUSY = 20.0  # seconds in which a file that is being written is closed again
BEFORE = 6  # lines of metrics.jsonl, or checkpoints, after which a part becomes read-only


def may_mount() -> bool:
    """Whether this process may mount a small disk."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small(pathlib.Path(folder), 64):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextlib.contextmanager
def small(folder: pathlib.Path, kilobytes: int) -> Iterator[None]:
    """A disk of this size in `folder`."""
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """`folder` cannot be written inside, by root neither."""
    mount("--bind", str(folder), str(folder))
    try:
        until(lambda: mount("-o", "remount,ro,bind", str(folder)))
        yield
    finally:
        until(lambda: subprocess.run(["umount", str(folder)], check=True, capture_output=True))


def until(step: Callable[[], object]) -> None:
    """Does `step`, which the kernel refuses as long as a file is open for writing there."""
    end = time.monotonic() + BUSY
    while True:
        try:
            step()
            return
        except subprocess.CalledProcessError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def mount(*arguments: str) -> None:
    """As the command does."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def wrong(ended: Ended, words: str, codes: Sequence[int] = (1,)) -> str:
    """What is wrong with how a search has ended; "" where nothing is."""
    lines = ended.said.strip().splitlines() or [""]
    if "Traceback" in ended.said:
        return f"WRONG: traceback of {lines[-1][:80]}"
    if ended.code not in codes or not lines[-1].startswith("error: ") or words not in lines[-1]:
        return f"WRONG: exit {ended.code}: {lines[-1][-200:]}"
    return ""


def drafts(workdir: pathlib.Path, but: pathlib.Path | None = None) -> str:
    """What is wrong with what has been left in `workdir`, though not in `but`; "": nothing is."""
    found = [*workdir.glob("**/.*.*"), *workdir.glob("**/*orbax-checkpoint-tmp*")]
    left = [path.name for path in found if but is None or not path.is_relative_to(but)]
    return f"WRONG: drafts are left: {left}" if left else ""


def filled(search: Search, place: pathlib.Path, size: int, whole: pathlib.Path) -> str:
    """How a search ends whose disk, in `place`, has so many kilobytes, and how it goes on."""
    place.mkdir()
    said, workdir = place.with_suffix(".said"), place / "run"
    with small(place, size):
        ended = processes.call(said, "search", *search.arguments(workdir))
        if ended.code == 0:
            return FITTED
        found = wrong(ended, "room") or drafts(workdir)
        if found:
            return found
        mount("-o", "remount,size=64m", str(place))  # somebody makes room
        return gone_on(processes.call(said, "search", *search.arguments(workdir)), workdir, whole)


def closed(search: Search, workdir: pathlib.Path, part: str, whole: pathlib.Path) -> str:
    """How a search ends when this `part` of its folder becomes read-only, and how it goes on."""
    running = searches.start(search, workdir)
    place, log = workdir / part, workdir / "metrics.jsonl"

    def far() -> bool:
        return place.exists() and log.exists() and log.read_text().count("\n") >= BEFORE

    try:
        if not processes.happens(running, far):
            return OVER
    except TimeoutError as error:
        return f"WRONG: {error}"
    with read_only(place):
        ended = processes.ended(running)
    if ended.code == 0:
        found = kill.compared(ended, workdir, whole)
        return OPEN if found == kill.EQUAL else found
    # What it was writing there at that moment, nobody can remove before it goes on.
    found = wrong(ended, "read-only") or drafts(workdir, but=place)
    return found or gone_on(searches.run(search, workdir), workdir, whole)


def begun(search: Search, workdir: pathlib.Path, part: str, whole: pathlib.Path) -> str:
    """How a search ends that was killed, and is to go on where this `part` is read-only."""
    behind = functools.partial(writes.armed, writes.KEPT["a checkpoint"], BEFORE, 0.0)
    first = killed(searches.run(search, workdir, behind), workdir)
    if first:
        return first
    with read_only(workdir / part):
        ended = searches.run(search, workdir)
    if ended.code == 0:
        return gone_on(ended, workdir, whole)
    found = wrong(ended, "ead-only", codes=(1, 2)) or drafts(workdir, but=workdir / part)
    return found or gone_on(searches.run(search, workdir), workdir, whole)


def killed(ended: Ended, workdir: pathlib.Path) -> str:
    """What is wrong with a search that was to be killed in the middle; "" where nothing is."""
    if ended.code != -signal.SIGKILL or processes.HANGS in ended.said:
        return f"WRONG: exit {ended.code}: {kill.last_line(ended)}"
    return "WRONG: it had a result already" if (workdir / "result.json").exists() else ""


def gone_on(ended: Ended, workdir: pathlib.Path, whole: pathlib.Path) -> str:
    """The outcome of a search whose disk takes what is written again."""
    found = kill.compared(ended, workdir, whole)
    return drafts(workdir) or PROMISED if found == kill.EQUAL else found


def cases(
    place: pathlib.Path,
    sizes: tuple[int, ...] = SIZES_KB,
    parts: tuple[str, ...] = READ_ONLY,
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) for disks of these sizes, and read-only parts of a workdir.

    NOT_TRIED where this process may not mount.
    """
    if not may_mount():
        yield "disk", NOT_TRIED
        return
    search, whole = signals.search(place), place / "undisturbed"
    assert searches.run(search, whole).code == 0
    for size in sizes:
        yield f"disk of {size} KB", filled(search, place / f"disk{size}", size, whole)
    for part in parts:
        workdir = place / f"closed-{part.strip('.')}"
        yield f"read-only {part}", closed(search, workdir, part, whole)
        workdir = place / f"begun-{part.strip('.')}"
        yield f"read-only {part} before it goes on", begun(search, workdir, part, whole)
