"""Image files to pixels: what is read, and how transparency and depths become numbers."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from fnas_jax.core.types import UserError
from fnas_jax.tasks.readers.examples import reason

# Pillow's names of what is read, told by a file's content and not by its name. Left out are those
# that start other programs (EPS), that are documents (PDF, PSD), that any bytes could be (TGA), or
# of which Pillow gives 8 of 16 bits without a sign of it (SGI). PPM is PGM, PBM and PNM, too.
FORMATS = (
    *("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF"),
    *("ICO", "PCX", "QOI"),
)
# A few kilobytes may say that they are any number of pixels, all of which decoding allocates. This
# is where Pillow begins to warn: 256 MiB of coloured pixels.
MOST_PIXELS = 2**28 // 3
ALPHAS = ("white", "black", "keep")  # what may become of transparency: `Files.alpha`
_GREY = {"1", "L", "LA", "La"}
_DEEP = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # grey of 16 bits; "I" also of 32
_CLEAR = {"LA", "La", "PA", "RGBA", "RGBa"}
_TO_RGBA = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa"}  # modes that Pillow converts to that
_FULL = {8: 255, 16: 65535}  # white
# Bad files raise any of these: SyntaxError comes from Pillow's PNG plug-in, and MemoryError where
# a part of a file says that it is longer than any file.
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


NoImage = UnidentifiedImageError  # one of these: a file of something else


class Files(NamedTuple):
    """How image files become the pixels of a set, but for their size.

    `alpha` "white" and "black": what transparency is composited on; "keep": it is one channel more,
    the last one. "drop" is for networks of versions that ignored it.

    `bits`: 8, pixels are uint8, and deeper ones are rounded to that; 16: float32 from 0 to 65535,
    and shallower ones are stretched to that; 0: float32 of the numbers as they are stored.
    """

    alpha: str = "white"
    bits: int = 8


EIGHT_ON_WHITE = Files()


class Header(NamedTuple):
    """What a file says about its image before it is decoded."""

    grey: bool
    deep: bool  # grey of more than 8 bits
    cut: bool  # colours of more than 8 bits, of which Pillow gives the upper 8
    alpha: bool  # it has transparency, or could have
    frames: bool  # more images than one: the first is read, or the largest of an ICO file
    size: tuple[int, int]  # height and width in pixels, as stored: EXIF may turn it


def check(alpha: str) -> None:
    """Raises UserError unless `alpha` is one of `ALPHAS`."""
    if alpha not in ALPHAS:
        raise UserError(f"task.alpha is {alpha!r}; it takes {', '.join(ALPHAS)}")


def header(file: Path | IO[bytes]) -> Header:
    """The header of an image. Raises one of UNREADABLE for what is none, or cannot be read."""
    with opened(file) as image:
        mode, (width, height) = image.mode, image.size
        if mode == "F":
            raise ValueError("its pixels are fractions, of which no scale is known")
        # Telephones keep depth maps and the like behind the photograph, in MPO.
        animated = bool(getattr(image, "is_animated", False))
        sizes = image.info.get("sizes", ()) if image.format == "ICO" else ()
        frames = image.format != "MPO" and (animated or len(sizes) > 1)
        deep = mode in _DEEP
        cut = not deep and any(";16" in str(tile[3]) for tile in image.tile or ())
        return Header(mode in _GREY or deep, deep, cut, _has_alpha(image), frames, (height, width))


def files_of(headers: Iterable[Header], alpha: str) -> tuple[str, Files]:
    """("L" or "RGB", how to read) of a set: grey where all are, then of 16 bits where one is."""
    grey, deep = True, False
    for one in headers:
        grey, deep = grey and one.grey, deep or one.deep
    return ("L" if grey else "RGB"), Files(alpha, 16 if grey and deep else 8)


def read_image(file: Path | IO[bytes], mode: str, files: Files = EIGHT_ON_WHITE) -> np.ndarray:
    """[H, W, C], upright, of the first frame: uint8, or float32 where `files.bits` is not 8.

    `mode` is "L" for grey, of one channel, or "RGB", of three; `files.alpha` "keep" adds one.
    Raises UserError.
    """
    try:
        return pixels_of(file, mode, files)
    except NoImage:
        raise UserError(
            f"{file} cannot be read as an image: it is none by its content ({', '.join(FORMATS)})"
        ) from None
    except UNREADABLE as error:
        raise UserError(f"{file} cannot be read as an image: {reason(error)}") from None


def pixels_of(file: Path | IO[bytes], mode: str, files: Files) -> np.ndarray:
    """As `read_image`. Raises one of UNREADABLE."""
    with opened(file) as image:
        return _decode(image, mode, files)


def opened(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    """An image of one of FORMATS and of no more than `MOST_PIXELS`, of which the header is read.

    Raises one of UNREADABLE for any other.
    """
    image = Image.open(file, formats=_formats())
    width, height = image.size
    if width * height > MOST_PIXELS:
        image.close()
        raise ValueError(
            f"it says that it has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}"
        )
    return image


def _decode(image: Image.Image, mode: str, files: Files) -> np.ndarray:
    image = ImageOps.exif_transpose(image)
    if image.mode not in _DEEP:
        pixels = _shallow(image, mode, files.alpha)
        scale = 257 if files.bits == 16 else 1
        return pixels if files.bits == 8 else scale * pixels.astype(np.float32)
    values = np.asarray(image)
    if values.min() < 0 or values.max() > _FULL[16]:
        raise ValueError(f"its pixels reach from {values.min()} to {values.max()}, beyond 16 bits")
    clear = image.info.get("transparency")
    opaque = np.ones(values.shape, bool) if not isinstance(clear, int) else values != clear
    if files.alpha in ("white", "black"):
        values = np.where(opaque, values, _FULL[16] * (files.alpha == "white"))
    if files.bits == 8:
        grey = Image.fromarray(np.round(values / 257).astype(np.uint8))
        pixels, full = _with_axis(np.asarray(grey.convert(mode))), _FULL[8]
    else:
        pixels, full = values[..., None].astype(np.float32), _FULL[16]
        pixels = np.repeat(pixels, {"L": 1, "RGB": 3}[mode], axis=-1)
    if files.alpha != "keep":
        return pixels
    return np.concatenate([pixels, (full * opaque[..., None]).astype(pixels.dtype)], axis=-1)


def _shallow(image: Image.Image, mode: str, alpha: str) -> np.ndarray:
    """[H, W, C] uint8 of an image of 8 bits."""
    image = image.convert("LA") if image.mode == "La" else image
    if image.mode not in _TO_RGBA:
        image = image.convert("RGB")
    if alpha == "keep":
        return np.asarray(image.convert("RGBA").convert({"L": "LA", "RGB": "RGBA"}[mode]))
    if alpha != "drop" and _has_alpha(image):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, alpha), image)
    return _with_axis(np.asarray(image.convert(mode)))


def _has_alpha(image: Image.Image) -> bool:
    palette: Any = getattr(image, "palette", None)
    clear = "transparency" in image.info or getattr(palette, "mode", "").endswith("A")
    return clear or image.mode in _CLEAR


def _with_axis(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., None] if pixels.ndim == 2 else pixels


@functools.cache
def suffixes() -> frozenset[str]:
    """Of files that are images by their names, e.g. ".png"."""
    Image.init()
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in FORMATS)


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those of FORMATS that this build of Pillow has."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
