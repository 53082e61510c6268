"""The examples, as a user runs them: from an empty folder, with the installed wheel."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata

import pytest

import fnas_jax
from fnas_jax import parts, registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
LINES = 40
# What each prints, at least.
PRINTS = {
    "own_task.py": r"best: trees=\d+,depth=\w+,criterion=",
    "own_method.py": r"best: a=4,b=4,c=1\n",
    "own_space.py": r"final accuracy \d+\.\d+%.*\nreference network",
    "own_layer.py": r"flax +test accuracy \d+\.\d+%",
}


def python(interpreter, folder, *arguments):
    """The output of Python in `folder`, without this checkout on its path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [interpreter, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    return run.stdout + run.stderr


def isolation():
    """Options of `pip wheel`: no index is needed where this environment can build by itself."""
    if importlib.util.find_spec("setuptools") is None:
        return []
    version = tuple(map(int, metadata.version("setuptools").split(".")[:2]))
    alone = version >= (70, 1) or importlib.util.find_spec("wheel") is not None
    return ["--no-build-isolation"] if alone else []


def pip(*arguments):
    python(sys.executable, "/", "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An interpreter of an environment with the wheels of fnas_jax and of the plug-in.

    Everything else is that of the environment of these tests, whose own fnas_jax it does not see:
    a path in a .pth file is searched for packages, and not for further .pth files.
    """
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLES / "own_plugin", sources / "plugin", ignore=no_caches)
    for name in ("fnas_jax", "experiments"):  # a copy, because building writes beside them
        shutil.copytree(ROOT / name, sources / "whole" / name, ignore=no_caches)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / "whole")
    for name in ("whole", "plugin"):
        pip("wheel", *isolation(), "--no-deps", "-w", str(folder), str(sources / name))
    wheels = [str(path) for path in folder.glob("*.whl")]
    python(sys.executable, folder, "-m", "venv", "--without-pip", "venv")
    site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
    pip("install", "--no-deps", "--no-index", "--target", str(site), *wheels)
    (site / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    interpreter = str(folder / "venv" / "bin" / "python")
    place = python(interpreter, folder, "-c", "import fnas_jax; print(fnas_jax.__file__)")
    assert place.strip().startswith(str(site))
    return interpreter


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs_from_an_empty_folder(name, installed, tmp_path):
    shutil.copy(EXAMPLES / name, tmp_path)
    assert re.search(PRINTS[name], python(installed, tmp_path, name))
    assert list((tmp_path / "runs").glob("*/result.json"))


@pytest.mark.slow
def test_a_plug_in_is_found_by_the_names_of_its_entry_points(installed, tmp_path):
    names = ("task.name=hills", "method.name=sweep", "search.budget=16", "search.batch=4")
    more = [f"--config.{name}" for name in (*names, "log.tensorboard=False")]
    given = ["-m", "fnas_jax", "search", "--config=fnas_digits", "--workdir=w", *more]
    printed = python(installed, tmp_path, *given)
    assert "16 architectures trained" in printed and "best: x=2,y=1" in printed
    assert "written to" in python(installed, tmp_path, "-m", "fnas_jax", "report", "w")
    assert "x=2,y=1" in (tmp_path / "w" / "report.html").read_text()
    code = (
        "from fnas_jax import registry\n"
        "print(registry.find_space('grid').cardinalities)\n"
        "try: registry.find_space('grit')\n"
        "except Exception as error: print(error)\n"
    )
    found = python(installed, tmp_path, "-c", code)
    assert "(4, 4)" in found and "did you mean 'grid'" in found


def test_every_example_is_run_and_has_less_than_40_lines():
    scripts = {path.name for path in EXAMPLES.glob("*.py")}
    assert scripts == set(PRINTS)
    for path in EXAMPLES.rglob("*.*"):
        assert len(path.read_text().splitlines()) < LINES, path.name


def test_examples_bring_parts_that_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_plugin"))
    config = config_lib.default()
    for name, networks in {"own_space:space": 2 * 2 * 3, "own_layer:space": 2 * 3}.items():
        config.space.name = name
        space = registry.build_space(config)
        assert space.size == networks and space.name == "layered"
    assert registry.find_task("python:own_task:task").space.size == 4 * 4 * 2 * 2
    found = fnas_jax.search(
        task="python:own_plugin:task",
        method="own_plugin:build",
        budget=16,
        workdir="w",
        **{"search.batch": 4, "log.tensorboard": False},
    )
    assert found.best["description"]["text"] == "x=2,y=1" and found.counts["trained"] == 16


def test_a_plug_in_is_loaded_by_its_name_or_told(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES / "own_plugin"))

    def entry_points(group):
        names = {"sweep": "own_plugin:build", "broken": "own_plugin:nothing"}
        entry = parts.metadata.EntryPoint
        return [entry(n, v, group) for n, v in names.items() if group == "fnas_jax.methods"]

    monkeypatch.setattr(parts.metadata, "entry_points", entry_points)
    assert parts.find("method", "sweep", None).__name__ == "build"
    with pytest.raises(UserError, match=r"'broken', a plug-in that cannot be loaded: .*'nothing'"):
        parts.find("method", "broken", None)
    with pytest.raises(UserError, match="did you mean 'sweep'"):
        parts.find("method", "sweeep", None)
