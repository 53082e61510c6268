import logging
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import devices


def test_the_mesh_has_one_axis_over_all_local_devices():
    mesh = devices.children_mesh()
    assert mesh.shape == {"children": jax.local_device_count()}
    assert list(mesh.devices) == jax.local_devices()


@pytest.mark.parametrize(("n", "size", "padded"), [(1, 1, 1), (5, 2, 6), (6, 3, 6), (1, 4, 4)])
def test_batches_are_padded_to_a_multiple_of_the_devices(n, size, padded):
    class Mesh:
        shape = {"children": size}  # noqa: RUF012

    assert devices.padded_size(n, Mesh()) == padded


@pytest.fixture
def cache_settings():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_settings")
def test_the_compilation_cache_goes_where_it_is_told(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    devices.enable_compilation_cache("")
    assert jax.config.jax_compilation_cache_dir == before
    devices.enable_compilation_cache(str(tmp_path / "a" / "b"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.usefixtures("cache_settings")
def test_a_cache_folder_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    before = jax.config.jax_compilation_cache_dir
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        devices.enable_compilation_cache(str(tmp_path / "file" / "cache"))
    assert "no compilation cache" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before


def test_clock_keeps_compilation_apart_and_goes_on_after_a_resume():
    from fnas_jax.core.clock import PARTS, SHOWN, Clock

    first = Clock()
    with first.part("children"):
        value = jax.jit(lambda x: x * 3 + np.random.default_rng(0).integers(1 << 30))(1.0)
        jax.block_until_ready(value)
    with first.part("disk"):
        pass
    spent = first.seconds()
    first.close()
    assert set(spent) == set(SHOWN) and set(first.kept()) == set(PARTS)
    assert spent["compile"] > 0
    assert spent["total"] >= spent["children"] + spent["method"]
    second = Clock()
    second.resume(spent)
    later = second.seconds()
    second.close()
    assert all(later[name] >= spent[name] for name in SHOWN)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=40), st.integers(1, 6))
def test_balancing_permutes_the_children_and_no_device_is_far_behind(costs, devices_):
    class Mesh:
        shape = {"children": devices_}  # noqa: RUF012

    costs = np.asarray(costs + [0.0] * (-len(costs) % devices_))
    order = devices.balanced(costs, Mesh())
    assert sorted(order) == list(range(len(costs)))
    loads = costs[order].reshape(devices_, -1).sum(axis=1)
    assert loads.max() <= costs.sum() / devices_ + costs.max() * (1 + 1e-9)


def test_costs_of_two_kinds_are_dealt_evenly():
    class Mesh:
        shape = {"children": 2}  # noqa: RUF012

    order = devices.balanced(np.array([9.0, 9.0, 1.0, 1.0]), Mesh())
    np.testing.assert_array_equal(np.sort(order.reshape(2, 2) < 2, axis=1), [[False, True]] * 2)


def test_each_core_is_a_device_unless_told_otherwise():
    code = (
        "import os; os.sched_getaffinity = lambda _: range(3);"
        "from fnas_jax.core import devices; devices.use_all_cores();"
        "import jax; print(jax.device_count()); devices.use_all_cores()"
    )
    for flags, count in (("", "3"), ("--xla_force_host_platform_device_count=2", "2")):
        env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == count


def test_a_mesh_has_no_more_devices_than_children():
    assert devices.children_mesh(most=1).devices.tolist() == jax.devices()[:1]


@pytest.mark.usefixtures("cache_settings")
def test_a_cache_folder_that_others_may_write_is_not_used(tmp_path, caplog):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    before = jax.config.jax_compilation_cache_dir
    with caplog.at_level(logging.WARNING, "fnas_jax"):
        devices.enable_compilation_cache(str(tmp_path / "cache"))
    assert "others may write to" in caplog.text
    assert jax.config.jax_compilation_cache_dir == before
    # People link caches to larger disks.
    (tmp_path / "cache").chmod(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    devices.enable_compilation_cache(str(tmp_path / "link"))
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "link")
