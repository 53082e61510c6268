import ast
import pathlib

import pytest

from fnas_jax.core import config as config_lib
from fnas_jax.core import config_file

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "experiments"
CONFIGS = sorted(path for path in FOLDER.glob("*.py") if path.name != "__init__.py")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_and_says_how_to_run_it(path):
    config_lib.validate(config_file.load(str(path)))
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert f"python -m fnas_jax.main --config=experiments/{path.name} --workdir=" in doc
