"""Look-up tables of latencies on disk: JSON that any machine reads, made on the one it is about."""

from __future__ import annotations

import logging
import math
import pathlib
import tempfile
from importlib import metadata
from typing import Any, NamedTuple

from fnas_jax.core import devices, disk, identity, jsons, workdir
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)
# 1: weights were arguments of what was timed, which then took up to half as long again.
FORMAT = 2


class Table(NamedTuple):
    """Milliseconds of a pass of a batch: `fixed_ms` and those of a network's operations, in sum."""

    space: dict[str, str]  # "name" and "key" of the space that it is for
    image: tuple[int, int, int]  # height, width, channels
    classes: int
    batch_size: int  # images of a pass
    device: str  # `devices.describe()` where it was made
    versions: dict[str, str]
    fixed_ms: float
    operations_ms: dict[str, float]  # by `Unit.key`
    made: dict[str, Any]  # how
    validation: dict[str, Any]  # `fit.Quality` on networks that it was not made with, and these

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of all that predictions depend on, and of the device."""
        names = ("space", "image", "classes", "batch_size", "device", "fixed_ms", "operations_ms")
        return identity.digest(identity.text({name: getattr(self, name) for name in names}))


def try_out(path: pathlib.Path) -> None:
    """Raises UserError where `write` could not write `path`, before there is a table to lose."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise disk.unusable(f"{str(path)!r} cannot be written", error) from None


def write(path: pathlib.Path, table: Table) -> None:
    """Writes the file. Raises UserError where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"format": FORMAT, **table._asdict()})
    except OSError as error:
        raise disk.unusable(f"{str(path)!r} cannot be written", error) from None


def read(path: str) -> Table:
    """The table of a file. Raises UserError where it is missing, damaged or of another version."""
    try:
        content = jsons.parse(pathlib.Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        place = str(pathlib.Path(path).expanduser().absolute())
        raise UserError(f"the table of latencies {place!r} cannot be read: {reason}") from None
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        what = "no table of latencies" if version is None else f"a table of format {version}"
        raise UserError(
            f"{path!r} is {what}; fnas-jax latency --out=FILE writes one of format {FORMAT}"
        )
    try:
        found = Table(**{name: content[name] for name in Table._fields})
        rows = {str(key): float(ms) for key, ms in found.operations_ms.items()}
        found = found._replace(
            image=tuple(map(int, found.image)),  # type: ignore[arg-type]
            fixed_ms=float(found.fixed_ms),
            operations_ms=rows,
        )
        whole = len(found.image) == 3 and {"name", "key"} <= found.space.keys()
        for name, kind in (("classes", int), ("batch_size", int), ("device", str)):
            if not jsons.fits(content[name], kind):
                raise TypeError(f"{name} is {content[name]!r}")
        if not all(isinstance(part, str) for part in found.space.values()):
            raise TypeError(f"space is {found.space!r}")
        if not isinstance(found.versions, dict):
            raise TypeError(f"versions is {found.versions!r}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"the table of latencies {path!r} is damaged: {error!r}") from error
    bad = [ms for ms in (found.fixed_ms, *rows.values()) if not (math.isfinite(ms) and ms >= 0)]
    if bad or not whole:
        raise UserError(f"the table of latencies {path!r} is damaged: {bad[:1] or found.space}")
    return found


def check(
    table: Table, path: str, space: Space, image: tuple[int, int, int], classes: int, batch: int
) -> None:
    """Raises UserError where the table is for other networks, or other batches of images.

    Warns where it was made with another JAX, whose programs may take another time.
    """
    if table.space["key"] != space.key:
        raise UserError(
            f"the table of latencies {path!r} is for another space, {table.space['name']}"
            f" {table.space['key']}; this one is {space.name} {space.key}"
        )
    for name, there, here in (
        ("images of height, width and channels", table.image, image),
        ("classes, in number", table.classes, classes),
        ("images of a pass, in number (latency.batch_size)", table.batch_size, batch),
    ):
        if there != here:
            raise UserError(
                f"the table of latencies {path!r} is for other {name}: {there}; here {here}"
            )
    now = metadata.version("jax")
    if table.versions.get("jax") != now:
        LOG.warning(
            "the table of latencies %s was made with JAX %s, and this is %s",
            *(path, table.versions.get("jax"), now),
        )


def here(space: Space, image: tuple[int, int, int], classes: int, batch: int) -> dict[str, Any]:
    """The fields of a table that say what it is for and where it is made, here."""
    return {
        "space": {"name": space.name, "key": space.key},
        "image": image,
        "classes": classes,
        "batch_size": batch,
        "device": devices.describe(),
        "versions": workdir.versions(),
    }
