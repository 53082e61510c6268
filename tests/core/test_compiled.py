"""JAX's compiled programs on disk: those that were put there, or none."""

import logging
import os
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax._src import compilation_cache as of_jax
from jax._src import lru_cache

from fnas_jax.core import compiled, devices


@pytest.fixture
def cache(tmp_path):
    return compiled.Sealed(lru_cache.LRUCache(str(tmp_path), max_size=-1), tmp_path)


def entries(folder):
    return sorted(pathlib.Path(folder).glob("*-cache"))


def test_what_was_put_is_there_and_nothing_else(tmp_path, cache):
    assert cache.get("a") is None
    cache.put("a", b"program")
    assert cache.get("a") == b"program"
    cache.put("a", b"another")  # as of a process that was faster
    assert cache.get("a") == b"another"
    assert [path.name for path in tmp_path.iterdir()] == ["sealed-a-cache"]


@pytest.mark.parametrize("kind", ["exchanged", "flipped", "cut", "empty", "without a digest"])
def test_another_content_is_told_once_removed_and_made_anew(tmp_path, cache, kind, caplog):
    keys = ("a", "b")
    for key in keys:
        cache.put(key, key.encode() * 50)
    first, second = entries(tmp_path)
    before = first.read_bytes(), second.read_bytes()
    changed = {
        "exchanged": before[::-1],
        "flipped": [content[:-1] + b"?" for content in before],
        "cut": [content[:40] for content in before],
        "empty": (b"", b""),
        "without a digest": [content[compiled.DIGEST :] for content in before],
    }
    for path, content in zip((first, second), changed[kind], strict=True):
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert [cache.get(key) for key in keys] == [None, None]
    assert len(caplog.messages) == 1 and "are damaged or others" in caplog.text
    assert "sealed-a" in caplog.text and not entries(tmp_path)
    cache.put("a", b"program")
    assert cache.get("a") == b"program"


def test_a_disk_that_takes_nothing_is_told_once_and_costs_time_alone(tmp_path, caplog, monkeypatch):
    cache = compiled.Sealed(lru_cache.LRUCache(str(tmp_path), max_size=-1), tmp_path)

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with caplog.at_level(logging.WARNING):
        cache.put("a", b"program")
        cache.put("b", b"program")
    assert len(caplog.messages) == 1 and "No space left" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_cache_that_may_grow_so_far_keeps_to_it(tmp_path):
    cache = compiled.Sealed(lru_cache.LRUCache(str(tmp_path), max_size=300), tmp_path, True)
    for key in "abc":
        cache.put(key, key.encode() * 100)
    assert len(entries(tmp_path)) == 2 and cache.get("c") == b"c" * 100
    assert cache.get("a") is None


@pytest.fixture
def of_no_process(tmp_path):
    """As if JAX had used no cache yet; yields a folder for one."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    settings = {name: getattr(jax.config, name) for name in names}
    mine = ("_cache", "_cache_initialized", "_cache_checked", "_cache_used")
    before = {name: getattr(of_jax, name) for name in mine}
    of_jax.reset_cache()
    yield tmp_path / "cache"
    for name, value in before.items():
        setattr(of_jax, name, value)
    for name, value in settings.items():
        jax.config.update(name, value)


def plus(number):
    """A compiled function that no process has compiled before, but for its cache on disk."""

    def f(x):
        return 2 * x + number

    return jax.jit(f)


def test_programs_that_were_exchanged_give_no_wrong_numbers(of_no_process, caplog):
    """JAX runs them: 2 x + 1 is 2 x + 2 then."""
    devices.enable_compilation_cache(str(of_no_process))
    x = jnp.arange(3.0)
    wanted = [[1, 3, 5], [2, 4, 6]]
    assert [plus(n)(x).tolist() for n in (1.0, 2.0)] == wanted
    first, second = (path for path in entries(of_no_process) if "jit_f" in path.name)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    with caplog.at_level(logging.WARNING):
        assert [plus(n)(x).tolist() for n in (1.0, 2.0)] == wanted
    assert "compiled programs in" in caplog.text
    # And once they are made anew, they are read again.
    times = [path.stat().st_mtime_ns for path in (first, second)]
    assert [plus(n)(x).tolist() for n in (1.0, 2.0)] == wanted
    assert [path.stat().st_mtime_ns for path in (first, second)] == times


def test_drafts_of_killed_processes_are_removed(of_no_process):
    of_no_process.mkdir(mode=0o700)
    old, new = of_no_process / ".sealed-a-cache.17", of_no_process / ".sealed-b-cache.17"
    foreign = of_no_process / ".notes.1"
    for path in (old, new, foreign):
        path.write_bytes(b"")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    devices.enable_compilation_cache(str(of_no_process))
    assert not old.exists() and new.exists() and foreign.exists()


def test_the_folder_that_was_last_asked_for_is_used_and_its_programs_have_digests(
    of_no_process, tmp_path
):
    plain, second = tmp_path / "plain", tmp_path / "second"
    jax.config.update("jax_compilation_cache_dir", str(plain))
    of_jax._initialize_cache()  # as the first compilation does
    assert not isinstance(of_jax._cache, compiled.Sealed)
    for folder in (of_no_process, second):
        devices.enable_compilation_cache(str(folder))
        cache = of_jax._cache
        assert isinstance(cache, compiled.Sealed)
        devices.enable_compilation_cache(str(folder))
        assert of_jax._cache is cache
        cache.put("a", b"program")
        assert [path.name for path in entries(folder)] == ["sealed-a-cache"]
    assert not entries(plain)


def test_what_is_not_to_be_kept_is_not_kept(of_no_process, tmp_path):
    devices.enable_compilation_cache(str(tmp_path))
    with compiled.unkept():
        jax.jit(lambda x: 3 * x + 5).lower(jnp.ones(3)).compile()
    assert not entries(tmp_path)
    jax.jit(lambda x: 3 * x + 7).lower(jnp.ones(3)).compile()
    assert len(entries(tmp_path)) == 1


def test_a_jax_whose_cache_cannot_be_checked_keeps_none(of_no_process, caplog, monkeypatch):
    monkeypatch.delattr(of_jax, "_initialize_cache")
    before = jax.config.jax_compilation_cache_dir
    with caplog.at_level(logging.WARNING):
        devices.enable_compilation_cache(str(of_no_process))
    assert "does not let its programs be checked" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before
