"""Settings and fixtures of all tests."""

import gc
import logging
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Tests compile thousands of small programs and hardly run them. Without optimisation, without the
# newer of XLA's two ways to write a fused loop, and in one piece, that takes half of the time.
QUICK = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": "false",
    "xla_cpu_parallel_codegen_split_count": "1",
}


def with_quick(flags):
    """`flags` and those of QUICK that they do not name: the user's own values stand.

    XLA ends a process that names a flag it does not know, so that another process tries first.
    Returns `flags` as they are where that one fails.
    """
    new = [f"--{name}={value}" for name, value in QUICK.items() if name not in flags]
    wanted = " ".join([flags, *new]).strip()
    env = os.environ | {"XLA_FLAGS": wanted, "JAX_PLATFORMS": "cpu"}
    trial = [sys.executable, "-c", "import jax; jax.devices()"]
    refused = new and subprocess.run(trial, env=env, capture_output=True, check=False).returncode
    return flags if refused else wanted


# Workers stand side by side: one thread each. Compiled programs are kept between runs and shared by
# workers, the small ones, too: these are nearly all, and reading one takes a fifth of compiling it.
# All have to be set before JAX loads, and hold for workers and the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("NPROC", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
else:
    os.environ["XLA_FLAGS"] = with_quick(os.environ.get("XLA_FLAGS", ""))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# What is traced are hundreds of thousands of small objects that stay: looking through all of them
# as often as Python does by itself takes a tenth of the time.
gc.set_threshold(200_000, 50, 50)

# Time limits would make tests depend on how busy the machine is.
settings.register_profile("fnas_jax", deadline=None, max_examples=30)
settings.load_profile("fnas_jax")


# Files of which single tests take a minute. A worker that got one at the end would be waited for.
FIRST = ("test_end_to_end.py", "test_meta_train.py", "test_compile_kernels.py")


def pytest_collection_modifyitems(items):
    """Puts `FIRST` in front; the order within files stays."""
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_report_header():
    """Says so where programs are compiled in another way than these tests take for granted."""
    missing = [name for name in QUICK if name not in os.environ["XLA_FLAGS"]]
    return f"this jaxlib refuses {', '.join(missing)}: tests take longer" if missing else None


@pytest.fixture(scope="session")
def tables_dir() -> pathlib.Path:
    """The folder of the benchmark tables: $FNAS_DATA, or ../shared/data. Skips where absent."""
    folder = pathlib.Path(os.environ.get("FNAS_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "nats_bench_tss.csv").exists():
        pytest.skip(f"the benchmark tables are not in {folder}; FNAS_DATA names their folder")
    return folder


@pytest.fixture(scope="session", autouse=True)
def programs_of_tests():
    """Searches that name no cache, and so the user's, leave that of tests in its place."""
    from fnas_jax.core import devices
    from fnas_jax.core.sections import Jax

    real = devices.enable_compilation_cache

    def enable(folder):
        if folder != Jax.cache_dir:
            real(folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "enable_compilation_cache", enable)
        yield


@pytest.fixture(autouse=True)
def restore_logging():
    """Commands send our warnings to the terminal; other tests want to see them as before."""
    ours = logging.getLogger("fnas_jax")
    # Not what was found: a fixture of a module that runs a command comes before this one.
    ours.handlers, ours.propagate = [], True
    yield
    ours.handlers, ours.propagate = [], True
