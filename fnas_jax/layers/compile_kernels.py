"""The kernels of csrc/, in C++ for CPUs: compiled when they are first needed, and kept.

XLA's code for depthwise convolutions, normalisation and narrow matrix products on CPUs takes
several times as long as what can be written by hand (docs/performance.md). Where no compiler is
found, children run on XLA's code, with a warning.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import io
import logging
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile

import jax
import jaxlib

from fnas_jax.core import disk, private, signals

logger = logging.getLogger(__name__)

SOURCES = pathlib.Path(__file__).parent / "csrc"
CACHE = "~/.cache/fnas_jax/kernels"
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared"),
    # What -ffast-math does, without what would lose NaN: a child that diverges has to be seen.
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)
TARGETS = ("FnasForward", "FnasBackward", "FnasEvaluate")
ABANDONED = 3600.0  # seconds after which a draft is nobody's: compilers take a minute
SYMBOLS = (*TARGETS, "FnasKeptSize", "FnasPeak", "FnasShortProducts")


def available() -> bool:
    """Whether there are kernels for this machine's CPU: there is a compiler, and they compile."""
    return _library() is not None


def kept_size(
    images: int,
    in_pixels: int,
    out_pixels: int,
    middle: int,
    cout: int,
    hidden: int,
    short: bool = False,
) -> int:
    """Floats that the widest child of a layer keeps for its backward pass, as kept.h lays them out.

    Pixels are those of an image; `middle`: channels of the depthwise convolution, 0 without;
    `hidden`: units of squeeze-excitation, 0 without; `short`: as bfloat16 numbers, of which two are
    a float. Raises OSError where there are no kernels.
    """
    library = _library()
    if library is None:
        raise OSError("there are no kernels for this CPU")
    ask = library.FnasKeptSize
    ask.argtypes, ask.restype = [ctypes.c_int64] * 7, ctypes.c_int64
    return ask(images, in_pixels, out_pixels, middle, cout, hidden, short)


def short_products() -> bool:
    """Whether this CPU has instructions for products of bfloat16 numbers (AVX512-BF16, AMX)."""
    library = _library()
    if library is None:
        return False
    ask = library.FnasShortProducts
    ask.argtypes, ask.restype = [], ctypes.c_int64
    return bool(ask())


def peak(short: bool = False) -> float:
    """Multiply-adds a second that this core does with numbers in registers, measured in a moment.

    `short`: of bfloat16 numbers. Raises OSError where there are no kernels.
    """
    library = _library()
    if library is None:
        raise OSError("there are no kernels for this CPU")
    ask = library.FnasPeak
    ask.argtypes, ask.restype = [ctypes.c_int64], ctypes.c_double
    return ask(short)


def missing() -> str:
    """Why there are no kernels, in a line; "" where there are."""
    return _library_or_reason()[1]


def _library() -> ctypes.CDLL | None:
    """The compiled kernels, registered with JAX; None, after a warning, where there are none."""
    return _library_or_reason()[0]


@functools.cache
def _library_or_reason() -> tuple[ctypes.CDLL | None, str]:
    try:
        library = _load()
    except (OSError, subprocess.SubprocessError) as error:
        signals.check()  # the compiler may have got the signal, too
        reason = _reason(error)
        logger.warning("children train on XLA's slower code: no kernels for this CPU (%s)", reason)
        return None, reason
    for name in TARGETS:
        target = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, target, platform="cpu")
    return library, ""


def _load() -> ctypes.CDLL:
    """The shared library, compiled unless a whole one is kept. Raises OSError, SubprocessError."""
    compiler = _compiler()
    sources = sorted(p for p in SOURCES.iterdir() if p.suffix in (".cc", ".h"))
    key = _key(compiler, sources)
    try:
        folder = pathlib.Path(CACHE).expanduser()
        private.folder(folder)
        for path in sorted(folder.glob(f"{key}-*.so")):
            try:
                return _opened(path)
            except OSError as error:
                logger.warning("the kernels are compiled anew: %s", error)
                path.unlink(missing_ok=True)
        return _opened(_compile(compiler, sources, key, folder))
    except (OSError, RuntimeError) as error:  # RuntimeError: ~ without a home
        logger.warning("each process compiles its kernels, which cannot be kept: %s", error)
        with tempfile.TemporaryDirectory(prefix="fnas_jax_") as own:
            return _opened(_compile(compiler, sources, key, pathlib.Path(own)))


def _key(compiler: list[str], sources: list[pathlib.Path]) -> str:
    """How the names of libraries of these sources begin, made by `compiler` for this machine.

    Its words are part of it: CXX may say for which processor.
    """
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256()
    flags = " ".join([*compiler, *FLAGS]).encode()
    for part in (version, flags, jaxlib.__version__.encode(), _processor(), *map(_read, sources)):
        digest.update(hashlib.sha256(part).digest())
    return f"kernels-{digest.hexdigest()[:16]}"


def _compile(
    compiler: list[str], sources: list[pathlib.Path], key: str, folder: pathlib.Path
) -> pathlib.Path:
    """The library in `folder`, whose name ends with its digest. Raises OSError, SubprocessError.

    Other processes may do the same: each has a whole file under its name, or none.
    """
    for left in folder.glob("*.draft"):  # by processes that were killed
        if disk.age(left) > ABANDONED:
            left.unlink(missing_ok=True)
    handle, draft = tempfile.mkstemp(suffix=".draft", dir=folder)
    os.close(handle)
    try:
        files = [str(p) for p in sources if p.suffix == ".cc"]
        include = f"-I{jax.ffi.include_dir()}"
        command = [*compiler, *FLAGS, "-w", include, "-o", draft, *files]
        subprocess.run(command, capture_output=True, check=True)
        os.chmod(draft, 0o700)  # compilers set the mode by the umask
        with open(draft, "rb") as file:
            path = folder / f"{key}-{_digest(file)}.so"
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        pathlib.Path(draft).unlink(missing_ok=True)
    return path


def _opened(path: pathlib.Path) -> ctypes.CDLL:
    """The library at `path`, where it is whole and nobody else's.

    What was cut off would end the process with SIGBUS when it is loaded, so that this is found out
    before. Raises OSError.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with open(handle, "rb") as file:
        private.check(os.fstat(handle), path)
        if not path.stem.endswith(f"-{_digest(file)}"):
            raise OSError(f"{path} is damaged")
    library = ctypes.CDLL(str(path))
    lacking = [name for name in SYMBOLS if not hasattr(library, name)]
    if lacking:
        raise OSError(f"{path} has no {lacking[0]}")
    return library


def _digest(file: io.BufferedReader) -> str:
    """32 hexadecimal digits of what an open file holds."""
    return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _compiler() -> list[str]:
    """The command of a C++ compiler. Raises OSError where there is none."""
    for name in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        try:
            words = shlex.split(name)
        except ValueError as error:
            raise OSError(f"CXX is {name!r}: {error}") from error
        if words and shutil.which(words[0]):
            return words
    raise OSError("no C++ compiler was found; g++ or clang++ would do")


def _processor() -> bytes:
    """What tells processors with other instructions apart."""
    text = platform.machine() + platform.processor() + sys.platform
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        text += next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        pass
    return text.encode()


def _read(path: pathlib.Path) -> bytes:
    return path.read_bytes()


def _reason(error: Exception) -> str:
    """One line on why the library could not be made."""
    if isinstance(error, subprocess.CalledProcessError):
        lines = error.stderr.decode(errors="replace").strip().splitlines()
        return f"{error.cmd[0]} failed: {next((x for x in lines if 'error' in x), '')[:200]}"
    return str(error).splitlines()[0][:200]
