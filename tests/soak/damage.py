"""Files of a workdir and of its knowledge store, damaged in every way, before the next command."""

from __future__ import annotations

import pathlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tests.soak import kill, processes, searches
from tests.soak.processes import Ended
from tests.soak.searches import Search

EQUAL = "equal to the undisturbed search, or as if undamaged"
TOLD = "one clear sentence"
UNFINISHED = "The search has not finished yet."  # what a page says of one without a result


def truncated(path: pathlib.Path) -> None:
    """The first half is left."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: pathlib.Path) -> None:
    """Nothing is left."""
    path.write_bytes(b"")


def flipped(path: pathlib.Path) -> None:
    """Sixteen bytes in the middle are other ones."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 16] = bytes(b ^ 0xFF for b in content[middle : middle + 16])
    path.write_bytes(content)


def deleted(path: pathlib.Path) -> None:
    """The file is not there."""
    path.unlink()


def misshapen(path: pathlib.Path) -> None:
    """Valid JSON, of something else."""
    path.write_text('[{"a": 1}]\n')


WAYS: tuple[Callable[[pathlib.Path], None], ...] = (
    truncated,
    emptied,
    flipped,
    deleted,
    misshapen,
)


class Place(NamedTuple):
    """A file that is damaged, and the command that comes next."""

    pattern: str  # of the file in the workdir; of several, the largest
    command: str  # of those of fnas-jax
    finished: bool  # whether the search is
    search: str = "random-tables"  # the others are stopped where STOPPED says
    ways: tuple[Callable[[pathlib.Path], None], ...] = WAYS


PLACES = (
    Place("config.json", "search", False),
    Place("run.json", "search", False),
    Place("metrics.jsonl", "search", False),
    Place("checkpoints/*/**/*", "search", False),
    Place("knowledge/history.sqlite", "search", False),
    Place("run.json", "trials", True),
    Place("result.json", "report", True),
    Place("knowledge/history.sqlite", "trials", True),
    Place("taken.npz", "search", False, "tnas-tables"),
    Place("knowledge/surrogates/*/**/*", "search", False, "tnas-tables"),
    *(
        Place(pattern, "search", False, "fnas-images", (truncated, flipped, deleted))
        for pattern in (
            "pools/*/**/*",
            "knowledge/pool/pool.json",
            "knowledge/pool/versions/*/**/*",
            "knowledge/pool/taught.npy",
            "training/*winner*/**/*",
        )
    ),
)
# What there has to be, or lines of it, before a search is killed.
STOPPED = {
    "random-tables": ("metrics.jsonl", 3),
    "tnas-tables": ("knowledge/surrogates/*/0/_CHECKPOINT_METADATA", 0),
    "fnas-images": ("training/*winner*/[0-9]*/_CHECKPOINT_METADATA", 0),
}


def cases(
    place: pathlib.Path,
    places: Sequence[Place] = PLACES,
    ways: Sequence[Callable[[pathlib.Path], None]] = WAYS,
) -> Iterator[tuple[str, str]]:
    """(fault, outcome) of each of `places`, damaged in each of `ways` that are its own: 65 in all.

    `place` may have the whole searches and the stopped ones already.
    """
    for number, where in enumerate(places):
        search = long_search(place, where.search)
        whole, stopped = (place / f"{kind}-{where.search}" for kind in ("whole", "stopped"))
        if not whole.exists():
            searches.make(search, whole, place)
            ended = searches.run(search, whole)
            assert ended.code == 0, ended.said
        if not stopped.exists():
            stop(search, stopped, place)
        expected = "" if where.command == "search" else shown(where.command, whole).said
        for way in (way for way in where.ways if way in ways):
            folder = place / "damaged" / f"{number}-{way.__name__}"
            shutil.copytree(whole if where.finished else stopped, folder)
            way(largest(folder, where.pattern))
            after = "finished" if where.finished else "stopped"
            fault = f"{where.pattern} {way.__name__}, then {where.command} ({after})"
            if where.command == "search":
                yield fault, searched(search, folder, whole)
            else:
                yield fault, looked_at(shown(where.command, folder), expected, way is deleted)


def long_search(place: pathlib.Path, name: str = "random-tables") -> Search:
    """One that is not over before it is killed where STOPPED says."""
    search = searches.of(name, place)
    longer = {"random-tables": {"search.budget": 64}, "fnas-images": {"winner.steps": 300}}
    return search._replace(settings=search.settings | longer.get(name, {}))


def stop(search: Search, folder: pathlib.Path, place: pathlib.Path) -> None:
    """Leaves a search in `folder` that was killed where STOPPED says."""
    searches.make(search, folder, place)
    running = searches.start(search, folder)
    pattern, lines = STOPPED[search.name]

    def there() -> bool:
        return any(path.read_bytes().count(b"\n") >= lines for path in folder.glob(pattern))

    assert processes.happens(running, there), running.said.read_text()
    running.process.kill()
    running.process.join()
    assert not (folder / "result.json").exists()


def largest(folder: pathlib.Path, pattern: str) -> pathlib.Path:
    """The largest file of that pattern, of equal ones the last by name."""
    files = [path for path in folder.glob(pattern) if path.is_file()]
    return max(files, key=lambda path: (path.stat().st_size, str(path)))


def searched(search: Search, folder: pathlib.Path, whole: pathlib.Path) -> str:
    """The outcome of the search that goes on in a damaged folder."""
    return gone_on(searches.run(search, folder), folder, whole)


def gone_on(ended: Ended, folder: pathlib.Path, whole: pathlib.Path) -> str:
    """The outcome of a search that `ended` so: refused in a sentence, or equal to `whole`.

    Lines of metrics that are lost are told, and change nothing else.
    """
    found = kill.compared(ended, folder, whole)
    if found == kill.EQUAL:
        return EQUAL
    excused = ended.code != 0 or found == kill.OTHER_METRICS
    return TOLD if excused and told(ended) else found


def shown(command: str, folder: pathlib.Path) -> Ended:
    """What a command that looks at a workdir says, with the page that it writes."""
    ended = processes.call(folder.with_suffix(".said"), command, f"--workdir={folder}")
    page, said = folder / "report.html", ended.said.replace(str(folder), "")
    return ended._replace(said=said + (page.read_text() if page.exists() else ""))


def looked_at(ended: Ended, expected: str, gone: bool = False) -> str:
    """The outcome of a command that shows what is in a damaged folder.

    `gone`: a file is not there, so that a search may look as if it had not finished.
    """
    if told(ended) or (gone and UNFINISHED in ended.said):
        return TOLD
    if ended.code == 0 and ended.said == expected:
        return EQUAL
    return f"WRONG: exit {ended.code}, and not a word of it: {kill.last_line(ended)}"


def told(ended: Ended) -> bool:
    """Whether the command said what is the matter, in one sentence and without a traceback."""
    lines = [line for line in ended.said.splitlines() if line.startswith(("error: ", "warning: "))]
    return bool(lines) and "Traceback" not in ended.said
