"""What a process may still take, by files as the system writes them; and what it gives back."""

import jax
import pytest

from fnas_jax.core import memory

MIB = 2**20


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def proc(tmp_path):
    files = {"meminfo": "MemTotal: 8192 kB\nMemAvailable:   4096 kB\n", "self/cgroup": "0::/a/b\n"}
    return written(tmp_path / "proc", files)


def test_without_cgroups_it_is_what_the_machine_has_free(tmp_path, proc):
    assert memory.available_bytes(tmp_path / "none", proc) == 4 * MIB


@pytest.mark.parametrize("folder", [".", "a", "a/b"])  # a container's own, a parent's, its own
def test_a_cgroup_leaves_its_limit_less_what_is_used_but_for_files(tmp_path, proc, folder):
    files = {
        f"{folder}/memory.max": f"{3 * MIB}\n",
        f"{folder}/memory.current": f"{2 * MIB}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {MIB // 2}\n",
        "a/b/c/memory.max": "1\n",  # another one's
    }
    assert memory.available_bytes(written(tmp_path / "fs", files), proc) == 3 * MIB // 2


def test_a_cgroup_of_version_1_or_without_limit(tmp_path, proc):
    (proc / "self/cgroup").write_text("5:cpu:/a\n4:memory:/a\n0::/\n")
    files = {
        "memory/a/memory.limit_in_bytes": f"{2 * MIB}\n",
        "memory/a/memory.usage_in_bytes": f"{MIB}\n",
        "memory/a/memory.stat": "total_inactive_file 7\n",
    }
    assert memory.available_bytes(written(tmp_path / "fs", files), proc) == MIB + 7
    unlimited = {"memory.max": "max\n", "memory.current": "5\n", "memory.stat": ""}
    assert memory.available_bytes(written(tmp_path / "fs2", unlimited), proc) == 4 * MIB


def test_nothing_is_left_where_more_is_used_than_allowed(tmp_path, proc):
    files = {"memory.max": "5\n", "memory.current": "9\n", "memory.stat": "inactive_file 1\n"}
    assert memory.available_bytes(written(tmp_path / "fs", files), proc) == 0


def test_memory_goes_back_after_a_long_compilation_only(monkeypatch):
    trimmed = []

    class Library:
        @staticmethod
        def malloc_trim(pad):
            trimmed.append(pad)

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Library)
    monkeypatch.setattr(memory, "_LONG", 0.0)
    memory.return_after_compiling()
    memory.return_after_compiling()
    jax.jit(lambda x: x * 3.25 + 17)(1.5).block_until_ready()
    assert trimmed and set(trimmed) == {0}
    count = len(trimmed)
    monkeypatch.setattr(memory, "_LONG", 1e9)
    jax.jit(lambda x: x * 4.25 - 23)(1.5).block_until_ready()
    assert len(trimmed) == count
