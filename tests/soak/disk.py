"""Searches on disks that are full or read-only: each says so in a sentence, and goes on the same.

python -m tests.soak.disk          # as root, who may mount
"""

import collections
import contextlib
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Iterator

from tests.soak import signals

SIZES_KB = (24, 48, 88, 128, 168, 208, 268, 328, 388)  # such a search needs about 450
READ_ONLY = (".", "checkpoints", "knowledge", "tensorboard")  # in a workdir
PROMISED = "one sentence, no drafts, went on the same"
FITTED = "it had room enough"
OVER = "over before its disk was read-only"  # which was too late, then
NOT_TRIED = "not tried: only root may mount"
GOOD = (PROMISED, FITTED, OVER, NOT_TRIED)


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
        mount("-o", "remount,ro,bind", str(folder))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def mount(*arguments: str) -> None:
    """As the command does."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def wrong(workdir: pathlib.Path, code: int, said: str, words: str) -> str:
    """What is wrong with how a search has ended; "" where nothing is."""
    lines = said.strip().splitlines()
    if "Traceback" in said:
        return f"traceback of {lines[-1][:80]}"
    if code != 1 or not lines[-1].startswith("error: ") or words not in lines[-1]:
        return f"exit {code}: {lines[-1:]}"
    left = [path.name for path in workdir.glob(".*.*")]
    left += [path.name for path in workdir.glob("**/*orbax-checkpoint-tmp*")]
    return f"drafts are left: {left}" if left else ""


def filled(folder: pathlib.Path, place: pathlib.Path, size: int, expected: object) -> str:
    """How a search ends whose disk, in `place`, has so many kilobytes, and how it goes on."""
    place.mkdir()
    workdir = place / "run"
    with small(place, size):
        process = signals.start(folder, workdir)
        _, said = process.communicate(timeout=600)
        if process.returncode == 0:
            return FITTED
        found = wrong(workdir, process.returncode, said, "room")
        if found:
            return found
        mount("-o", "remount,size=64m", str(place))  # somebody makes room
        return signals.gone_on(folder, workdir, expected) or PROMISED


def closed(folder: pathlib.Path, workdir: pathlib.Path, part: str, expected: object) -> str:
    """How a search ends when this `part` of its folder becomes read-only, and how it goes on."""
    process = signals.start(folder, workdir)
    place, log = workdir / part, workdir / "metrics.jsonl"
    while not (place.exists() and log.exists() and log.read_text().count("\n") > 5):
        if process.poll() is not None:
            return OVER
        time.sleep(0.01)
    with read_only(place):
        _, said = process.communicate(timeout=600)
    # What the process had open it still writes to: it may be done before it opens another file.
    if process.returncode == 0:
        return FITTED
    found = wrong(workdir, process.returncode, said, "read-only")
    return found or signals.gone_on(folder, workdir, expected) or PROMISED


def cases(
    sizes: tuple[int, ...] = SIZES_KB, parts: tuple[str, ...] = READ_ONLY
) -> list[tuple[str, str]]:
    """(fault, outcome) for disks of these sizes, and read-only parts of a workdir.

    NOT_TRIED where this process may not mount.
    """
    if not may_mount():
        return [("disk", NOT_TRIED)]
    outcomes: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        expected, _ = signals.whole(folder)
        for size in sizes:
            outcome = filled(folder, folder / f"disk{size}", size, expected)
            outcomes.append((f"disk of {size} KB", outcome))
            print(*outcomes[-1], sep=": ", flush=True)
        for part in parts:
            workdir = folder / f"closed-{part}"
            outcomes.append((f"read-only {part}", closed(folder, workdir, part, expected)))
            print(*outcomes[-1], sep=": ", flush=True)
    return outcomes


if __name__ == "__main__":
    assert os.geteuid() == 0, "only root may mount"
    for outcome, count in collections.Counter(outcome for _, outcome in cases()).items():
        print(f"{count:4d}  {outcome}")
