"""How the kernels come to be: compiled once, kept where nobody else may write, and checked."""

import logging
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import pytest

from fnas_jax.layers import compile_kernels

# A library of nothing but the names that the kernels have.
SOURCE = "".join(f'extern "C" int {name}() {{ return 1; }}' for name in compile_kernels.SYMBOLS)
HAS_COMPILER = any(map(shutil.which, ("c++", "g++", "clang++")))


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """The kernels as in a process that has none, compiled in folders of their own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(compile_kernels, "CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compile_kernels.tempfile, "tempdir", str(tmp_path / "tmp"))
    compile_kernels._library_or_reason.cache_clear()
    yield tmp_path
    compile_kernels._library_or_reason.cache_clear()


@pytest.fixture
def small(anew, monkeypatch):
    """As `anew`, with kernels that do nothing and take no time to compile."""
    if not HAS_COMPILER:
        pytest.skip("no C++ compiler")
    (anew / "csrc").mkdir()
    (anew / "csrc" / "a.cc").write_text(SOURCE)
    monkeypatch.setattr(compile_kernels, "SOURCES", anew / "csrc")
    monkeypatch.setattr(compile_kernels, "FLAGS", ("-fPIC", "-shared"))
    monkeypatch.setattr(compile_kernels.jax.ffi, "pycapsule", lambda pointer: pointer)
    monkeypatch.setattr(compile_kernels.jax.ffi, "register_ffi_target", lambda *a, **k: None)
    return anew


def kept(folder):
    """The one file that is kept."""
    (found,) = (folder / "cache").iterdir()
    return found


def spoiled(path, spoil):
    """Has `spoil` change a copy, because this process has loaded what is there."""
    copy = path.with_suffix(".copy")
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o700)
    copy.replace(path)
    spoil(path)


def test_without_a_compiler_a_warning_says_so(anew, monkeypatch, caplog):
    monkeypatch.setattr(compile_kernels.shutil, "which", lambda name: None)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert not compile_kernels.available()
    assert "no C++ compiler was found" in caplog.text
    assert compile_kernels.missing() == "no C++ compiler was found; g++ or clang++ would do"


@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
def test_a_compiler_that_fails_leaves_nothing_and_is_a_warning(anew, monkeypatch, caplog):
    monkeypatch.setattr(compile_kernels, "FLAGS", ("--no-such-flag",))
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert not compile_kernels.available()
    assert "no-such-flag" in caplog.text
    assert list((anew / "cache").iterdir()) == []


def test_without_kernels_there_is_no_size_of_what_they_keep(anew, monkeypatch):
    monkeypatch.setattr(compile_kernels.shutil, "which", lambda name: None)
    with pytest.raises(OSError, match="no kernels"):
        compile_kernels.kept_size(1, 16, 16, 0, 8, 0)


def test_kernels_are_compiled_once_for_their_user_alone(small, monkeypatch):
    before = os.umask(0o002)
    try:
        compile_kernels._load()
    finally:
        os.umask(before)
    first = kept(small)
    made = [path.stat().st_mode & 0o777 for path in (first, first.parent)]
    assert made == [0o700, 0o700]

    def compile_(*arguments):
        raise AssertionError("compiled again")

    monkeypatch.setattr(compile_kernels, "_compile", compile_)
    assert compile_kernels._load().FnasForward() == 1
    assert kept(small) == first


def test_what_killed_compilers_have_left_goes(small):
    cache = small / "cache"
    cache.mkdir(mode=0o700)
    for name, age in (("old.draft", 4000), ("new.draft", 10)):
        (cache / name).touch()
        os.utime(cache / name, (time.time() - age,) * 2)
    compile_kernels._load()
    assert {path.suffix for path in cache.iterdir()} == {".so", ".draft"}
    assert not (cache / "old.draft").exists()


def cut_off(path):
    path.write_bytes(path.read_bytes()[:5000])


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    """A whole library that is another one's, under a name that says it is whole."""
    source = path.with_suffix(".cc")
    source.write_text("int other() { return 0; }")
    subprocess.run(["c++", "-shared", "-fPIC", "-o", path, source], check=True)
    source.unlink()
    _named_as_whole(path)


def no_library(path):
    path.write_bytes(b"no library")
    _named_as_whole(path)


def writable(path):
    path.chmod(0o722)


def a_link(path):
    target = path.parent.parent / "elsewhere.so"
    path.rename(target)
    path.symlink_to(target)


def _named_as_whole(path):
    with path.open("rb") as file:
        digest = compile_kernels._digest(file)
    path.chmod(0o700)
    path.rename(path.with_name(f"{path.stem.rpartition('-')[0]}-{digest}.so"))


@pytest.mark.parametrize(
    "spoil", [cut_off, empty, foreign, no_library, writable, a_link], ids=lambda f: f.__name__
)
def test_what_is_no_library_of_ours_is_told_and_compiled_anew(small, spoil, caplog):
    compile_kernels._load()
    spoiled(kept(small), spoil)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert compile_kernels.available()
    assert caplog.text.count("the kernels are compiled anew") == 1
    caplog.clear()
    compile_kernels._library_or_reason.cache_clear()
    assert compile_kernels.available() and not caplog.text
    assert kept(small).stat().st_mode & 0o777 == 0o700


def refused_folder(folder, monkeypatch):
    folder.mkdir()
    folder.chmod(0o777)
    return "others may write to"


def a_link_to_a_folder(folder, monkeypatch):
    target = folder.with_name("target")
    target.mkdir(mode=0o700)
    folder.symlink_to(target)
    return "is a symbolic link"


def anothers_folder(folder, monkeypatch):
    folder.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    return "belongs to another user"


def below_a_file(folder, monkeypatch):
    folder.with_name("file").write_text("")
    monkeypatch.setattr(compile_kernels, "CACHE", str(folder.with_name("file") / "cache"))
    return "Not a directory"


@pytest.mark.parametrize(
    "case", [refused_folder, a_link_to_a_folder, below_a_file], ids=lambda f: f.__name__
)
def test_a_folder_that_others_may_write_is_not_used(small, case, monkeypatch, caplog):
    reason = case(small / "cache", monkeypatch)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert compile_kernels.available()
    assert caplog.text.count("each process compiles its kernels") == 1
    assert reason in caplog.text
    # What such a process compiles for itself is gone once it is loaded.
    assert not list(small.rglob("*.so")) and not list((small / "tmp").iterdir())


def test_what_another_user_owns_is_not_loaded(small, monkeypatch, caplog):
    anothers_folder(small / "cache", monkeypatch)
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        assert not compile_kernels.available()  # here, so is what is compiled
    assert "cache belongs to another user" in caplog.text


def test_what_is_written_is_on_disk_before_it_has_its_name(small, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), replace(a, b)))
    compile_kernels._load()
    assert order == ["sync", "name"]
    assert pathlib.Path(kept(small)).suffix == ".so"


@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
@pytest.mark.skipif(not compile_kernels.available(), reason="no kernels for this CPU")
def test_products_of_bfloat16_are_there_where_the_compiler_has_them():
    command = [*compile_kernels._compiler(), *compile_kernels.FLAGS, "-dM", "-E", "-x", "c++", "-"]
    macros = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    assert compile_kernels.short_products() == ("__AVX512BF16__" in macros)


@pytest.mark.skipif(not compile_kernels.available(), reason="no kernels for this CPU")
def test_the_roof_is_what_a_core_can_do():
    assert all(1e8 < compile_kernels.peak(short) < 1e13 for short in (False, True))


@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
def test_another_command_of_the_compiler_makes_another_library():
    compiler, sources = compile_kernels._compiler(), [pathlib.Path(__file__)]
    keys = {compile_kernels._key([*compiler, *more], sources) for more in ([], ["-O1"])}
    assert len(keys) == 2


@pytest.mark.slow
@pytest.mark.skipif(not HAS_COMPILER, reason="no C++ compiler")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86_64")
@pytest.mark.parametrize(
    "without", ["-mno-amx-bf16", "-mno-avx512bf16", "-mno-avx512f", "-mno-avx"]
)
def test_the_code_for_other_cpus_computes_the_same(without, tmp_path):
    """What this CPU has is left out. The user's own folder of kernels stays as it is."""
    compiler = " ".join(compile_kernels._compiler())
    env = {**os.environ, "CXX": f"{compiler} {without}", "HOME": str(tmp_path)}
    tests = str(pathlib.Path(__file__).parent / "test_kernels.py")
    names = "layers_are_those_of_xla or rounding or exact or number"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow", "-k", names]
    found = subprocess.run([*command, tests], env=env, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stdout[-3000:]
    assert " passed" in found.stdout and "skipped" not in found.stdout
    assert list(tmp_path.glob(".cache/fnas_jax/kernels/*.so"))
