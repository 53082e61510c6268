"""How the programs of tests are compiled."""

import os
import subprocess
import sys
import warnings

from tests import conftest


def test_flags_of_the_user_stand():
    flags = "--xla_cpu_use_fusion_emitters=true --xla_backend_optimization_level=2"
    flags += " --xla_cpu_parallel_codegen_split_count=32"
    assert conftest.with_quick(flags) == flags
    one = "--xla_backend_optimization_level=2"
    rest = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    assert conftest.with_quick(one) == f"{one} {rest}"


def test_flags_that_a_jaxlib_does_not_know_are_left_out_and_told(monkeypatch):
    monkeypatch.setattr(conftest, "QUICK", {"xla_no_such_flag": "1"})
    assert conftest.with_quick("--xla_cpu_multi_thread_eigen=false") == (
        "--xla_cpu_multi_thread_eigen=false"
    )
    assert "refuses xla_no_such_flag" in conftest.pytest_report_header()


def test_they_hold_for_workers_and_what_they_start():
    assert all(f"--{name}=" in os.environ["XLA_FLAGS"] for name in conftest.QUICK)
    assert conftest.pytest_report_header() is None


def test_small_programs_are_kept_too_and_one_that_is_being_written_is_no_error(tmp_path):
    """By a process that has no test's programs in its memory."""
    code = "import jax.numpy as jnp; print(jnp.arange(3).sum())"
    env = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)
    assert list(tmp_path.glob("*-cache"))
    # As JAX says it; the filters of pyproject.toml make errors of all other warnings.
    warnings.warn("Error reading persistent compilation cache entry for 'f': cut off", stacklevel=1)
