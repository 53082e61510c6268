"""Lower bounds stand in three files, and say the same."""

import re

import pytest

from tests.oldest import ROOT, bounds


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-cpu.txt"])
def test_requirements_have_the_bounds_of_the_package(file):
    known = bounds((ROOT / "pyproject.toml").read_text())
    lines = [line for line in (ROOT / file).read_text().splitlines() if line[0] != "#"]
    found = dict(re.sub(r"\[.*\]", "", line).lower().split(">=") for line in lines)
    assert found.items() <= known.items()
    assert {"jax", "flax", "numpy", "scipy", "tensorflow-datasets"} <= found.keys()


def test_extras_and_markers_are_read():
    text = (
        '[project]\ndependencies = ["A-b>=1.2", "c"]\n[project.optional-dependencies]\n'
        'x = ["a-b[y]>=1.2", "d>=3"]\ndev = ["pytest>=8"]\n'
    )
    assert bounds(text) == {"a-b": "1.2", "d": "3"}
