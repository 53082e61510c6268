"""Experiments and benchmarks name only what they change."""

import ast
import pathlib

import pytest

from fnas_jax.core import config as config_lib

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"
FILES = sorted(path for path in FOLDER.rglob("*.py") if "config." in path.read_text())
# What a file is about may be said, even where it is the default.
SAID = ("task.name", "method.name")


def assigned(path):
    """(key, value) of every `config.section.key = value` with a literal value."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Assign):
            continue
        name = ast.unparse(node.targets[0])
        if name.startswith("config.") and not any(map(str.isupper, name)):
            try:
                yield name.removeprefix("config."), ast.literal_eval(node.value)
            except ValueError:
                continue


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_number_that_is_the_product_s_default_is_not_repeated(path):
    keys = config_lib.all_keys()
    repeated = {
        name: value
        for name, value in assigned(path)
        if name in keys and name not in SAID and value == keys[name].default
    }
    assert not repeated


def test_assignments_are_found():
    found = {name for path in FILES for name, _ in assigned(path)}
    assert {"search.budget", "space.blocks", "children.batch_size"} <= found
