"""Reader of a folder of image files, one sub-folder per class.

`ROOT/CLASS/..`, at any depth below the class, or the same under `ROOT/train`, `ROOT/val` and
`ROOT/test`. What is an image is told by its content (`decode.FORMATS`). Hidden files and those of
operating systems are skipped; all that is left out is counted in the notes of the `Source`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnas_jax.core import stages
from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers import decode, parallel
from fnas_jax.tasks.readers.decode import Files, Header
from fnas_jax.tasks.readers.examples import (
    PART_NAMES,
    Example,
    Note,
    Part,
    Source,
    Tally,
    collect,
    reason,
    since,
    source_of,
)
from fnas_jax.tasks.readers.tree import UP, elsewhere, leads_up, visible, walk

_LAYOUT = "FOLDER/CLASS/IMAGE is needed, or FOLDER/train/CLASS/IMAGE with FOLDER/test (and val)"


class Found(NamedTuple):
    """An image file, known by its header."""

    path: Path
    class_name: str
    header: Header


def read_folder(root: Path, image_size: int, alpha: str = Files().alpha) -> Source:
    """Reads every image: [H, W, 1] where all are grey, else [H, W, 3].

    One channel more with `alpha` "keep". uint8, or float32 from 0 to 65535 where all are grey and
    some have 16 bits. Classes are numbered in alphabetical order of their folders' names.

    Raises:
      UserError: no such folder, no classes, no readable image, images of different size with
        `image_size` 0, or a class in val/ or test/ that train/ lacks.
    """
    if not root.is_dir():
        raise UserError(f"There is no folder {root.absolute()}.")
    left = Tally()  # what is left out
    folders = _part_folders(root, left)
    found = {part: _scan(folder, root, left) for part, folder in folders.items()}
    names = tuple(sorted({one.class_name for one in found["train"]}))
    _check_classes(root, folders, found, names, left)
    everything = [one for rows in found.values() for one in rows]
    if not image_size:
        _check_sizes(everything, root)
    mode, files = decode.files_of((one.header for one in everything), alpha)
    parts: dict[str, Part] = {}
    for part, rows in found.items():
        examples = _read(rows, names, mode, files, root, left)
        parts[part] = collect(examples, image_size, str(folders[part]), left, len(rows))
    notes = (*left_out(left), *linked(root, everything), *told(everything, mode, files))
    return source_of(parts, names, notes, files.bits)


def header_of(path: Path, left: Tally) -> Header | None:
    """The header of an image; None, and counted in `left` by its kind, for any other file."""
    if not path.is_file():  # a broken link, a socket, ..
        left.add("what is no file", path)
        return None
    try:
        return decode.header(path)
    except decode.UNREADABLE as error:
        left.add(path.suffix.lower() or "file without suffix", path, _why(error, path))
        return None


def linked(root: Path, found: Iterable[Found]) -> list[Note]:
    """A line about images that lie elsewhere, and are here by links, as people have large sets."""
    paths = elsewhere(root, (one.path for one in found))
    if not paths:
        return []
    example = f"{paths[0]} is {paths[0].resolve()}"
    return [Note(f"{len(paths)} images are links that lead out of {root} ({example})", loud=False)]


def told(found: Iterable[Found], mode: str, files: Files) -> list[Note]:
    """What is not as it seems in how the images of a set are read."""
    headers = [(one.path, one.header) for one in found]
    kinds = {
        f"with transparency, {_of_alpha(files.alpha)}": [p for p, h in headers if h.alpha],
        "of several frames, pages or sizes, of which one is read": [
            p for p, h in headers if h.frames
        ],
        "of 16 bits in colour, read at 8": [p for p, h in headers if h.cut],
        f"of 16 bits in grey, {_of_depth(files)}": [p for p, h in headers if h.deep],
    }
    if mode == "RGB":
        kinds["in grey, made colour beside others"] = [p for p, h in headers if h.grey]
    return [
        Note(
            f"{len(paths)} of {len(headers)} images are {kind} (as {paths[0]})",
            loud=kind.startswith("of 16 bits") and files.bits == 8,
        )
        for kind, paths in kinds.items()
        if paths
    ]


def _of_alpha(alpha: str) -> str:
    if alpha == "keep":
        return "which is a channel of its own (task.alpha)"
    return f"composited on {alpha} (task.alpha)"


def _of_depth(files: Files) -> str:
    if files.bits == 16:
        return "so all are numbers from 0 to 65535, others stretched to that"
    return "read at 8, because others have colours"


def _part_folders(root: Path, left: Tally) -> dict[str, Path]:
    """The folder of each part; 'train' is always among them."""
    inside = {p.name.lower(): p for p in sorted(root.iterdir()) if _is_folder(p)}
    parts: dict[str, Path] = {}
    for part, spellings in PART_NAMES.items():
        present = [inside[name] for name in spellings if name in inside]
        if present:
            parts[part] = present[0]
    # A class that happens to be called "train" is told apart by holding images itself.
    if "train" not in parts or any(_is_image(p) for p in sorted(parts["train"].iterdir())):
        return {"train": root}
    for place in sorted(root.iterdir()):
        if not visible(place.name):
            left.add("hidden", place)
        elif leads_up(place):
            left.add(UP, place)
        elif place.is_dir() and place not in parts.values():
            left.add("folder beside train", place)
        elif place.is_file() and header_of(place, left) is not None:
            left.add("image in no class folder", place)
    return parts


def _is_folder(path: Path) -> bool:
    return path.is_dir() and visible(path.name) and not leads_up(path)


def _is_image(path: Path) -> bool:
    return path.is_file() and visible(path.name) and header_of(path, Tally()) is not None


def _scan(folder: Path, root: Path, left: Tally) -> list[Found]:
    """The images in the class folders of `folder`, in order."""
    found: list[Found] = []
    for place in sorted(folder.iterdir()):
        if not visible(place.name):
            left.add("hidden", place)
        elif leads_up(place):
            left.add(UP, place)
        elif place.is_dir():
            before = len(found)
            for path in walk(place, left):
                header = header_of(path, left)
                if header is not None:
                    found.append(Found(path, place.name, header))
                    stages.counted(len(found), 0, f"images found in {folder}")
            if len(found) == before:
                left.add("folder without images", place)
        elif header_of(place, left) is not None:
            left.add("image in no class folder", place)
    return found


def _check_classes(
    root: Path,
    folders: dict[str, Path],
    found: dict[str, list[Found]],
    names: tuple[str, ...],
    left: Tally,
) -> None:
    """Raises UserError unless there are classes, and those of all parts are of the training set."""
    if not names:
        place = folders["train"].absolute()
        loose = left.count("image in no class folder")
        holds = f"{loose} images, but no sub-folder" if loose else "no sub-folder with images"
        raise UserError(
            f"{place} holds {holds}: one sub-folder per class is needed. {_LAYOUT}{since(left)}."
        )
    spellings = {name for group in PART_NAMES.values() for name in group}
    if folders["train"] == root and {name.lower() for name in names} <= spellings - {"train"}:
        raise UserError(
            f"{root.absolute()} holds {' and '.join(names)} and no train: a folder of classes, or"
            f" of parts with train among them, is needed. {_LAYOUT}."
        )
    only = folders["train"] / names[0]
    if len(names) == 1 and sum(p.is_dir() for p in only.iterdir()) > 1:
        raise UserError(
            f"{folders['train'].absolute()} has one class only ({names[0]}): two are needed. Its"
            f" sub-folders may be the classes: {only.absolute()} is then the folder to give."
        )
    for part, rows in found.items():
        unknown = sorted({one.class_name for one in rows} - set(names))
        if unknown:
            raise UserError(
                f"{folders[part] / unknown[0]} is a class that the training images lack; known are:"
                f" {', '.join(names)}."
            )


def _check_sizes(found: list[Found], root: Path) -> None:
    """Seen now rather than after an hour of decoding. EXIF may still turn an image."""
    first = found[0]
    for one in found:
        if sorted(one.header.size) != sorted(first.header.size):
            raise UserError(
                f"The images of {root} differ in size ({first.path} is {_wide(first.header)},"
                f" {one.path} is {_wide(one.header)}): set task.image_size to resize them to one"
                " square."
            )


def _wide(header: Header) -> str:
    return f"{header.size[1]}x{header.size[0]}"


def _read(
    found: list[Found],
    names: tuple[str, ...],
    mode: str,
    files: Files,
    root: Path,
    left: Tally,
) -> Iterator[Example]:
    """The examples; those that turn out to be damaged are counted in `left`."""
    number_of = {name: i for i, name in enumerate(names)}
    decoded = parallel.in_order(
        functools.partial(_pixels, mode, files), (one.path for one in found)
    )
    for (path, class_name, _), image in zip(found, decoded, strict=True):
        if isinstance(image, BaseException):
            left.add(f"damaged {path.suffix.lower()}", path, _why(image, path))
            continue
        yield Example(str(path.relative_to(root)), image, number_of[class_name])


def _pixels(mode: str, files: Files, path: Path) -> np.ndarray | BaseException:
    """An image, or why it cannot be decoded."""
    try:
        with path.open("rb") as file:
            return decode.pixels_of(file, mode, files)
    except decode.UNREADABLE as error:
        return error


def _why(error: BaseException, path: Path) -> str:
    """Nothing for a file that is no image by its name and by its content."""
    if isinstance(error, decode.NoImage) and path.suffix.lower() not in decode.suffixes():
        return ""
    return "no image by its content" if isinstance(error, decode.NoImage) else reason(error)


def left_out(left: Tally) -> list[Note]:
    """A line of what users do not expect to be left out, and one of hidden files."""
    hidden, rest = left.divided("hidden")
    notes = [Note(f"left out: {rest}")] if rest else []
    return notes + ([Note(f"skipped: {hidden}", loud=False)] if hidden else [])
