"""Every command under one name, and configurations that are named without a path."""

import pathlib
import re

import pytest

import fnas_jax
from fnas_jax import __main__ as command
from fnas_jax.core import config_file
from fnas_jax.core.types import UserError


def test_every_command_exists_and_explains_itself(capsys):
    for name in command.COMMANDS:
        assert command.main([name, "--help"]) == 0
        assert re.search(r"^  (fnas-jax|python -m fnas_jax\.)", capsys.readouterr().out, re.M)
    assert command.main(["--help"]) == 0
    assert all(name in capsys.readouterr().out for name in ("search",))


def test_a_wrong_command_is_one_sentence(capsys):
    assert command.main(["retrian"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'retrian'; allowed are search, ")
    assert error.endswith("did you mean 'retrain'?\n")
    assert command.main([]) == 2
    assert "fnas-jax COMMAND" in capsys.readouterr().err


def test_arguments_reach_the_command_and_flags_alone_are_those_of_a_search(capsys):
    assert command.main(["report", "--workdir=/nowhere"]) == 2
    assert "'/nowhere' is not the workdir of a run" in capsys.readouterr().err
    assert command.main(["--config=nothing.py"]) == 2
    assert "config file 'nothing.py' does not exist" in capsys.readouterr().err


def test_the_documented_configurations_have_names():
    folder = pathlib.Path(fnas_jax.__file__).parents[1] / "experiments"
    known = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert set(config_file.shipped()) == known and "fnas_digits" in known
    by_name, by_path = (
        config_file.load(p) for p in ("fnas_digits", str(folder / "fnas_digits.py"))
    )
    assert by_name.to_dict() == by_path.to_dict()
    with pytest.raises(UserError, match=r"with fnas_jax come .*did you mean 'fnas_digits'"):
        config_file.load("fnas_digit")


def test_a_file_of_that_name_comes_first(tmp_path, monkeypatch):
    (tmp_path / "fnas_digits").write_text(
        "from fnas_jax.core.config import default\n"
        "def get_config():\n    c = default()\n    c.seed = 77\n    return c\n"
    )
    monkeypatch.chdir(tmp_path)
    assert config_file.load("fnas_digits").seed == 77
